// Requests within a channel of SSH (RFC 4254 sections 6 and 8; OpenSSH's PROTOCOL): a terminal, a command, a
// variable, a signal, an exit. A request that is known must have exactly its fields; one that is not known
// passes with its name only. Terminal modes are read because ECHO is among them.
import { WireError } from '../error.ts'
import { boundedText, expectEnd, readerOf, sshMessage, sshNameBytesMax } from './connection.ts'
import type { SshReader } from './data.ts'

/** Opcode of a terminal mode (RFC 4254 section 8). */
export const terminalMode = { end: 0, echo: 53, lineFeed: 43 } as const
/** From here on opcodes are not defined; what follows them cannot be read. */
const opcodeMax = 159

export interface PtySize {
  columns: number
  rows: number
  widthPixels: number
  heightPixels: number
}

export type RequestPurpose =
  | { kind: 'pty-req', term: string, size: PtySize, modes: ReadonlyMap<number, number> }
  | { kind: 'window-change', size: PtySize }
  | { kind: 'shell' }
  | { kind: 'break' | 'eow' | 'auth-agent-req' | 'unknown' }
  | { kind: 'exec', command: Buffer }
  | { kind: 'subsystem', name: string }
  | { kind: 'env', name: string, value: string }
  | { kind: 'signal', signal: string }
  | { kind: 'exit-status', status: number }
  | { kind: 'exit-signal', signal: string, coreDumped: boolean, message: string }
  | { kind: 'xon-xoff', clientCanDo: boolean }
  | { kind: 'x11-req', single: boolean, protocol: string, screen: number }

export interface ChannelRequest {
  recipient: number
  type: string
  wantReply: boolean
  purpose: RequestPurpose
}

/** Of these a channel carries one. */
export type Starting = Extract<RequestPurpose, { kind: 'shell' | 'exec' | 'subsystem' }>

export function isStarting(purpose: RequestPurpose): purpose is Starting {
  return purpose.kind === 'shell' || purpose.kind === 'exec' || purpose.kind === 'subsystem'
}

/** @throws WireError */
export function parseChannelRequest(payload: Uint8Array): ChannelRequest {
  const reader = readerOf(payload, sshMessage.channelRequest)
  const recipient = reader.uint32()
  const type = boundedText(reader, sshNameBytesMax)
  const wantReply = reader.boolean()
  const purpose = purposeOf(type, reader)
  if (purpose.kind !== 'unknown') expectEnd(reader)
  return { recipient, type, wantReply, purpose }
}

function purposeOf(type: string, reader: SshReader): RequestPurpose {
  switch (type) {
    case 'pty-req': {
      const term = boundedText(reader, sshNameBytesMax)
      return { kind: type, term, size: sizeOf(reader), modes: parseTerminalModes(reader.bytes()) }
    }
    case 'window-change': return { kind: type, size: sizeOf(reader) }
    case 'shell': return { kind: type }
    case 'exec': return { kind: type, command: reader.bytes() }
    case 'subsystem': return { kind: type, name: boundedText(reader, sshNameBytesMax) }
    case 'env': return { kind: type, name: reader.text(), value: reader.text() }
    case 'signal': return { kind: type, signal: boundedText(reader, sshNameBytesMax) }
    case 'exit-status': return { kind: type, status: reader.uint32() }
    case 'exit-signal': {
      const signal = boundedText(reader, sshNameBytesMax)
      const coreDumped = reader.boolean()
      const message = reader.text()
      reader.bytes()
      return { kind: type, signal, coreDumped, message }
    }
    case 'xon-xoff': return { kind: type, clientCanDo: reader.boolean() }
    // RFC 4335: a length in milliseconds.
    case 'break': reader.uint32(); return { kind: type }
    case 'eow@openssh.com': return { kind: 'eow' }
    case 'auth-agent-req@openssh.com':
    case 'auth-agent-req': return { kind: 'auth-agent-req' }
    case 'x11-req': {
      const single = reader.boolean()
      const protocol = boundedText(reader, sshNameBytesMax)
      // The cookie is a secret: it is read past.
      reader.bytes()
      return { kind: type, single, protocol, screen: reader.uint32() }
    }
    default: return { kind: 'unknown' }
  }
}

function sizeOf(reader: SshReader): PtySize {
  const [columns, rows] = [reader.uint32(), reader.uint32()]
  return { columns, rows, widthPixels: reader.uint32(), heightPixels: reader.uint32() }
}

/** Opcode → value. The last one counts. @throws WireError when a value is cut */
export function parseTerminalModes(bytes: Buffer): Map<number, number> {
  const modes = new Map<number, number>()
  let at = 0
  while (at < bytes.length) {
    const opcode = bytes[at]!
    if (opcode === terminalMode.end || opcode > opcodeMax) break
    if (bytes.length - at < 5) throw new WireError('terminal modes are shorter than they say')
    modes.set(opcode, bytes.readUInt32BE(at + 1))
    at += 5
  }
  return modes
}

/** `modes` of a pty-req. */
export function encodeTerminalModes(modes: ReadonlyMap<number, number>): Buffer {
  const bytes = Buffer.alloc(modes.size * 5 + 1)
  let at = 0
  for (const [opcode, value] of modes) {
    bytes[at] = opcode
    bytes.writeUInt32BE(value, at + 1)
    at += 5
  }
  return bytes
}
