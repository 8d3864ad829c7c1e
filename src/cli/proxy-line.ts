// A connection to the proxy's listener of TCP targets: TLS with its certificate checked, the ticket as the
// first line, then one JSON object a line until it says `open`; from there on the bytes are the target's.
import { connect, isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { systemClock } from '../clock.ts'
import { Failure } from './failure.ts'

/** The proxy answers at once, or dials its target first, which has a limit of its own. */
const openMsMax = 30_000
const lineBytesMax = 64 * 1024
const newline = 0x0a

export interface Place {
  host: string
  port: number
  ca: string | undefined
}

/** As the proxy says it (src/proxy/tcp/lines.ts). */
export interface Said {
  type: string
  text?: string
  ticket?: string
  target?: string
  username?: string
  password?: string | null
}

export class ProxyLine {
  readonly socket: TLSSocket
  /** From now on it may be quiet for as long as it likes. */
  readonly settle: () => void
  #inbox = Buffer.alloc(0)
  #failure: Failure | undefined
  #waiting: { resolve: (said: Said) => void, reject: (failure: Failure) => void } | undefined

  /** Brings the ticket as soon as the certificate was checked. */
  constructor({ host, port, ca }: Place, ticket: string) {
    const socket = this.socket = connectTls({
      socket: connect({ host, port, allowHalfOpen: true, noDelay: true }), host,
      ...(ca === undefined ? {} : { ca }), ...(isIP(host) === 0 ? { servername: host } : {})
    })
    this.settle = systemClock.after(openMsMax, () => this.#fail(new Failure('the proxy does not answer')))
    socket.once('secureConnect', () => socket.write(`${ticket}\n`))
    socket.on('error', ({ message }) => {
      this.#fail(new Failure(`no connection to ${host}:${port}: ${message}`))
    })
    socket.on('readable', this.#read).on('end', this.#ended).on('close', this.#ended)
  }

  /** @throws Failure when the connection is over */
  next(): Promise<Said> {
    const said = this.#said()
    if (said !== undefined) return Promise.resolve(said)
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => { this.#waiting = { resolve, reject } })
  }

  send(line: string): void {
    this.socket.write(`${line}\n`)
  }

  /** What comes from now on are bytes. */
  release(): void {
    this.settle()
    this.socket.off('readable', this.#read).off('end', this.#ended).off('close', this.#ended)
    if (this.#inbox.length > 0) this.socket.unshift(this.#inbox)
    this.#inbox = Buffer.alloc(0)
  }

  readonly #read = (): void => {
    for (let chunk = this.socket.read() as Buffer | null; chunk !== null;
      chunk = this.socket.read() as Buffer | null) {
      this.#inbox = Buffer.concat([this.#inbox, chunk])
    }
    if (this.#inbox.length > lineBytesMax) return this.#fail(new Failure('the proxy talks too much'))
    const waiting = this.#waiting
    const said = waiting === undefined ? undefined : this.#said()
    if (said === undefined) return
    this.#waiting = undefined
    waiting?.resolve(said)
  }

  readonly #ended = (): void => this.#fail(new Failure('the proxy closed the connection'))

  #fail(failure: Failure): void {
    this.#failure ??= failure
    this.#waiting?.reject(this.#failure)
    this.#waiting = undefined
    this.settle()
    this.socket.destroy()
  }

  #said(): Said | undefined {
    const at = this.#inbox.indexOf(newline)
    if (at < 0) return undefined
    const line = this.#inbox.toString('utf8', 0, at)
    this.#inbox = this.#inbox.subarray(at + 1)
    return JSON.parse(line) as Said
  }
}
