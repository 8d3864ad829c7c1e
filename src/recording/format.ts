// The bytes of a recording file (`.spr`), both directions, and nothing else: no file is opened here.
// A file is a 32-byte header and then frames; a `seal` frame closes a block of the hash chain: it holds the
// SHA-256 of everything from the seal before it (or from the first byte of the file) and a signature.
// recordings/README.md tells the same for people who write their own reader. Every number here is the format:
// a change is a new version.
import { frameKind } from './recording.ts'
import type { FrameKind, Signer } from './recording.ts'

/** Like PNG's: a byte above 127, a name, and line ends that a text-mode copy would spoil. */
export const magic = Buffer.from([0x89, 0x53, 0x50, 0x52, 0x0d, 0x0a, 0x1a, 0x0a])
export const formatVersion = 1
/** Magic 8, version u16, flags u16 (0), reserved u32 (0), random id 16. */
export const fileHeadBytes = 32
/** Length of the body u32, kind u8, lane u16, microseconds since the start u48; all big-endian. */
export const frameHeadBytes = 13
/**
 * So that a reader needs no more memory than this for one frame; longer bodies are written as several frames.
 */
export const bodyBytesMax = 1024 * 1024
/** Type u8, offset u48, frames u48, close offset u48, head 32, key id 32, signature 64. */
export const sealBodyBytes = 147
export const sealFrameBytes = frameHeadBytes + sealBodyBytes
const signedBodyBytes = 83
const keyIdBytes = 32
const sealDomain = Buffer.from('sallyport recording seal v1\n')

export const sealType = { checkpoint: 1, final: 2 } as const

export interface FileHead {
  version: number
  /** Random, drawn for each file: signatures of one recording say nothing about another. */
  id: Buffer
}

export interface FrameHead {
  length: number
  kind: FrameKind
  lane: number
  atMicroseconds: number
}

export interface Frame {
  /** Of the frame's first header byte, from the start of the file. */
  offset: number
  kind: FrameKind
  lane: number
  atMicroseconds: number
  body: Buffer
}

export interface Seal {
  final: boolean
  /** Offset of the seal frame itself: it cannot be moved. */
  offset: number
  /** Frames before this one. */
  frames: number
  /** Offset of the close frame; 0 in a checkpoint. */
  closeOffset: number
  head: Buffer
  keyId: string
  signature: Buffer
}

export function encodeFileHead(id: Uint8Array): Buffer {
  const head = Buffer.alloc(fileHeadBytes)
  magic.copy(head)
  head.writeUInt16BE(formatVersion, 8)
  head.set(id.subarray(0, 16), 16)
  return head
}

/** Undefined when these are not the first bytes of a recording of this version. */
export function decodeFileHead(bytes: Buffer): FileHead | undefined {
  if (bytes.length < fileHeadBytes || !bytes.subarray(0, 8).equals(magic)) return undefined
  const version = bytes.readUInt16BE(8)
  const rest = bytes.readUInt16BE(10) + bytes.readUInt32BE(12)
  if (version !== formatVersion || rest !== 0) return undefined
  return { version, id: Buffer.from(bytes.subarray(16, fileHeadBytes)) }
}

/** Writes a frame's header at `at`. By hand: this runs for every frame of every session. */
export function writeFrameHead(
  target: Uint8Array, at: number, length: number, kind: number, lane: number, atMicroseconds: number
): void {
  const high = Math.floor(atMicroseconds / 0x1_0000_0000)
  const low = atMicroseconds >>> 0
  target[at] = length >>> 24
  target[at + 1] = length >>> 16
  target[at + 2] = length >>> 8
  target[at + 3] = length
  target[at + 4] = kind
  target[at + 5] = lane >>> 8
  target[at + 6] = lane
  target[at + 7] = high >>> 8
  target[at + 8] = high
  target[at + 9] = low >>> 24
  target[at + 10] = low >>> 16
  target[at + 11] = low >>> 8
  target[at + 12] = low
}

/** Undefined when no frame can look like that: a torn tail, or damage. The caller has checked the length. */
export function readFrameHead(bytes: Buffer, at: number): FrameHead | undefined {
  const length = bytes.readUInt32BE(at)
  const kind = bytes[at + 4] as FrameKind
  if (length > bodyBytesMax || kind < frameKind.open || kind > frameKind.file) return undefined
  if (kind === frameKind.seal && length !== sealBodyBytes) return undefined
  return { length, kind, lane: bytes.readUInt16BE(at + 5), atMicroseconds: bytes.readUIntBE(at + 7, 6) }
}

/** One whole frame as bytes, for the few that are not written by the hot path. */
export function encodeFrame(kind: FrameKind, lane: number, atMicroseconds: number, body: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafeSlow(frameHeadBytes + body.length)
  writeFrameHead(frame, 0, body.length, kind, lane, atMicroseconds)
  frame.set(body, frameHeadBytes)
  return frame
}

export interface SealFields {
  final: boolean
  offset: number
  frames: number
  closeOffset: number
  atMicroseconds: number
  head: Uint8Array
}

/** The signed seal as a whole frame. Throws what the signer throws. */
export function encodeSealFrame(id: Uint8Array, seal: SealFields, signer: Signer): Buffer {
  const frame = Buffer.alloc(sealFrameBytes)
  writeFrameHead(frame, 0, sealBodyBytes, frameKind.seal, 0, seal.atMicroseconds)
  const body = frame.subarray(frameHeadBytes)
  body[0] = seal.final ? sealType.final : sealType.checkpoint
  body.writeUIntBE(seal.offset, 1, 6)
  body.writeUIntBE(seal.frames, 7, 6)
  body.writeUIntBE(seal.closeOffset, 13, 6)
  body.set(seal.head, 19)
  body.write(signer.keyId.slice(0, keyIdBytes), 51, keyIdBytes, 'latin1')
  const signature = signer.sign(sealMessage(id, frame))
  if (signature.length !== 64) throw new Error(`the signer returned ${signature.length} bytes, not 64`)
  body.set(signature, signedBodyBytes)
  return frame
}

/** Undefined when the body is not that of a seal. Nothing is verified here. */
export function decodeSeal(body: Buffer): Seal | undefined {
  const type = body[0]
  if (body.length !== sealBodyBytes) return undefined
  if (type !== sealType.checkpoint && type !== sealType.final) return undefined
  return {
    final: type === sealType.final,
    offset: body.readUIntBE(1, 6),
    frames: body.readUIntBE(7, 6),
    closeOffset: body.readUIntBE(13, 6),
    head: Buffer.from(body.subarray(19, 51)),
    keyId: body.toString('latin1', 51, signedBodyBytes).replace(/\0+$/, ''),
    signature: Buffer.from(body.subarray(signedBodyBytes))
  }
}

/** What is signed: the purpose, the file's id, and the seal's frame up to the signature. */
export function sealMessage(id: Uint8Array, sealFrame: Uint8Array): Buffer {
  return Buffer.concat([sealDomain, id, sealFrame.subarray(0, frameHeadBytes + signedBodyBytes)])
}
