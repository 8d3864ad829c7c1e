// Sessions in a page of the console: the API has looked at origin, cookie and person, and hands the request
// for a WebSocket over. Its first message says which session is wanted and brings the ticket that the page
// asked for just before; from there on it is a session like every other, run by the pipeline, which uses the
// ticket up. What a person's pages can hold here is a number.
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import type { WebSocket } from 'ws'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import type { Claim, Front } from '../../session/front.ts'
import { plainAddress } from '../source.ts'
import type { DoorSetting } from '../ssh/setting.ts'
import { Page, messageBytesMax } from './page.ts'
import type { Words } from './page.ts'
import { SqlFront } from './sql-front.ts'
import type { SqlSetting } from './sql-front.ts'
import { TerminalFront } from './terminal-front.ts'
import { tail } from './tail.ts'
import { sizeOf } from './terminal.ts'

/** Pages of one person, and of all: half of what the API's listener takes, so that admins still get in. */
export const pagesOfOneMax = 32
export const pagesMax = 500
/** From the WebSocket to its first message. */
const firstWordsMs = 10_000
/** A name of a user, of a credential and of a target. */
const loginCharactersMax = 256
/** As for every other client: one that vanished is found out even while we do not read it. */
const keepAliveMs = 15_000

export interface WebOptions {
  clock: Clock
  terminal: DoorSetting
  sql: SqlSetting
  /** Runs the session; must not reject. */
  onSession<Upstream>(front: Front<Upstream>): Promise<unknown>
}

/** Who asks, as the API says. */
export interface Asker {
  user: string
  /** Which of their logins. */
  login: string
}

export interface Web {
  /** Answers a request to become a WebSocket. */
  accept(request: IncomingMessage, socket: Duplex, head: Buffer, asker: Asker): void
  /** The same for what is only told, line by line. */
  tail(request: IncomingMessage, socket: Duplex, head: Buffer, lines: AsyncIterable<Uint8Array>): void
  /** Takes no new pages and sends away those without a session; the others go on. */
  close(): void
}

export function openWeb(options: WebOptions): Web {
  // No compression: memory for each page, and what is compressed with what is secret can be guessed.
  const server = new WebSocketServer({
    noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload: messageBytesMax
  })
  const door = new Door(options)
  const upgrade = (
    request: IncomingMessage, socket: Duplex, head: Buffer,
    enter: (webSocket: WebSocket, address: string) => void
  ): void => {
    const address = plainAddress((socket as Socket).remoteAddress)
    server.handleUpgrade(request, socket, head, webSocket => enter(webSocket, address))
    ;(socket as Socket).setKeepAlive(true, keepAliveMs)
  }
  return {
    accept: (request, socket, head, asker) => upgrade(request, socket, head, (webSocket, address) =>
      door.enter(webSocket, address, asker)),
    tail: (request, socket, head, lines) => upgrade(request, socket, head, (webSocket, address) => {
      const page = door.admit(webSocket, `tails of ${address}`)
      if (page !== undefined) void tail(page, lines)
    }),
    close: () => door.close()
  }
}

class Door {
  readonly #options: WebOptions
  readonly #pagesOf = new Map<string, number>()
  readonly #strangers = new Set<Page>()
  #pages = 0
  #isClosing = false

  constructor(options: WebOptions) {
    this.#options = options
  }

  /** Undefined where there is no place, which the page is told. */
  admit(webSocket: WebSocket, of: string): Page | undefined {
    const page = new Page(webSocket, this.#options.clock)
    const own = this.#pagesOf.get(of) ?? 0
    const isFull = own >= pagesOfOneMax || this.#pages >= pagesMax
    if (isFull || this.#isClosing) {
      page.fail(new SallyportError(isFull ? 'too-many-connections' : 'shutting-down', { detail: of }))
      return undefined
    }
    this.#pages++
    this.#pagesOf.set(of, own + 1)
    webSocket.once('close', () => this.#leave(of))
    return page
  }

  enter(webSocket: WebSocket, address: string, asker: Asker): void {
    const { clock } = this.#options
    const page = this.admit(webSocket, `pages of ${asker.user}`)
    if (page === undefined) return
    this.#strangers.add(page)
    const late = clock.after(firstWordsMs, () => page.fail(new SallyportError('auth-timeout')))
    const settle = (): void => {
      late()
      this.#strangers.delete(page)
    }
    page.listen({
      words: words => {
        settle()
        this.#begin(page, words, address, asker)
      },
      bytes: () => page.breach('bytes before the first words'),
      closed: settle
    })
  }

  #begin(page: Page, words: Words, address: string, { user, login: ofLogin }: Asker): void {
    const { type, protocol, login, ticket } = words
    const size = protocol === 'postgres' ? { columns: 0, rows: 0 } : sizeOf(words)
    const isWhole = type === 'open' && isName(login) && isName(ticket) && size !== undefined
    if (!isWhole || (protocol !== 'ssh' && protocol !== 'postgres')) {
      return page.breach('the first words open a session')
    }
    const claim: Claim = {
      protocol, login, replication: false, address, tls: true, client: 'web',
      ticket: { text: ticket, user, login: ofLogin }
    }
    const { terminal, sql, onSession } = this.#options
    if (protocol === 'ssh') void onSession(new TerminalFront(page, claim, size, terminal))
    else void onSession(new SqlFront(page, claim, sql))
  }

  #leave(of: string): void {
    this.#pages--
    const left = (this.#pagesOf.get(of) ?? 1) - 1
    if (left === 0) this.#pagesOf.delete(of)
    else this.#pagesOf.set(of, left)
  }

  close(): void {
    this.#isClosing = true
    for (const page of this.#strangers) page.fail(new SallyportError('shutting-down'))
  }
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= loginCharactersMax
}
