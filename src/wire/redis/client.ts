// A small client for our own commands on Redis (RESP2, "Redis serialization protocol specification"). A
// command is a list of words, so that no value can become another command. The server is not believed:
// answers are bounded in bytes, in items and in depth, nothing is taken that no command asked for, and each
// command has a limit of time. A lost answer is a ConnectionLost: it may or may not have been carried out.
import { UpstreamError, WireError } from '../error.ts'
import { Channel } from '../postgres/channel.ts'
import { protect, reach } from '../postgres/dial.ts'
import type { TlsOptions } from '../postgres/dial.ts'
import { ConnectionLost, lossOf } from '../postgres/query.ts'

export type Reply = string | number | null | Reply[]

/** The list of ten thousand clients is some 4 MB. */
export const replyBytesMax = 16 * 1024 * 1024
const itemsMax = 100_000
const depthMax = 8
const lineBytesMax = 64 * 1024
const textCharactersMax = 512

export interface RedisOptions {
  host: string
  port: number
  tls: TlsOptions
  username: string
  password(): string
  timeouts: { connectMs: number, tlsMs: number, loginMs: number }
  signal?: AbortSignal | undefined
}

export interface RedisClient {
  /** @throws RedisRefused when the server said no, ConnectionLost */
  command(words: readonly string[], timeoutMs: number): Promise<Reply>
  close(): void
}

/** The server refused a command: it was not carried out, and the connection can be used further. */
export class RedisRefused extends Error {
  /** The first word, e.g. `NOPERM`, `ERR`, `LOADING`. */
  readonly code: string

  constructor(text: string) {
    super(text.slice(0, textCharactersMax))
    this.name = 'RedisRefused'
    this.code = text.split(' ', 1)[0] ?? ''
  }
}

/** @throws UpstreamError when there is no login */
export async function connectRedis(options: RedisOptions): Promise<RedisClient> {
  const { timeouts } = options
  const channel = new Channel()
  const unfollow = channel.follow(options.signal)
  const client = new Client(channel)
  try {
    await reach(channel, options)
    if (options.tls.mode !== 'disable') await protect(channel, options, [], async () => undefined)
    const said = await client.command(['AUTH', options.username, options.password()], timeouts.loginMs)
    if (said !== 'OK') throw new WireError('not an answer to a login')
    return client
  } catch (thrown) {
    channel.destroy()
    throw loginError(thrown)
  } finally {
    unfollow()
  }
}

/** Busy or not ready: there is a server, but not now. */
const notNow = ['LOADING', 'MASTERDOWN', 'BUSY', 'TRYAGAIN']

function loginError(thrown: unknown): unknown {
  if (thrown instanceof RedisRefused) {
    const later = notNow.includes(thrown.code) || /max number of clients/.test(thrown.message)
    return new UpstreamError(later ? 'unreachable' : 'refused', 'the target refused the login',
      { serverMessage: thrown.message })
  }
  if (thrown instanceof WireError) return new UpstreamError('violation', thrown.message, { cause: thrown })
  if (!(thrown instanceof ConnectionLost)) return thrown
  if (thrown.cause instanceof UpstreamError) return thrown.cause
  const kind = thrown.reason === 'violation' || thrown.reason === 'too-large' ? 'violation' : 'unreachable'
  return new UpstreamError(kind, thrown.message, { cause: thrown })
}

class Client implements RedisClient {
  readonly #channel: Channel

  constructor(channel: Channel) {
    this.#channel = channel
  }

  async command(words: readonly string[], timeoutMs: number): Promise<Reply> {
    const stop = this.#channel.limit(timeoutMs, 'a command')
    try {
      if (this.#channel.unread > 0) throw new WireError('an answer to no command')
      this.#channel.write(encoded(words))
      return await new ReplyReader(this.#channel).read()
    } catch (thrown) {
      if (thrown instanceof RedisRefused) throw thrown
      this.#channel.destroy()
      throw lossOf(thrown)
    } finally {
      stop()
    }
  }

  close(): void {
    this.#channel.destroy()
  }
}

function encoded(words: readonly string[]): Buffer {
  const parts = words.map(word => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
  return Buffer.from(`*${words.length}\r\n${parts.join('')}`)
}

/** Reads one answer within its bounds. */
class ReplyReader {
  readonly #channel: Channel
  #bytesLeft = replyBytesMax
  #itemsLeft = itemsMax

  constructor(channel: Channel) {
    this.#channel = channel
  }

  async read(depth = 0): Promise<Reply> {
    if (depth > depthMax || --this.#itemsLeft < 0) throw tooLarge()
    const line = (await this.#channel.line(lineBytesMax)).toString('utf8')
    this.#spend(line.length)
    const rest = line.slice(1)
    switch (line[0]) {
      case '+': return rest
      case '-':
        // Within a list the rest of it would still be on its way: no command of ours asks for such a list.
        if (depth > 0) throw new WireError('a refusal within an answer')
        throw new RedisRefused(rest)
      case ':': return numberOf(rest)
      case '$': return await this.#text(numberOf(rest))
      case '*': return await this.#list(numberOf(rest), depth)
      default: throw new WireError('not an answer')
    }
  }

  async #text(bytes: number): Promise<string | null> {
    if (bytes === -1) return null
    this.#spend(bytes)
    const text = await this.#channel.bytes(bytes + 2)
    if (text[bytes] !== 0x0d || text[bytes + 1] !== 0x0a) throw new WireError('a text without its end')
    return text.toString('utf8', 0, bytes)
  }

  async #list(count: number, depth: number): Promise<Reply[] | null> {
    if (count === -1) return null
    if (count < 0) throw new WireError('not a length')
    if (count > this.#itemsLeft) throw tooLarge()
    const items: Reply[] = []
    for (let item = 0; item < count; item++) items.push(await this.read(depth + 1))
    return items
  }

  #spend(bytes: number): void {
    if (bytes < 0) throw new WireError('not a length')
    this.#bytesLeft -= bytes
    if (this.#bytesLeft < 0) throw tooLarge()
  }
}

function numberOf(text: string): number {
  if (!/^-?\d{1,15}$/.test(text)) throw new WireError('not a number')
  return Number(text)
}

function tooLarge(): ConnectionLost {
  return new ConnectionLost('too-large', 'the answer is larger than the limit')
}
