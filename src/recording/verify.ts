// Says whether a recording is what the recorder wrote, with nothing but the file and the public key. Every
// byte is in the hash chain and the newest seal signs the chain, so that one signature vouches for everything
// before it. Only when that signature is wrong are all of them checked, to find where the damage begins. What
// this cannot see: a whole file that was taken away, and an older recording put in its place; for that the
// caller gives what the audit log says (`expected`).
import { createHash, createPublicKey, verify as verifySignature } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { basename } from 'node:path'
import { SallyportError } from '../errors.ts'
import {
  bodyBytesMax, decodeSeal, encodeFileHead, encodeFrame, fileHeadBytes, sealFrameBytes, sealMessage
} from './format.ts'
import type { Frame, Seal } from './format.ts'
import { recordingSuffix } from './paths.ts'
import { RecordingFile, parseClose, parseHead } from './reader.ts'
import type { CloseNote } from './reader.ts'
import { frameKind } from './recording.ts'
import type { RecordingHead } from './recording.ts'
import { FrameScanner } from './scanner.ts'

const chunkBytes = 2 * bodyBytesMax
const bytesBehind = 'there are bytes behind the final seal'

export interface Expected {
  /** Default: the name of the file. A recording under another session's name is broken. */
  session?: string | undefined
  /**
   * From the audit log (`SealSummary`): a genuine recording with another hash is not the one that was sealed.
   */
  headHash?: string | undefined
  bytes?: number | undefined
}

export interface Verdict {
  /**
   * `sealed`: complete and genuine (the ending may still be `interrupted`, when recovery sealed it).
   * `interrupted`: genuine as far as it is signed, and no seal at the end: still running, crashed, or cut off
   * by hand.
   * `broken`: altered, damaged, or not the recording that was expected. `missing`: no such file.
   */
  state: 'sealed' | 'interrupted' | 'broken' | 'missing'
  session: string
  head: RecordingHead | undefined
  close: CloseNote | undefined
  /** Length of the file. */
  bytes: number
  frames: number
  /** Seals seen, the final one included. */
  seals: number
  /** Up to here a valid signature vouches for every byte. */
  verifiedBytes: number
  headHash: string
  /** Names the key, as the seal says. */
  keyId: string
  /** `broken`: the first byte that is not vouched for, and in words what is wrong there. */
  brokenAt: number | undefined
  problem: string | undefined
}

/** Every Ed25519 public key of a PEM text. @throws SallyportError `invalid` when there is none */
export function readPublicKeys(pem: string): KeyObject[] {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? []
  try {
    const keys = blocks.map(block => createPublicKey(block))
      .filter(key => key.asymmetricKeyType === 'ed25519')
    if (keys.length > 0) return keys
  } catch (thrown) {
    throw new SallyportError('invalid', { detail: 'the public key cannot be read', cause: thrown })
  }
  throw new SallyportError('invalid', { detail: 'no Ed25519 public key in PEM form' })
}

/** Walks the chain of one file. `everySeal`: checks each signature; else only the newest, at the end. */
class Chain {
  readonly #id: Buffer
  readonly #keys: readonly KeyObject[]
  readonly #everySeal: boolean
  #hash = createHash('sha256')
  #newest: { seal: Seal, frame: Frame } | undefined
  frames = 0
  seals = 0
  head: RecordingHead | undefined
  close: CloseNote | undefined
  closeOffset = 0
  /** End of the newest seal whose chain fits. */
  chainedBytes = 0
  /** The same for signatures. */
  verifiedBytes = 0
  brokenAt: number | undefined
  problem: string | undefined

  constructor(id: Buffer, keys: readonly KeyObject[], everySeal: boolean) {
    this.#id = id
    this.#keys = keys
    this.#everySeal = everySeal
  }

  get newest(): Seal | undefined {
    return this.#newest?.seal
  }

  update(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#hash.update(bytes)
  }

  break(offset: number, problem: string): void {
    this.brokenAt ??= offset
    this.problem ??= problem
  }

  /** Looks at a frame; for a seal, everything before it must have gone through `update`. */
  frame(frame: Frame): void {
    if (this.newest?.final === true) return this.break(frame.offset, bytesBehind)
    if (frame.kind === frameKind.seal) this.#seal(frame)
    else if (this.frames === 0) {
      if (frame.kind === frameKind.open) this.head = parseHead(frame.body)
      else this.break(frame.offset, 'the first frame is not an open frame')
    } else if (frame.kind === frameKind.open) this.break(frame.offset, 'a second open frame')
    else if (frame.kind === frameKind.close) {
      this.close = parseClose(frame.body)
      this.closeOffset = frame.offset
    }
    this.frames++
  }

  /** Checks the newest signature. */
  conclude(): void {
    if (this.#newest === undefined || this.verifiedBytes === this.chainedBytes) return
    if (this.#signed(this.#newest)) this.verifiedBytes = this.chainedBytes
    else this.break(this.verifiedBytes, 'a signature is not that of the given key')
  }

  #seal(frame: Frame): void {
    const seal = decodeSeal(frame.body)
    const head = this.#hash.digest()
    this.#hash = createHash('sha256')
    this.seals++
    if (seal === undefined) return this.break(frame.offset, 'a seal that cannot be read')
    if (!seal.head.equals(head)) return this.break(this.chainedBytes, 'the hash chain does not fit')
    if (seal.offset !== frame.offset || seal.frames !== this.frames) {
      return this.break(frame.offset, 'a seal that belongs elsewhere')
    }
    if (seal.final && (this.close === undefined || seal.closeOffset !== this.closeOffset)) {
      return this.break(frame.offset, 'a final seal without its close frame')
    }
    this.#newest = { seal, frame: { ...frame, body: Buffer.from(frame.body) } }
    this.chainedBytes = frame.offset + sealFrameBytes
    if (this.#everySeal && this.brokenAt === undefined) this.conclude()
  }

  #signed({ seal, frame }: { seal: Seal, frame: Frame }): boolean {
    const bytes = encodeFrame(frame.kind, frame.lane, frame.atMicroseconds, frame.body)
    const message = sealMessage(this.#id, bytes)
    return this.#keys.some(key => verifySignature(null, message, key, seal.signature))
  }
}

/** Reads from frame border to frame border; a chunk holds the longest frame, so that each round gets on. */
async function walk(file: RecordingFile, keys: readonly KeyObject[], everySeal: boolean): Promise<Chain> {
  const { id } = file.fileHead
  const chain = new Chain(id, keys, everySeal)
  chain.update(encodeFileHead(id))
  const chunk = Buffer.allocUnsafeSlow(chunkBytes)
  let position = fileHeadBytes
  while (chain.brokenAt === undefined) {
    const bytes = chunk.subarray(0, await file.read(chunk, position))
    const scanner = new FrameScanner(position)
    walkChunk(chain, scanner.feed(bytes), bytes.subarray(0, scanner.offset - position), position)
    if (scanner.offset === position) {
      // Behind the final seal nothing may follow; without one, a torn tail is what a crash leaves.
      if (bytes.length > 0 && chain.newest?.final === true) chain.break(position, bytesBehind)
      break
    }
    position = scanner.offset
  }
  chain.conclude()
  return chain
}

/** Hashes in long runs: only a seal needs the hash to stop exactly before it. */
function walkChunk(chain: Chain, frames: readonly Frame[], bytes: Buffer, position: number): void {
  let hashedTo = 0
  for (const frame of frames) {
    if (frame.kind === frameKind.seal) {
      chain.update(bytes.subarray(hashedTo, frame.offset - position))
      hashedTo = frame.offset - position
    }
    chain.frame(frame)
    if (chain.brokenAt !== undefined) return
  }
  chain.update(bytes.subarray(hashedTo))
}

function judge(chain: Chain, file: RecordingFile, session: string, expected: Expected): Verdict {
  const newest = chain.newest
  const headHash = newest?.head.toString('hex') ?? ''
  const bytes = file.bytes
  let state: Verdict['state'] = newest?.final === true ? 'sealed' : 'interrupted'
  if (chain.brokenAt === undefined && chain.head !== undefined && chain.head.session !== session) {
    chain.break(fileHeadBytes, `this is the recording of session ${chain.head.session}`)
  }
  const otherHash = expected.headHash !== undefined && expected.headHash !== headHash
  const otherLength = expected.bytes !== undefined && expected.bytes !== bytes
  if (chain.brokenAt === undefined && (otherHash || otherLength)) {
    chain.break(otherLength ? Math.min(bytes, expected.bytes ?? 0) : 0, 'not the recording that was sealed')
  }
  if (chain.brokenAt !== undefined) state = 'broken'
  const { head, close, frames, seals, brokenAt, problem } = chain
  const verifiedBytes = Math.min(chain.verifiedBytes, brokenAt ?? Infinity)
  const keyId = newest?.keyId ?? ''
  return {
    state, session, head, close, bytes, frames, seals, verifiedBytes, headHash, keyId, brokenAt, problem
  }
}

/**
 * Verifies a file. Streams it: memory does not depend on its length.
 * @param path of the `.spr` file
 * @param keys public keys that may have signed: see `readPublicKeys`
 */
export async function verify(
  path: string, keys: readonly KeyObject[], expected: Expected = {}
): Promise<Verdict> {
  const session = expected.session ?? basename(path, recordingSuffix)
  const nothing = {
    session, head: undefined, close: undefined, bytes: 0, frames: 0, seals: 0, verifiedBytes: 0, headHash: '',
    keyId: ''
  }
  let opened: RecordingFile
  try {
    opened = new RecordingFile(path)
  } catch (thrown) {
    if (thrown instanceof SallyportError && thrown.code === 'not-found') {
      return { ...nothing, state: 'missing', brokenAt: undefined, problem: 'there is no such file' }
    }
    return { ...nothing, state: 'broken', brokenAt: 0, problem: 'this is not a recording' }
  }
  using file = opened
  const quick = await walk(file, keys, false)
  // The chain fits and the newest signature does not: look at all of them, to say where it begins.
  const chain = quick.brokenAt !== undefined && quick.chainedBytes > 0 ? await walk(file, keys, true) : quick
  return judge(chain, file, session, expected)
}
