// A small client for our own questions to a directory (LDAP 3, RFC 4511): simple bind, search, add, modify,
// delete. Filters are built of values and never parsed from text, so that no value can become a filter. The
// directory is not believed: answers are bounded, belong to the question, and referrals are not followed. TLS
// begins at once on port 636 and by StartTLS on others. A lost answer is a ConnectionLost.
import { UpstreamError, WireError } from '../error.ts'
import { Channel } from '../postgres/channel.ts'
import { protect, reach } from '../postgres/dial.ts'
import type { TlsOptions } from '../postgres/dial.ts'
import { ConnectionLost, lossOf } from '../postgres/query.ts'
import { BerReader, boolean, element, integer, readHead, tag, text } from './ber.ts'

/** One entry with all its groups is small; one message above it is refused before it is read. */
const messageBytesMax = 1024 * 1024
export const resultBytesMax = 8 * 1024 * 1024
const entriesMax = 20_000
/** Pages may be empty; they must not go on for ever. */
const pagesMax = 100
const textCharactersMax = 512
const ldapsPort = 636
const sizeLimitExceeded = 4
const pagedResults = '1.2.840.113556.1.4.319'
const startTls = '1.3.6.1.4.1.1466.20037'

const kind = {
  bindRequest: 0x60, bindResponse: 0x61, unbind: 0x42, searchRequest: 0x63, entry: 0x64, searchDone: 0x65,
  reference: 0x73, modify: 0x66, modified: 0x67, add: 0x68, added: 0x69, delete: 0x4a, deleted: 0x6b,
  extended: 0x77, extendedResponse: 0x78, controls: 0xa0
} as const

export interface LdapOptions {
  host: string
  port: number
  tls: TlsOptions
  /** A distinguished name. */
  username: string
  password(): string
  timeouts: { connectMs: number, tlsMs: number, loginMs: number }
  signal?: AbortSignal | undefined
}

export type Filter =
  | { equal: readonly [attribute: string, value: string] }
  | { startsWith: readonly [attribute: string, value: string] }
  | { present: string }
  | { and: readonly Filter[] }
  | { or: readonly Filter[] }

export interface Entry {
  dn: string
  /** Names in lower case, as the directory may write them in any. */
  attributes: ReadonlyMap<string, readonly string[]>
}

export interface Question {
  base: string
  scope: 'base' | 'one' | 'sub'
  filter: Filter
  attributes: readonly string[]
  /** Only which attributes there are: values of passwords never leave the directory. */
  namesOnly?: boolean
  /** Enough is enough: the directory stops there. */
  entriesMax?: number
  /** Asked for page by page: a directory that gives only so many at once (Active Directory: 1000). */
  pageEntries?: number
  /** OIDs of controls without a value, which the directory must know. */
  controls?: readonly string[]
}

/** Text, or bytes of an attribute that is not text. */
export type Value = string | Uint8Array

export interface Change {
  operation: 'add' | 'delete' | 'replace'
  attribute: string
  values: readonly Value[]
}

/** What a search has found so far, over all its pages. */
interface Found {
  entries: Entry[]
  bytesLeft: number
}

/** The directory refused an operation: it was not carried out. */
export class LdapRefused extends Error {
  readonly number: number

  constructor(number: number, message: string) {
    super(`${number}: ${message.slice(0, textCharactersMax)}`)
    this.name = 'LdapRefused'
    this.number = number
  }
}

/** @throws UpstreamError when there is no login */
export async function connectLdap(options: LdapOptions): Promise<LdapClient> {
  const channel = new Channel()
  const unfollow = channel.follow(options.signal)
  const client = new LdapClient(channel)
  const { loginMs } = options.timeouts
  try {
    await reach(channel, options)
    if (options.tls.mode !== 'disable') {
      const ask = async (): Promise<void> => {
        if (options.port !== ldapsPort) await client.startTls(loginMs)
      }
      await protect(channel, options, [], ask)
    }
    await client.bind(options.username, options.password(), loginMs)
    return client
  } catch (thrown) {
    channel.destroy()
    throw loginError(thrown)
  } finally {
    unfollow()
  }
}

/** Busy or unavailable: there is a directory, but not now. */
const notNow = [51, 52]

function loginError(thrown: unknown): unknown {
  if (thrown instanceof LdapRefused) {
    return new UpstreamError(notNow.includes(thrown.number) ? 'unreachable' : 'refused',
      'the target refused the login', { serverMessage: thrown.message, cause: thrown })
  }
  if (!(thrown instanceof ConnectionLost)) return thrown
  if (thrown.cause instanceof UpstreamError) return thrown.cause
  const violates = thrown.reason === 'violation' || thrown.reason === 'too-large'
  return new UpstreamError(violates ? 'violation' : 'unreachable', thrown.message, { cause: thrown })
}

export class LdapClient {
  readonly #channel: Channel
  #id = 0

  constructor(channel: Channel) {
    this.#channel = channel
  }

  async startTls(timeoutMs: number): Promise<void> {
    try {
      await this.#ask(element(kind.extended, text(startTls, 0x80)), kind.extendedResponse, timeoutMs)
    } catch (thrown) {
      if (!(thrown instanceof LdapRefused)) throw thrown
      throw new UpstreamError('untrusted', 'the target does not offer TLS', { cause: thrown })
    }
  }

  async bind(username: string, password: string, timeoutMs: number): Promise<void> {
    // A simple bind without a password succeeds as nobody (RFC 4513 section 5.1.2).
    if (username === '' || password === '') {
      throw new UpstreamError('refused', 'a login needs a name and a password')
    }
    const request = element(kind.bindRequest, integer(3), text(username), text(password, 0x80))
    await this.#ask(request, kind.bindResponse, timeoutMs)
  }

  /** @throws LdapRefused, ConnectionLost */
  async search(question: Question, timeoutMs: number): Promise<Entry[]> {
    const found: Found = { entries: [], bytesLeft: resultBytesMax }
    let cookie: Uint8Array | undefined = Buffer.alloc(0)
    for (let page = 0; cookie !== undefined; page++) {
      if (page === pagesMax) throw new ConnectionLost('too-large', 'too many pages')
      cookie = await this.#page(question, cookie, found, timeoutMs)
    }
    return found.entries
  }

  /** One page, or all of it; the cookie of the next page where there is one. */
  async #page(
    question: Question, cookie: Uint8Array, found: Found, timeoutMs: number
  ): Promise<Uint8Array | undefined> {
    const { base, scope, filter, attributes, namesOnly = false, entriesMax: wanted = 0 } = question
    const request = element(kind.searchRequest, text(base),
      integer(['base', 'one', 'sub'].indexOf(scope), tag.enumerated), integer(0, tag.enumerated),
      integer(wanted), integer(Math.ceil(timeoutMs / 1000)), boolean(namesOnly), filterBytes(filter),
      element(tag.sequence, ...attributes.map(name => text(name))))
    try {
      const rest = await this.#ask(request, kind.searchDone, timeoutMs, found, controlsOf(question, cookie))
      return question.pageEntries === undefined ? undefined : nextPage(rest)
    } catch (thrown) {
      const enough = wanted > 0 && thrown instanceof LdapRefused && thrown.number === sizeLimitExceeded
      if (enough) return undefined
      throw thrown
    }
  }

  async add(
    dn: string, attributes: Readonly<Record<string, readonly Value[]>>, timeoutMs: number
  ): Promise<void> {
    const list = Object.entries(attributes).map(([name, values]) => attributeBytes(name, values))
    await this.#ask(element(kind.add, text(dn), element(tag.sequence, ...list)), kind.added, timeoutMs)
  }

  /** All changes or none. */
  async modify(dn: string, changes: readonly Change[], timeoutMs: number): Promise<void> {
    const list = changes.map(({ operation, attribute, values }) => element(tag.sequence,
      integer(['add', 'delete', 'replace'].indexOf(operation), tag.enumerated),
      attributeBytes(attribute, values)))
    await this.#ask(element(kind.modify, text(dn), element(tag.sequence, ...list)), kind.modified, timeoutMs)
  }

  async delete(dn: string, timeoutMs: number): Promise<void> {
    await this.#ask(text(dn, kind.delete), kind.deleted, timeoutMs)
  }

  close(): void {
    try {
      this.#channel.write(element(tag.sequence, integer(++this.#id), element(kind.unbind)))
    } catch {
      // It is gone already.
    }
    this.#channel.destroy()
  }

  /** Sends one request and takes what comes until its result; answers with what follows that (controls). */
  async #ask(
    request: Buffer, expected: number, timeoutMs: number, found?: Found, controls: Buffer = Buffer.alloc(0)
  ): Promise<BerReader> {
    const stop = this.#channel.limit(timeoutMs, 'a request')
    try {
      if (this.#channel.unread > 0) throw new WireError('an answer to no question')
      this.#channel.write(element(tag.sequence, integer(++this.#id), request, controls))
      for (const budget = found ?? { bytesLeft: resultBytesMax }; ;) {
        const message = await this.#message()
        budget.bytesLeft -= message.length
        if (budget.bytesLeft < 0) throw new ConnectionLost('too-large', 'the answer is larger than the limit')
        const reader = new BerReader(message)
        if (reader.integer() !== this.#id) throw new WireError('an answer to another question')
        const answer = reader.next()
        if (answer.tag === expected) {
          judge(answer.body)
          return reader
        }
        if (answer.tag === kind.reference && found !== undefined) continue
        if (answer.tag !== kind.entry || found === undefined) throw new WireError('not an answer')
        if (found.entries.length >= entriesMax) throw new ConnectionLost('too-large', 'too many entries')
        found.entries.push(readEntry(answer.body))
      }
    } catch (thrown) {
      if (thrown instanceof LdapRefused) throw thrown
      this.#channel.destroy()
      throw lossOf(thrown)
    } finally {
      stop()
    }
  }

  async #message(): Promise<Buffer> {
    let head = await this.#channel.bytes(2)
    if (head[0] !== tag.sequence) throw new WireError('not a message of LDAP')
    let lengths = readHead(head)
    if (lengths === undefined) {
      head = Buffer.concat([head, await this.#channel.bytes(head[1]! & 0x7f)])
      lengths = readHead(head)
    }
    const { bodyBytes } = lengths!
    if (bodyBytes > messageBytesMax) throw new WireError(`a message of ${bodyBytes} bytes`)
    return await this.#channel.bytes(bodyBytes)
  }
}

function controlsOf({ pageEntries, controls = [] }: Question, cookie: Uint8Array): Buffer {
  const all = controls.map(oid => element(tag.sequence, text(oid), boolean(true)))
  if (pageEntries !== undefined) {
    const page = element(tag.sequence, integer(pageEntries), element(tag.octets, cookie))
    all.push(element(tag.sequence, text(pagedResults), boolean(true), element(tag.octets, page)))
  }
  return all.length === 0 ? Buffer.alloc(0) : element(kind.controls, ...all)
}

/** The cookie of the next page (RFC 2696); undefined when this was the last. @throws WireError */
function nextPage(rest: BerReader): Uint8Array | undefined {
  if (rest.isDone) return undefined
  for (const list = new BerReader(rest.expect(kind.controls)); !list.isDone;) {
    const control = new BerReader(list.expect(tag.sequence))
    if (control.text() !== pagedResults) continue
    let part = control.next()
    if (part.tag === tag.boolean) part = control.next()
    const page = new BerReader(new BerReader(part.body).expect(tag.sequence))
    page.integer()
    const cookie = page.expect(tag.octets)
    return cookie.length === 0 ? undefined : cookie
  }
  return undefined
}

/** @throws LdapRefused unless the result is success */
function judge(body: Buffer): void {
  const reader = new BerReader(body)
  const number = reader.integer(tag.enumerated)
  reader.text()
  const said = reader.text()
  if (number !== 0) throw new LdapRefused(number, said === '' ? nameOf(number) : said)
}

/** Words for results that servers leave without any. */
function nameOf(number: number): string {
  const names: Readonly<Record<number, string>> = {
    16: 'no such attribute', 20: 'the value is there already', 32: 'no such entry',
    49: 'invalid credentials', 50: 'insufficient access', 53: 'unwilling to perform',
    65: 'object class violation', 68: 'the entry exists'
  }
  return names[number] ?? 'refused'
}

function readEntry(body: Buffer): Entry {
  const reader = new BerReader(body)
  const dn = reader.text()
  const attributes = new Map<string, string[]>()
  const list = new BerReader(reader.expect(tag.sequence))
  while (!list.isDone) {
    const one = new BerReader(list.expect(tag.sequence))
    const name = one.text().toLowerCase()
    const values = new BerReader(one.expect(tag.set))
    const found: string[] = []
    while (!values.isDone) found.push(values.text())
    attributes.set(name, found)
  }
  return { dn, attributes }
}

function attributeBytes(name: string, values: readonly Value[]): Buffer {
  const bytes = values.map(value =>
    element(tag.octets, typeof value === 'string' ? Buffer.from(value) : value))
  return element(tag.sequence, text(name), element(tag.set, ...bytes))
}

function filterBytes(filter: Filter): Buffer {
  if ('and' in filter) return element(0xa0, ...filter.and.map(filterBytes))
  if ('or' in filter) return element(0xa1, ...filter.or.map(filterBytes))
  if ('present' in filter) return text(filter.present, 0x87)
  if ('equal' in filter) return element(0xa3, text(filter.equal[0]), text(filter.equal[1]))
  const [attribute, value] = filter.startsWith
  return element(0xa4, text(attribute), element(tag.sequence, text(value, 0x80)))
}
