// A TCP relay that breaks connections on purpose, between the product and a PostgreSQL server (or any other).
// It reads just enough of the protocol to know who a connection belongs to and which statement is under way,
// so that a fault meets the hooks or a session, at a chosen statement, before or after it took effect. A
// fault meets connections that exist as well as new ones, until another is set.
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { frame, readyForQuery } from '../../src/wire/postgres/messages.ts'

export type Fault =
  | { kind: 'none' }
  /** Nobody listens, and what was connected is reset. */
  | { kind: 'refuse' }
  /** Connections are accepted; nothing passes, in this direction or in both, and no end either. */
  | { kind: 'hang', way?: 'both' | 'to-target' | 'to-client' }
  /** Reset after so many bytes of the target, counted for each connection from the moment of the fault. */
  | { kind: 'reset', afterBytes: number }
  /** One byte a millisecond, both ways. */
  | { kind: 'trickle' }
  /** Everything comes so much later. */
  | { kind: 'delay', ms: number }
  /** The statement takes effect and its answer is lost. */
  | { kind: 'drop-reply', at: At, then: 'reset' | 'hang' }
  /** The statement never arrives. */
  | { kind: 'drop-request', at: At, then: 'reset' | 'hang' }
  /** The answer to the statement is this; the target hears of it only when `delivered`. */
  | { kind: 'lie', at: At, answer: Buffer, delivered: boolean }

/** What a server says when these statements, sent together, succeeded and no transaction is open. */
export function successOf(...tags: readonly string[]): Buffer {
  const answers = tags.map(tag => [frame('1'), frame('2'), frame('n'), frame('C', Buffer.from(`${tag}\0`))])
  return Buffer.concat([...answers.flat(), readyForQuery('I')])
}

/**
 * The statement whose text matches, or the n-th one since the fault was set, over all connections that it
 * meets.
 */
export type At = RegExp | number

export interface Injector extends AsyncDisposable {
  readonly port: number
  /** Sets the fault; `user`: only for connections of users that match. */
  fault(fault: Fault, user?: RegExp): Promise<void>
  /** How many connections the present fault has met at its point (a statement, a number of bytes). */
  readonly hits: number
  /** Statements since the last fault was set, `user: text`. */
  readonly statements: readonly string[]
  /** Puts bytes between what the target says to connections of these users; how many there were. */
  say(bytes: Buffer, user: RegExp): number
  /** Connections that are open. */
  readonly open: number
  stop(): Promise<void>
}

const startupBytesMax = 64 * 1024
const trickleMs = 1
// SSLRequest, GSSENCRequest and CancelRequest have no user (PostgreSQL protocol, "Message Formats").
const requestCodes = new Set([80877103, 80877104, 80877102])

/** Relays to 127.0.0.1:`target` from a port of its own. */
export async function startInjector(target: number): Promise<Injector> {
  const links = new Set<Link>()
  const state: State = { fault: { kind: 'none' }, user: /^/, hits: 0, statements: [], counted: 0 }
  const accept = (client: Socket): void => {
    const link = new Link(client, connect(target, '127.0.0.1'), state, () => links.delete(link))
    links.add(link)
  }
  let server: Server | undefined = await listen(0, accept)
  const { port } = server.address() as AddressInfo
  const shut = async (): Promise<void> => {
    const closing = server
    server = undefined
    for (const link of links) link.reset()
    if (closing === undefined) return
    closing.close()
    await once(closing, 'close')
  }
  return {
    port,
    async fault(fault, user = /^/) {
      Object.assign(state, { fault, user, hits: 0, statements: [], counted: 0 })
      if (fault.kind === 'refuse') return shut()
      server ??= await listen(port, accept)
      for (const link of links) link.faultChanged()
    },
    get hits() { return state.hits },
    get statements() { return state.statements },
    say(bytes, user) {
      const found = [...links].filter(link => link.user !== undefined && user.test(link.user))
      for (const link of found) link.say(bytes)
      return found.length
    },
    get open() { return links.size },
    stop: shut,
    [Symbol.asyncDispose]: shut
  }
}

async function listen(port: number, accept: (client: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, accept).listen(port, '127.0.0.1')
  await once(server, 'listening')
  return server
}

interface State {
  fault: Fault
  user: RegExp
  hits: number
  statements: string[]
  counted: number
}

/** Bytes that wait to be passed on, one way. */
class Pipe {
  readonly #to: Socket
  readonly #state: () => Fault
  #waiting: Buffer[] = []
  #busy = false
  #ended = false
  held = false

  constructor(to: Socket, state: () => Fault) {
    this.#to = to
    this.#state = state
  }

  push(bytes: Buffer): void {
    this.#waiting.push(bytes)
    void this.run()
  }

  end(): void {
    this.#ended = true
    void this.run()
  }

  /** Passes on what waits, as the fault allows. */
  async run(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    while (!this.held && this.#waiting.length > 0) {
      const fault = this.#state()
      const chunk = this.#waiting.shift()!
      if (fault.kind === 'trickle' && chunk.length > 1) this.#waiting.unshift(chunk.subarray(1))
      const ms = fault.kind === 'delay' ? fault.ms : fault.kind === 'trickle' ? trickleMs : 0
      if (ms > 0) await new Promise(resolve => setTimeout(resolve, ms))
      if (this.#to.writable) this.#to.write(fault.kind === 'trickle' ? chunk.subarray(0, 1) : chunk)
    }
    this.#busy = false
    if (this.#ended && !this.held && this.#to.writable) this.#to.end()
  }
}

/** One connection of a client through to the target. */
class Link {
  user: string | undefined
  readonly #client: Socket
  readonly #target: Socket
  readonly #state: State
  readonly #toTarget: Pipe
  readonly #toClient: Pipe
  #unread: Buffer = Buffer.alloc(0)
  #bytesOfTarget = 0
  // After the chosen statement: swallow what the target says, and do this once it has said something.
  #onAnswer: (() => void) | undefined
  #deaf = false

  constructor(client: Socket, target: Socket, state: State, closed: () => void) {
    this.#client = client
    this.#target = target
    this.#state = state
    this.#toTarget = new Pipe(target, () => this.#fault())
    this.#toClient = new Pipe(client, () => this.#fault())
    client.on('data', chunk => this.#fromClient(chunk as Buffer))
    target.on('data', chunk => this.#fromTarget(chunk as Buffer))
    client.on('end', () => this.#toTarget.end())
    target.on('end', () => this.#toClient.end())
    for (const [socket, other] of [[client, target], [target, client]] as const) {
      socket.on('error', () => undefined)
      socket.once('close', hadError => {
        // A hang hides the end as well: the other side must not hear of it.
        if (this.#hides()) return
        if (hadError) other.resetAndDestroy()
        else if (other.writable) other.end()
        if (client.destroyed && target.destroyed) closed()
      })
    }
    this.faultChanged()
  }

  reset(): void {
    this.#client.resetAndDestroy()
    this.#target.resetAndDestroy()
  }

  say(bytes: Buffer): void {
    this.#toClient.push(bytes)
  }

  faultChanged(): void {
    this.#bytesOfTarget = 0
    const fault = this.#fault()
    const way = fault.kind === 'hang' ? fault.way ?? 'both' : undefined
    this.#toTarget.held = way === 'both' || way === 'to-target'
    this.#toClient.held = way === 'both' || way === 'to-client'
    void this.#toTarget.run()
    void this.#toClient.run()
  }

  #fault(): Fault {
    const { fault, user } = this.#state
    return user.test(this.user ?? '') ? fault : { kind: 'none' }
  }

  #hides(): boolean {
    return this.#deaf || this.#fault().kind === 'hang'
  }

  #fromTarget(chunk: Buffer): void {
    if (this.#deaf) return
    if (this.#onAnswer !== undefined) {
      const act = this.#onAnswer
      this.#onAnswer = undefined
      act()
      return
    }
    const fault = this.#fault()
    this.#bytesOfTarget += chunk.length
    if (fault.kind === 'reset' && this.#bytesOfTarget > fault.afterBytes) {
      const allowed = chunk.length - (this.#bytesOfTarget - fault.afterBytes)
      if (allowed > 0) this.#client.write(chunk.subarray(0, allowed))
      this.#state.hits++
      return this.reset()
    }
    this.#toClient.push(chunk)
  }

  #fromClient(chunk: Buffer): void {
    const hit = this.#meets(this.#read(chunk))
    if (hit === undefined) return this.#toTarget.push(chunk)
    this.#state.hits++
    if (hit.kind === 'lie' && !hit.delivered) {
      this.#client.write(hit.answer)
      return
    }
    if (hit.kind === 'drop-request') {
      if (hit.then === 'reset') return this.reset()
      this.#deaf = true
      return
    }
    this.#onAnswer = (): void => {
      if (hit.kind === 'lie') this.#client.write(hit.answer)
      else if (hit.then === 'reset') this.reset()
      else this.#deaf = true
    }
    this.#toTarget.push(chunk)
  }

  /** The fault, when one of these statements is the one that it waits for. */
  #meets(texts: readonly string[]): Extract<Fault, { at: At }> | undefined {
    const fault = this.#fault()
    let met: Extract<Fault, { at: At }> | undefined
    for (const text of texts) {
      this.#state.statements.push(`${this.user}: ${text}`)
      if (!('at' in fault)) continue
      this.#state.counted++
      const isIt = typeof fault.at === 'number' ? this.#state.counted === fault.at : fault.at.test(text)
      if (isIt) met = fault
    }
    return met
  }

  /** Statements that are complete with this chunk. */
  #read(chunk: Buffer): string[] {
    const texts: string[] = []
    this.#unread = Buffer.concat([this.#unread, chunk])
    for (;;) {
      const taken = this.user === undefined ? this.#readStartup() : this.#readMessage(texts)
      if (taken === 0) return texts
      this.#unread = this.#unread.subarray(taken)
    }
  }

  #readStartup(): number {
    const bytes = this.#unread
    if (bytes.length < 8) return 0
    const length = bytes.readInt32BE(0)
    if (length > startupBytesMax || bytes.length < length) return 0
    if (requestCodes.has(bytes.readInt32BE(4))) return length
    const words = bytes.subarray(8, length).toString('utf8').split('\0')
    this.user = words[words.indexOf('user') + 1] ?? ''
    // Now that it is known whose it is, the fault may be for it.
    this.faultChanged()
    return length
  }

  #readMessage(texts: string[]): number {
    const bytes = this.#unread
    if (bytes.length < 5) return 0
    const length = 1 + bytes.readInt32BE(1)
    if (bytes.length < length) return 0
    const tag = String.fromCharCode(bytes[0]!)
    const words = bytes.subarray(5, length).toString('utf8').split('\0')
    if (tag === 'Q') texts.push(words[0] ?? '')
    if (tag === 'P') texts.push(words[1] ?? '')
    return length
  }
}
