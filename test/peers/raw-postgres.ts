// A PostgreSQL client that says exactly the bytes it is told to, and keeps every byte of the answer: for
// peers that break the protocol, and for tests that look at what was delivered. Also a clock that a test
// moves by hand.
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Cancel, Clock } from '../../src/clock.ts'
import { readFrame } from '../../src/wire/postgres/frame.ts'
import {
  saslInitialResponse, saslResponse, sslRequest, startupMessage
} from '../../src/wire/postgres/messages.ts'
import type { Report } from '../../src/wire/postgres/messages.ts'
import { parseAuthentication, parseReport } from '../../src/wire/postgres/parse.ts'
import { ScramClient } from '../../src/wire/postgres/scram.ts'
import { clientPassword } from './pass-through.ts'

export interface Heard {
  tag: string
  body: Buffer
}

/** What an ErrorResponse of ours says: `auth-failed` and so on. */
export function codeOf(report: Report | undefined): string | undefined {
  return /\[([a-z-]+) [0-9a-f]{6}\]$/.exec(report?.message ?? '')?.[1]
}

export class RawClient {
  socket: Socket
  #inbox: Buffer = Buffer.alloc(0)
  #wake: () => void = () => undefined
  /** Everything that came, in order. */
  heard: Buffer = Buffer.alloc(0)

  constructor(socket: Socket) {
    this.socket = socket
    this.#follow(socket)
  }

  send(...parts: readonly (Uint8Array | string)[]): this {
    for (const part of parts) this.socket.write(part)
    return this
  }

  /** Asks for TLS, and speaks it. */
  async startTls(): Promise<this> {
    this.send(sslRequest())
    const answer = await this.byte()
    if (answer !== 'S') throw new Error(`TLS was answered with ${answer}`)
    this.socket.removeAllListeners('data')
    await this.speakTls(['postgresql'])
    return this
  }

  async speakTls(protocols: string[]): Promise<void> {
    const plain = this.socket
    plain.removeAllListeners('data')
    this.socket = connectTls({ socket: plain, rejectUnauthorized: false, ALPNProtocols: protocols })
    this.#follow(this.socket)
    await new Promise<void>((resolve, reject) => {
      this.socket.once('secureConnect', resolve)
      this.socket.once('close', () => reject(new Error('closed')))
    })
  }

  async byte(): Promise<string> {
    while (this.#inbox.length === 0) await this.#more()
    const letter = String.fromCharCode(this.#inbox[0]!)
    this.#inbox = this.#inbox.subarray(1)
    return letter
  }

  /** The next message; undefined when the connection was closed first. */
  async message(): Promise<Heard | undefined> {
    for (;;) {
      const next = readFrame(this.#inbox, 0, this.#inbox.length)
      if (next !== undefined) {
        const body = this.#inbox.subarray(next.bodyStart, next.end)
        this.#inbox = this.#inbox.subarray(next.end)
        return { tag: String.fromCharCode(next.tag), body }
      }
      if (this.socket.destroyed || this.socket.readableEnded) return undefined
      await this.#more()
    }
  }

  /** Messages up to one of these tags, that one included; fewer when the connection was closed. */
  async until(tags: string): Promise<Heard[]> {
    const all: Heard[] = []
    for (;;) {
      const next = await this.message()
      if (next === undefined) return all
      all.push(next)
      if (tags.includes(next.tag)) return all
    }
  }

  /** Waits until the server closes; the last error that it said. */
  async refusal(): Promise<Report | undefined> {
    const messages = await this.until('')
    const last = messages.findLast(({ tag }) => tag === 'E')
    this.socket.destroy()
    return last === undefined ? undefined : parseReport(last.body)
  }

  /** SCRAM as a good client does it; resolves after AuthenticationOk. */
  async logIn(
    name: string, password: string = clientPassword, settings: readonly (readonly [string, string])[] = []
  ): Promise<this> {
    const given = new Map<string, string>([['user', name], ['database', 'postgres'], ...settings])
    this.send(startupMessage([...given]))
    return this.finishLogIn(password)
  }

  /** The same from the answer to the startup packet on. */
  async finishLogIn(password: string = clientPassword): Promise<this> {
    const scram = await this.beginScram(password)
    const challenge = await this.#authentication()
    if (challenge.kind !== 'sasl-continue') throw new Error(`expected a challenge, got ${challenge.kind}`)
    this.send(saslResponse(await scram.answer(challenge.data)))
    const final = await this.#authentication()
    if (final.kind !== 'sasl-final' || !scram.verify(final.data)) throw new Error('the server gave no proof')
    if ((await this.#authentication()).kind !== 'ok') throw new Error('no AuthenticationOk')
    return this
  }

  /** Sends the first SCRAM message. */
  async beginScram(password: string = clientPassword): Promise<ScramClient> {
    const offer = await this.#authentication()
    if (offer.kind !== 'sasl') throw new Error(`expected SASL, got ${offer.kind}`)
    const scram = new ScramClient({ mechanism: 'SCRAM-SHA-256', secret: { kind: 'password', password } })
    this.send(saslInitialResponse(scram.mechanism, scram.first))
    return scram
  }

  /** Logs in and waits for ReadyForQuery. */
  async ready(name: string): Promise<this> {
    await this.logIn(name)
    const messages = await this.until('ZE')
    if (messages.at(-1)?.tag !== 'Z') throw new Error('not ready')
    return this
  }

  async #authentication(): Promise<ReturnType<typeof parseAuthentication>> {
    const next = await this.message()
    if (next?.tag !== 'R') {
      const said = next?.tag === 'E' ? parseReport(next.body).message : next?.tag
      throw new Error(`expected an authentication message, got ${said ?? 'the end'}`)
    }
    return parseAuthentication(next.body)
  }

  #follow(socket: Socket): void {
    const wake = (): void => this.#wake()
    socket.on('error', () => undefined).on('end', wake).on('close', wake)
    socket.on('data', (chunk: Buffer) => {
      this.#inbox = Buffer.concat([this.#inbox, chunk])
      this.heard = Buffer.concat([this.heard, chunk])
      this.#wake()
    })
  }

  #more(): Promise<void> {
    if (this.socket.destroyed || this.socket.readableEnded) return Promise.reject(new Error('closed'))
    return new Promise(resolve => { this.#wake = resolve })
  }
}

export async function rawClient(port: number): Promise<RawClient> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  return new RawClient(socket)
}

export interface HandClock extends Clock {
  /** Lets time pass; what is due runs, in order. */
  advance(ms: number): void
}

/** Rests this short are part of passing bytes on, not of a limit: they are over at the next turn. */
const soonMs = 1

/** Stands still until it is moved. */
export function handClock(): HandClock {
  const timers = new Set<{ at: number, act: () => void }>()
  let nowMs = 0
  return {
    now: () => new Date(1_700_000_000_000 + nowMs),
    monotonicMs: () => nowMs,
    after(delayMs, act): Cancel {
      if (delayMs <= soonMs) {
        setImmediate(act)
        return () => undefined
      }
      const timer = { at: nowMs + delayMs, act }
      timers.add(timer)
      return () => { timers.delete(timer) }
    },
    advance(ms) {
      const until = nowMs + ms
      for (;;) {
        const due = [...timers].filter(timer => timer.at <= until)
        const [next] = due.sort((left, right) => left.at - right.at)
        if (next === undefined) break
        timers.delete(next)
        nowMs = next.at
        next.act()
      }
      nowMs = until
    }
  }
}
