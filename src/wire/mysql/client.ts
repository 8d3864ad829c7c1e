// A small client for our own statements on MariaDB and MySQL. One statement at a time, as text; a second one
// behind a semicolon is refused by the server, since we never ask for more. The server is not believed: it
// cannot ask for a file of ours, nor for the password in clear (with caching_sha2_password only within TLS),
// packets and results are bounded, and everything has a limit of time. A lost answer is a ConnectionLost: the
// statement may or may not have been carried out.
import { UpstreamError, WireError } from '../error.ts'
import { Channel } from '../postgres/channel.ts'
import { protect, reach } from '../postgres/dial.ts'
import type { TlsOptions } from '../postgres/dial.ts'
import { ConnectionLost, lossOf } from '../postgres/query.ts'
import {
  PacketReader, answerGreeting, answerHead, capability, isEnd, nativeProof, packetBytesMax, readGreeting,
  readRefusal, readRow, readSwitch, sha2Proof
} from './packet.ts'
import type { Greeting, Refusal } from './packet.ts'

/** All answers to one statement: a hook reads catalogues. */
export const resultBytesMax = 8 * 1024 * 1024
const resultRowsMax = 100_000
const columnsMax = 256
/** Questions of one login: one switch of the method, one or two rounds of it. */
const loginRoundsMax = 6

export interface MysqlOptions {
  host: string
  port: number
  tls: TlsOptions
  username: string
  /** Called when the proof is made. */
  password(): string
  timeouts: { connectMs: number, tlsMs: number, loginMs: number }
  signal?: AbortSignal | undefined
}

export interface MysqlClient {
  /** E.g. `10.11.19-MariaDB-…`; the server's own word. */
  readonly version: string
  readonly connectionId: number
  /**
   * Rows with every value as text. @throws MysqlRefused when the server said no, ConnectionLost
   */
  query(sql: string, timeoutMs: number): Promise<readonly (readonly (string | null)[])[]>
  /** Says goodbye and cuts. */
  close(): void
}

/** The server refused a statement: it was not carried out, and the connection can be used further. */
export class MysqlRefused extends Error {
  readonly number: number
  readonly sqlstate: string

  constructor({ number, sqlstate, message }: Refusal) {
    super(`${number}: ${message}`)
    this.name = 'MysqlRefused'
    this.number = number
    this.sqlstate = sqlstate
  }
}

/** @throws UpstreamError when there is no login */
export async function connectMysql(options: MysqlOptions): Promise<MysqlClient> {
  const { signal, timeouts } = options
  const channel = new Channel()
  const unfollow = channel.follow(signal)
  const wire = new PacketWire(channel)
  try {
    await reach(channel, options)
    const stop = channel.limit(timeouts.loginMs, 'the login at the target')
    try {
      return new Client(wire, await logIn(wire, options))
    } finally {
      stop()
    }
  } catch (thrown) {
    channel.destroy()
    throw thrown instanceof WireError
      ? new UpstreamError('violation', thrown.message, { cause: thrown })
      : thrown
  } finally {
    unfollow()
  }
}

async function logIn(wire: PacketWire, options: MysqlOptions): Promise<Greeting> {
  const { channel } = wire
  const first = await wire.read()
  if (first[0] === 0xff) throw refused(readRefusal(first))
  const greeting = readGreeting(first)
  let capabilities = capability.longPassword | capability.protocol41 | capability.transactions
    | capability.secureConnection | capability.pluginAuth
  const secure = options.tls.mode !== 'disable'
  if (secure) {
    if ((greeting.capabilities & capability.ssl) === 0) {
      throw new UpstreamError('untrusted', 'the target does not offer TLS')
    }
    capabilities |= capability.ssl
    await protect(channel, options, [], async () => wire.write(answerHead(capabilities)))
  }
  const known = proofs[greeting.plugin] === undefined ? 'mysql_native_password' : greeting.plugin
  const proof = proofs[known]!(options.password(), greeting.challenge)
  wire.write(answerGreeting(capabilities, options.username, proof, known))
  await proveLogin(wire, options, secure)
  return greeting
}

const proofs: Readonly<Record<string, (password: string, challenge: Buffer) => Buffer>> = {
  mysql_native_password: nativeProof,
  caching_sha2_password: sha2Proof
}

async function proveLogin(wire: PacketWire, options: MysqlOptions, secure: boolean): Promise<void> {
  for (let round = 0; round < loginRoundsMax; round++) {
    const packet = await wire.read()
    if (packet[0] === 0x00) return
    if (packet[0] === 0xff) throw refused(readRefusal(packet))
    if (packet[0] === 0xfe) {
      const { plugin, challenge } = readSwitch(packet)
      const prove = proofs[plugin]
      if (prove === undefined) {
        throw new UpstreamError('untrusted', `the target asks for a login by ${plugin.slice(0, 64)}`)
      }
      wire.write(prove(options.password(), challenge))
      continue
    }
    // caching_sha2_password: 3 is "known already", 4 "say it in full".
    if (packet[0] !== 0x01 || packet.length !== 2) throw new WireError('not an answer to a login')
    if (packet[1] === 0x03) continue
    if (packet[1] !== 0x04 || !secure) {
      throw new UpstreamError('untrusted', 'the target asks for the password in clear: use TLS')
    }
    wire.write(Buffer.from(`${options.password()}\0`))
  }
  throw new WireError('the login has no end')
}

function refused({ number, sqlstate, message }: Refusal): UpstreamError {
  // Too many connections, a blocked host, shutting down: there is a server, but not for us and not now.
  const later = [1040, 1053, 1129, 1203, 1226].includes(number)
  const said = `${number}: ${message}`
  const kind = later ? 'unreachable' : 'refused'
  return new UpstreamError(kind, 'the target refused the login', { sqlstate, serverMessage: said })
}

/** Packets over a channel, with their sequence numbers. */
class PacketWire {
  readonly channel: Channel
  #next = 0

  constructor(channel: Channel) {
    this.channel = channel
  }

  async read(): Promise<Buffer> {
    const head = await this.channel.bytes(4)
    const length = head.readUIntLE(0, 3)
    if (length === 0 || length > packetBytesMax) throw new WireError(`a packet of ${length} bytes`)
    if (head[3] !== this.#next) throw new WireError('a packet out of its order')
    this.#next = (this.#next + 1) & 0xff
    return await this.channel.bytes(length)
  }

  write(body: Uint8Array): void {
    const head = Buffer.alloc(4)
    head.writeUIntLE(body.length, 0, 3)
    head[3] = this.#next
    this.#next = (this.#next + 1) & 0xff
    this.channel.write(Buffer.concat([head, body]))
  }

  begin(): void {
    this.#next = 0
  }
}

class Client implements MysqlClient {
  readonly version: string
  readonly connectionId: number
  readonly #wire: PacketWire

  constructor(wire: PacketWire, { version, connectionId }: Greeting) {
    this.#wire = wire
    this.version = version
    this.connectionId = connectionId
  }

  async query(sql: string, timeoutMs: number): Promise<readonly (readonly (string | null)[])[]> {
    const text = Buffer.from(sql)
    if (text.length >= packetBytesMax) throw new ConnectionLost('too-large', 'a statement is too long')
    const { channel } = this.#wire
    const stop = channel.limit(timeoutMs, 'a statement')
    try {
      this.#wire.begin()
      this.#wire.write(Buffer.concat([Buffer.of(0x03), text]))
      return await this.#answer()
    } catch (thrown) {
      if (thrown instanceof MysqlRefused) throw thrown
      channel.destroy()
      throw lossOf(thrown)
    } finally {
      stop()
    }
  }

  close(): void {
    try {
      this.#wire.begin()
      this.#wire.write(Buffer.of(0x01))
    } catch {
      // It is gone already.
    }
    this.#wire.channel.destroy()
  }

  async #answer(): Promise<(string | null)[][]> {
    const first = await this.#wire.read()
    if (first[0] === 0x00) return []
    if (first[0] === 0xff) throw new MysqlRefused(readRefusal(first))
    // 0xfb: "send me this file of yours".
    const columns = first[0] === 0xfb ? null : new PacketReader(first).length()
    if (columns === null || columns === 0 || columns > columnsMax) throw new WireError('no result')
    for (let column = 0; column < columns; column++) await this.#wire.read()
    if (!isEnd(await this.#wire.read())) throw new WireError('a result without columns')
    const rows: (string | null)[][] = []
    for (let bytesLeft = resultBytesMax; ;) {
      const packet = await this.#wire.read()
      if (isEnd(packet)) return rows
      if (packet[0] === 0xff) throw new MysqlRefused(readRefusal(packet))
      bytesLeft -= packet.length
      if (bytesLeft < 0 || rows.length >= resultRowsMax) {
        throw new ConnectionLost('too-large', 'the answer is larger than the limit')
      }
      rows.push(readRow(packet, columns))
    }
  }
}
