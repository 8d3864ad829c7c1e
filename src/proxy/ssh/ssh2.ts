// The one place that knows what ssh2 looks like inside. We take from it what it is good at: the binary
// packet protocol, key exchange and ciphers (its `Protocol`), and the reading of private keys. Its Client,
// Server and streams are left out: they bridge channels through two sets of windows, answer some requests by
// themselves and forget others (research: 45 of 49 client features, against 49 for a relay of messages).
// Nothing of this is its public interface, so the version is pinned and looked at when the first connection
// is made: another one fails loudly here, and not strangely there.
import { createPrivateKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire, Module } from 'node:module'
import { dirname } from 'node:path'
import { hasKem, hideHybrid, receiveKexInit, watchFirstKexInit } from './hybrid.ts'
import type { Exchanging } from './hybrid.ts'

const load = createRequire(import.meta.url)

/** The version whose inside this file describes. */
export const ssh2Version = '1.17.0'

/**
 * OpenSSH's limit of a packet. ssh2 takes 35,000 bytes, the least that RFC 4253 asks for: a long command line
 * is one packet and would not fit.
 */
export const packetBytesMax = 256 * 1024
const packetLimit = 'const MAX_PACKET_SIZE = 35000;'

/** A private key that ssh2 has read. */
export interface PrivateKey {
  readonly type: string
  /** The public key's blob. */
  getPublicSSH(): Buffer
  /** In OpenSSL's form: ECDSA as ASN.1. */
  sign(data: Uint8Array, hash?: string): Buffer | Error
  getPrivatePEM(): string | null
}

/** What a key exchange needs of a host key. */
export interface HostKey {
  readonly type: string
  getPublicSSH(): Buffer
  sign(data: Uint8Array, hash?: string): Buffer | Error
}

export interface Cipher {
  outSeqno: number
  readonly _dead: boolean
  /** AEAD ciphers of the native binding encrypt a whole packet where it lies. */
  readonly _instance?: { encrypt(packet: Uint8Array, seqno?: number): void }
}

export interface Decipher {
  /** A packet that is not whole yet; may be a view of what was read. */
  _packet?: Uint8Array | null
  /** Of the packet that is being read; 0 between two. Not every cipher has it. */
  _len?: number
  _onPayload: (payload: Buffer) => unknown
}

export interface Negotiated {
  kex: string
  serverHostKey: string
  cs: { cipher: string, mac: string, compress: string }
  sc: { cipher: string, mac: string, compress: string }
}

/** ssh2's connection: bytes in through `parse`, payloads out through `_onPayload`. */
export interface Protocol extends Omit<Exchanging, '_kex' | '_decipher'> {
  start(): void
  parse(chunk: Uint8Array, from: number, to: number): void
  rekey(): void
  /** Frees the ciphers; nothing may be sent or parsed afterwards. */
  cleanup(): void
  /** Absent once that was done, or after a fatal error. */
  _destruct?: unknown
  _onPayload: (payload: Buffer) => unknown
  _onHandshakeComplete: (negotiated: Negotiated) => void
  /** Present while a key exchange is under way: payloads are queued then. */
  _kexinit?: Buffer
  _kex?: { sessionID: Buffer, remoteExtInfoEnabled: boolean, negotiated: Negotiated }
  _cipher: Cipher
  _decipher?: Decipher
  readonly _packetRW: {
    write: { allocStart: number, alloc(bytes: number): Buffer, finalize(packet: Buffer): Buffer }
  }
}

export interface ProtocolSetting {
  server: boolean
  /** Behind `SSH-2.0-`. */
  ident: string
  hostKeys?: Readonly<Record<string, HostKey>>
  hostVerifier?: (blob: Buffer) => boolean
  offer: Offer
  onWrite(bytes: Buffer): void
  onError(error: Error): void
  onHandshakeComplete(negotiated: Negotiated): void
  messageHandlers: Record<string, never>
}

/** As ssh2 takes it. */
interface FullSetting extends ProtocolSetting {
  /** The peer's identification is there; nothing behind it was read. */
  onHeader(): void
}

export interface Offer {
  kex: readonly string[]
  serverHostKey: readonly string[]
  cs: OfferWay
  sc: OfferWay
}

interface OfferWay {
  cipher: readonly string[]
  mac: readonly string[]
  compress: readonly string[]
  lang: readonly string[]
}

interface Insides {
  makeProtocol(setting: ProtocolSetting): Protocol
  /** Sends, or queues while keys are exchanged. */
  sendPacket(protocol: Protocol, packet: Buffer): boolean
  handleKexInit(protocol: Protocol, payload: Buffer): void
  /** Whether the hybrid key exchange (hybrid.ts) can be offered. */
  hasKem: boolean
  parseKey(text: string): PrivateKey | PrivateKey[] | Error
  nativeCrypto: boolean
}

type HandleKexInit = (protocol: Protocol, payload: Buffer) => void

let insides: Insides | undefined

/** @throws Error when the installed ssh2 is another one than this file describes */
export function ssh2(): Insides {
  insides ??= open()
  return insides
}

function open(): Insides {
  const { version } = load('ssh2/package.json') as { version: string }
  if (version !== ssh2Version) throw new Error(`ssh2 is ${version}; this build leans on ${ssh2Version}`)
  widenPackets(load.resolve('ssh2/lib/protocol/crypto.js'))
  const ProtocolOf = load('ssh2/lib/protocol/Protocol.js') as new (setting: FullSetting) => Protocol
  const { HANDLERS } = load('ssh2/lib/protocol/kex.js') as { HANDLERS: Record<number, HandleKexInit> }
  const { sendPacket } = load('ssh2/lib/protocol/utils.js') as Pick<Insides, 'sendPacket'>
  const { bindingAvailable } = load('ssh2/lib/protocol/crypto.js') as { bindingAvailable: boolean }
  const { parseKey } = load('ssh2/lib/protocol/keyParser.js') as Pick<Insides, 'parseKey'>
  const handleKexInit = HANDLERS[20]
  if (handleKexInit === undefined || typeof sendPacket !== 'function' || typeof parseKey !== 'function') {
    throw new Error(`ssh2 ${version} does not look inside as expected`)
  }
  return {
    makeProtocol: setting => {
      const protocol = new ProtocolOf({ ...setting, onHeader: () => watchFirstKexInit(protocol) })
      hideHybrid(protocol)
      return protocol
    },
    sendPacket, parseKey,
    handleKexInit: (protocol, payload) => {
      receiveKexInit(protocol, payload, shown => handleKexInit(protocol, shown))
    },
    hasKem: hasKem(),
    nativeCrypto: bindingAvailable
  }
}

/** What Node's own types leave out. */
interface Compiling extends Module {
  _compile(text: string, file: string): void
}

/** Loads ssh2's ciphers with a larger packet; whatever of its protocol is required later uses them. */
function widenPackets(file: string): void {
  const text = readFileSync(file, 'utf8')
  if (text.split(packetLimit).length !== 2) throw new Error('the ciphers of ssh2 have no limit of a packet')
  for (const loaded of Object.keys(load.cache)) {
    if (dirname(loaded) === dirname(file) && loaded.endsWith('.js')) delete load.cache[loaded]
  }
  const module = new Module(file) as Compiling
  module.filename = file
  module._compile(text.replace(packetLimit, `const MAX_PACKET_SIZE = ${packetBytesMax};`), file)
  module.loaded = true
  load.cache[file] = module
}

/**
 * Reads a private key in any format that OpenSSH writes or wrote. @throws Error, which quotes nothing of it
 */
export function readPrivateKey(text: string): PrivateKey {
  const parsed = ssh2().parseKey(text)
  const key = Array.isArray(parsed) ? parsed[0] : parsed
  if (key === undefined || key instanceof Error || key.getPrivatePEM() === null) {
    throw new Error('the private key cannot be read: it is damaged, encrypted or of an unknown kind')
  }
  return key
}

/** What ECDSA signs is a hash whose size fits the curve (RFC 5656 section 6.2.1); RSA is told one. */
const curveHashes: Readonly<Record<string, string>> = {
  'ecdsa-sha2-nistp256': 'sha256', 'ecdsa-sha2-nistp384': 'sha384', 'ecdsa-sha2-nistp521': 'sha512'
}

/** A key for many signatures: ssh2 would read its text again for each, which takes as long as signing. */
export function readHostKey(text: string): HostKey {
  const key = readPrivateKey(text)
  const { type } = key
  const object = createPrivateKey(key.getPrivatePEM()!)
  return {
    type, getPublicSSH: () => key.getPublicSSH(),
    sign: (data, hash = curveHashes[type]) => sign(hash, data, object)
  }
}
