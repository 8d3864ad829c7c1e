// The messages of SSH's connection protocol (RFC 4254; PROTOCOL in OpenSSH's source for its own): channels
// are opened, carry data and are closed. A relay sees every one of them decrypted. What runs for each DATA
// message reads at offsets and makes nothing; everything else is decoded into plain values. A message that is
// shorter or longer than it says throws a WireError: a peer that miscounts could make us see another message
// than the other side does. Requests within a channel are in request.ts.
import { WireError } from '../error.ts'
import { SshReader, sshFields, sshUint32 } from './data.ts'
import type { SshField } from './data.ts'

/** Message numbers. */
export const sshMessage = {
  globalRequest: 80,
  requestSuccess: 81,
  requestFailure: 82,
  channelOpen: 90,
  openConfirmation: 91,
  openFailure: 92,
  windowAdjust: 93,
  data: 94,
  extendedData: 95,
  eof: 96,
  close: 97,
  channelRequest: 98,
  channelSuccess: 99,
  channelFailure: 100
} as const

/** Why a channel was not opened (RFC 4254 section 5.1). */
export const openFailureReason = {
  administrativelyProhibited: 1, connectFailed: 2, unknownChannelType: 3, resourceShortage: 4
} as const

/** The one kind of extended data there is. */
export const stderrType = 1

/** Names of types and requests: the RFC says 64, nobody has longer ones. */
export const sshNameBytesMax = 256
/** Host names, addresses, socket paths. */
const addressBytesMax = 4096
/** Where data begins in DATA and EXTENDED_DATA. */
export const dataHeadBytes = 9
export const extendedDataHeadBytes = 13

/** What a channel is for, beyond its type. */
export type ChannelPurpose =
  | { kind: 'session' | 'agent' | 'unknown' }
  /** `direct`: the client asks the target to connect there; `forwarded`: somebody connected there. */
  | { kind: 'direct-tcpip' | 'forwarded-tcpip', host: string, port: number, from: string, fromPort: number }
  | { kind: 'direct-streamlocal' | 'forwarded-streamlocal', path: string }
  | { kind: 'x11', from: string, fromPort: number }
  | { kind: 'tun', mode: number, unit: number }

export interface ChannelOpen {
  type: string
  /** The opener's number for it: what the other side's messages name as their recipient. */
  sender: number
  window: number
  packetBytesMax: number
  purpose: ChannelPurpose
}

export interface OpenConfirmation {
  recipient: number
  sender: number
  window: number
  packetBytesMax: number
}

export interface OpenFailure {
  recipient: number
  reason: number
  description: string
}

/** What a global request asks for, as far as it is known. */
export type GlobalPurpose =
  | { kind: 'tcpip-forward' | 'cancel-tcpip-forward', host: string, port: number }
  | { kind: 'streamlocal-forward' | 'cancel-streamlocal-forward', path: string }
  | { kind: 'unknown' }

export interface GlobalRequest {
  type: string
  wantReply: boolean
  purpose: GlobalPurpose
}

// ---- read at offsets

/** Whom a channel message (91 to 100) is for. @throws WireError */
export function recipientOf(payload: Uint8Array): number {
  if (payload.length < 5) throw new WireError('an SSH channel message without a channel')
  return uint32At(payload, 1)
}

/** How many bytes a DATA message carries, from `dataHeadBytes` to its end. @throws WireError */
export function dataBytes(payload: Uint8Array): number {
  return bytesBehind(payload, dataHeadBytes)
}

/** The same for EXTENDED_DATA, from `extendedDataHeadBytes`. @throws WireError */
export function extendedDataBytes(payload: Uint8Array): number {
  return bytesBehind(payload, extendedDataHeadBytes)
}

/** `stderrType`, or what nobody knows. @throws WireError */
export function extendedDataType(payload: Uint8Array): number {
  if (payload.length < extendedDataHeadBytes) throw new WireError('an SSH data message is too short')
  return uint32At(payload, 5)
}

/** The bytes of a WINDOW_ADJUST. @throws WireError */
export function windowAdjustBytes(payload: Uint8Array): number {
  if (payload.length !== 9) throw new WireError('an SSH window message of a wrong length')
  return uint32At(payload, 5)
}

function bytesBehind(payload: Uint8Array, headBytes: number): number {
  if (payload.length < headBytes) throw new WireError('an SSH data message is too short')
  const length = uint32At(payload, headBytes - 4)
  if (length !== payload.length - headBytes) throw new WireError('an SSH data message of a wrong length')
  return length
}

function uint32At(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
}

// ---- decoders

/** Begins to read a message of this number. @throws WireError when it is another one */
export function readerOf(payload: Uint8Array, message: number): SshReader {
  const reader = new SshReader(payload)
  if (reader.byte() !== message) throw new WireError(`SSH message ${payload[0]} is not ${message}`)
  return reader
}

/** A `string` of at most so many bytes, as text. */
export function boundedText(reader: SshReader, bytesMax: number): string {
  const bytes = reader.bytes()
  if (bytes.length > bytesMax) throw new WireError(`an SSH text of ${bytes.length} bytes`)
  return bytes.toString('utf8')
}

/** What follows is not ours to understand, or must not be there. */
export function expectEnd(reader: SshReader): void {
  if (reader.left > 0) throw new WireError('an SSH message is longer than it says')
}

/** @throws WireError */
export function parseChannelOpen(payload: Uint8Array): ChannelOpen {
  const reader = readerOf(payload, sshMessage.channelOpen)
  const type = boundedText(reader, sshNameBytesMax)
  const sender = reader.uint32()
  const window = reader.uint32()
  const packetBytesMax = reader.uint32()
  const purpose = purposeOf(type, reader)
  if (purpose.kind !== 'unknown') expectEnd(reader)
  return { type, sender, window, packetBytesMax, purpose }
}

function purposeOf(type: string, reader: SshReader): ChannelPurpose {
  const address = (): string => boundedText(reader, addressBytesMax)
  switch (type) {
    case 'session': return { kind: 'session' }
    case 'auth-agent@openssh.com':
    case 'auth-agent': return { kind: 'agent' }
    case 'direct-tcpip':
    case 'forwarded-tcpip': {
      const [host, port] = [address(), reader.uint32()]
      return { kind: type, host, port, from: address(), fromPort: reader.uint32() }
    }
    case 'direct-streamlocal@openssh.com':
    case 'forwarded-streamlocal@openssh.com': {
      const direct = type.startsWith('direct')
      const path = address()
      // Reserved: a string, and for `direct` a number.
      reader.bytes()
      if (direct) reader.uint32()
      return { kind: direct ? 'direct-streamlocal' : 'forwarded-streamlocal', path }
    }
    case 'x11': return { kind: 'x11', from: address(), fromPort: reader.uint32() }
    case 'tun@openssh.com': return { kind: 'tun', mode: reader.uint32(), unit: reader.uint32() }
    default: return { kind: 'unknown' }
  }
}

/** @throws WireError */
export function parseOpenConfirmation(payload: Uint8Array): OpenConfirmation {
  const reader = readerOf(payload, sshMessage.openConfirmation)
  const [recipient, sender] = [reader.uint32(), reader.uint32()]
  // Channel types may add fields of their own.
  return { recipient, sender, window: reader.uint32(), packetBytesMax: reader.uint32() }
}

/** @throws WireError */
export function parseOpenFailure(payload: Uint8Array): OpenFailure {
  const reader = readerOf(payload, sshMessage.openFailure)
  const [recipient, reason] = [reader.uint32(), reader.uint32()]
  const description = reader.text()
  reader.bytes()
  expectEnd(reader)
  return { recipient, reason, description }
}

/** @throws WireError */
export function parseGlobalRequest(payload: Uint8Array): GlobalRequest {
  const reader = readerOf(payload, sshMessage.globalRequest)
  const type = boundedText(reader, sshNameBytesMax)
  const wantReply = reader.boolean()
  const address = (): string => boundedText(reader, addressBytesMax)
  let purpose: GlobalPurpose
  switch (type) {
    case 'tcpip-forward':
    case 'cancel-tcpip-forward': purpose = { kind: type, host: address(), port: reader.uint32() }; break
    case 'streamlocal-forward@openssh.com':
    case 'cancel-streamlocal-forward@openssh.com': {
      const cancel = type.startsWith('cancel')
      purpose = { kind: cancel ? 'cancel-streamlocal-forward' : 'streamlocal-forward', path: address() }
      break
    }
    default: purpose = { kind: 'unknown' }
  }
  if (purpose.kind !== 'unknown') expectEnd(reader)
  return { type, wantReply, purpose }
}

// ---- encoders

/** A message from its number and fields; numbers are `uint32`. */
export function sshPayload(message: number, ...fields: readonly SshField[]): Buffer {
  return Buffer.concat([Buffer.of(message), sshFields(...fields)])
}

export function channelOpen(
  type: string, sender: number, window: number, packetBytesMax: number, ...more: readonly SshField[]
): Buffer {
  return sshPayload(sshMessage.channelOpen, type, sender, window, packetBytesMax, ...more)
}

export function openConfirmation(
  recipient: number, sender: number, window: number, packetBytesMax: number
): Buffer {
  return sshPayload(sshMessage.openConfirmation, recipient, sender, window, packetBytesMax)
}

export function openFailure(recipient: number, reason: number, description: string): Buffer {
  return sshPayload(sshMessage.openFailure, recipient, reason, description, '')
}

export function windowAdjust(recipient: number, bytes: number): Buffer {
  return sshPayload(sshMessage.windowAdjust, recipient, bytes)
}

export function channelData(recipient: number, data: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(sshMessage.data), sshUint32(recipient), sshUint32(data.length), data])
}

export function channelStderr(recipient: number, data: Uint8Array): Buffer {
  return sshPayload(sshMessage.extendedData, recipient, stderrType, data)
}

/** EOF, CLOSE, SUCCESS, FAILURE: a number and a channel. */
export function channelSignal(message: number, recipient: number): Buffer {
  return sshPayload(message, recipient)
}

export function channelRequest(
  recipient: number, type: string, wantReply: boolean, ...more: readonly SshField[]
): Buffer {
  return sshPayload(sshMessage.channelRequest, recipient, type, wantReply, ...more)
}

export function globalRequest(type: string, wantReply: boolean, ...more: readonly SshField[]): Buffer {
  return sshPayload(sshMessage.globalRequest, type, wantReply, ...more)
}
