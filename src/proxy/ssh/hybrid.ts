// mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex): a key exchange that a recording of today does not
// give away to a quantum computer of tomorrow. ssh2 has none, so it is led to one. It believes that it agreed
// on curve25519-sha256, which has the same messages and the same hash: the name of the hybrid is in the list
// that it sends, and out of the one that it compares; when both sides name the hybrid, it is given the peer's
// list with the other name in its place, and its new exchange gets our shares and our secret before it says
// its first word. What was really sent and received goes into the exchange hash. test/ssh-hybrid.ts holds the
// sums of the files of ssh2 that this was read from.
import * as crypto from 'node:crypto'
import { SshReader, sshFields } from '../../wire/ssh/data.ts'
import { WireError } from '../../wire/error.ts'

export const hybridName = 'mlkem768x25519-sha256'

/** What ssh2 does in its place. */
const standIn = 'curve25519-sha256'

const kexInit = 20
/** Message type and cookie, before the lists of a KEXINIT. */
const kexInitHead = 17
/** The lists behind those of key exchanges and host keys. */
const furtherLists = 8

const sharedBytes = 32
const kemKeyBytes = 1184
const kemTextBytes = 1088
/** SubjectPublicKeyInfo up to the raw key: ML-KEM-768 (FIPS 203) and X25519 (RFC 8410). */
const kemHead = Buffer.from('308204b2300b0609608648016503040402038204a100', 'hex')
const curveHead = Buffer.from('302a300506032b656e032100', 'hex')

/** What we lean on of an exchange of ssh2's: it calls these, whoever put them there. */
export interface KeyExchange extends Shares {
  readonly type: string
  readonly hashName: string
  readonly negotiated: { kex: string }
  /** The peer's KEXINIT as it is hashed. */
  _remoteKexinit: Buffer
}

interface Shares {
  generateKeys(): void
  /** What we send. */
  getPublicKey(): Buffer
  /** How a share is hashed. */
  convertPublicKey(share: Buffer): Buffer
  /** Hashed as a string, with its length before it: what is no number needs no care for its first bits. */
  computeSecret(theirs: Buffer): Buffer | Error
}

/** What we lean on of ssh2's Protocol. */
export interface Exchanging {
  readonly _server: boolean
  readonly _offer: { lists: { kex: NameList, serverHostKey: NameList } }
  _kex?: unknown
  _decipher?: { _onPayload: (payload: Buffer) => unknown }
  /** What the peer sent ahead was for an exchange that was not agreed on. */
  _skipNextInboundPacket: boolean
}

/** `buffer` is what is sent, `array` what the peer's list is compared with. */
interface NameList { array: string[], readonly buffer: Buffer }

type Receive = (payload: Buffer) => unknown

/** Whether this Node (24.7, with OpenSSL 3.5) has ML-KEM. */
export function hasKem(): boolean {
  try {
    const client = clientShares()
    const server = serverShares()
    const secret = server.computeSecret(client.getPublicKey())
    const same = client.computeSecret(server.getPublicKey())
    return secret instanceof Buffer && same instanceof Buffer && secret.equals(same)
  } catch {
    return false
  }
}

/** For a new connection: ssh2 sends the name, and agrees on what it can do. */
export function hideHybrid({ _offer: { lists: { kex } } }: Exchanging): void {
  const able = kex.array.filter(name => name !== hybridName)
  if (kex.array[0] === hybridName && able[0] !== standIn) throw new Error(`${standIn} must follow the hybrid`)
  kex.array = able
}

/** To be called when the peer's identification is there: its first KEXINIT goes through `receiveKexInit`. */
export function watchFirstKexInit(protocol: Exchanging): void {
  const decipher = protocol._decipher
  if (decipher === undefined) throw new Error('ssh2 reads no packets behind the identification')
  const inner = decipher._onPayload
  decipher._onPayload = payload => {
    if (payload[0] !== kexInit) return inner(payload)
    decipher._onPayload = inner
    return receiveKexInit(protocol, payload, inner)
  }
}

/** Hands a KEXINIT to ssh2 (`receive`), which makes its exchange and, as a client, sends its share. */
export function receiveKexInit(protocol: Exchanging, payload: Buffer, receive: Receive): unknown {
  const theirs = readKexInit(payload)
  // ssh2 says what is wrong with it.
  if (theirs === undefined) return receive(payload)
  const { kex, serverHostKey } = protocol._offer.lists
  const ours = kex.buffer.toString('latin1').split(',')
  const [client, server] = protocol._server ? [theirs.kex, ours] : [ours, theirs.kex]
  const isHybrid = client.find(name => server.includes(name)) === hybridName
  const received = isHybrid
    ? receiveHybrid(protocol, payload, theirs.kex, receive)
    : receive(payload)
  // RFC 4253 section 7: right when both sides like the same ones best. ssh2 takes each guess for a wrong one
  // (it compares a name with a letter), and a client that guessed right, as dropbear does, waits for ever.
  if (theirs.guessed) {
    protocol._skipNextInboundPacket =
      theirs.kex[0] !== ours[0] || theirs.serverHostKey[0] !== serverHostKey.array[0]
  }
  return received
}

/** ssh2 assigns its new exchange to `_kex` and starts it in the next line: there it becomes ours. */
function receiveHybrid(
  protocol: Exchanging, payload: Buffer, theirs: readonly string[], receive: Receive
): unknown {
  const names = theirs.map(name => name === hybridName ? standIn : name).join(',')
  const shown = Buffer.concat([
    payload.subarray(0, kexInitHead), sshFields(Buffer.from(names, 'latin1')),
    payload.subarray(kexInitHead + 4 + payload.readUInt32BE(kexInitHead))
  ])
  const rest = { configurable: true, enumerable: true }
  let exchange = protocol._kex
  Object.defineProperty(protocol, '_kex', {
    ...rest,
    get: () => exchange,
    set: (made: KeyExchange) => {
      takeOver(made, payload, protocol._server)
      exchange = made
    }
  })
  try {
    return receive(shown)
  } finally {
    Object.defineProperty(protocol, '_kex', { ...rest, writable: true, value: exchange })
  }
}

function takeOver(exchange: KeyExchange, payload: Buffer, isServer: boolean): void {
  const shares = isServer ? serverShares() : clientShares()
  const known = Object.keys(shares).every(name => typeof exchange[name as keyof Shares] === 'function')
  if (exchange.type !== '25519' || exchange.hashName !== 'sha256' || !known) {
    throw new Error('a key exchange of ssh2 does not look inside as expected')
  }
  Object.assign(exchange, shares)
  exchange._remoteKexinit = payload
  exchange.negotiated.kex = hybridName
}

/** What decides; undefined when it is malformed. */
function readKexInit(
  payload: Buffer
): { kex: string[], serverHostKey: string[], guessed: boolean } | undefined {
  try {
    const reader = new SshReader(payload, kexInitHead)
    const names = (): string[] => reader.bytes().toString('latin1').split(',')
    const [kex, serverHostKey] = [names(), names()]
    for (let list = 0; list < furtherLists; list++) reader.bytes()
    return { kex, serverHostKey, guessed: reader.left > 0 && reader.boolean() }
  } catch (thrown) {
    if (thrown instanceof WireError) return undefined
    throw thrown
  }
}

// ---- the two shares and the secret

/** The client's share: its ML-KEM key and its X25519 key. */
function clientShares(): Shares {
  const kem = crypto.generateKeyPairSync('ml-kem-768')
  const curve = crypto.generateKeyPairSync('x25519')
  const share = Buffer.concat([rawOf(kem.publicKey, kemHead), rawOf(curve.publicKey, curveHead)])
  return shares(() => share, theirs => {
    const [text, key] = split(theirs, kemTextBytes)
    return combined(crypto.decapsulate(kem.privateKey, text), agreed(curve.privateKey, key))
  })
}

/** The server's: what it encapsulated for that key, and its X25519 key. Asked for behind the secret. */
function serverShares(): Shares {
  const curve = crypto.generateKeyPairSync('x25519')
  let share: Buffer | undefined
  return shares(() => {
    if (share === undefined) throw new Error('ssh2 asks for our share before it has the secret')
    return share
  }, theirs => {
    const [kemKey, key] = split(theirs, kemKeyBytes)
    const { ciphertext, sharedKey } = crypto.encapsulate(publicKey(kemHead, kemKey))
    const secret = combined(sharedKey, agreed(curve.privateKey, key))
    share = Buffer.concat([ciphertext, rawOf(curve.publicKey, curveHead)])
    return secret
  })
}

function shares(getPublicKey: () => Buffer, secretOf: (theirs: Buffer) => Buffer): Shares {
  return {
    generateKeys: () => undefined,
    getPublicKey,
    convertPublicKey: share => share,
    computeSecret: theirs => {
      try {
        return secretOf(theirs)
      } catch (thrown) {
        // A new one: ssh2 writes into it.
        return new Error(thrown instanceof Error ? thrown.message : String(thrown))
      }
    }
  }
}

function split(share: Buffer, kemBytes: number): [Buffer, Buffer] {
  if (share.length !== kemBytes + sharedBytes) {
    throw new Error(`a share of ${share.length} bytes, where ${kemBytes + sharedBytes} are expected`)
  }
  return [share.subarray(0, kemBytes), share.subarray(kemBytes)]
}

/** OpenSSL refuses the points that would make the secret zero (RFC 7748 section 6.1). */
function agreed(privateKey: crypto.KeyObject, theirs: Buffer): Buffer {
  return crypto.diffieHellman({ privateKey, publicKey: publicKey(curveHead, theirs) })
}

function combined(kemSecret: Uint8Array, curveSecret: Uint8Array): Buffer {
  return crypto.createHash('sha256').update(kemSecret).update(curveSecret).digest()
}

function rawOf(key: crypto.KeyObject, head: Buffer): Buffer {
  return key.export({ type: 'spki', format: 'der' }).subarray(head.length)
}

function publicKey(head: Buffer, raw: Buffer): crypto.KeyObject {
  return crypto.createPublicKey({ key: Buffer.concat([head, raw]), type: 'spki', format: 'der' })
}
