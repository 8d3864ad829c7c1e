// The front of a PostgreSQL session that a page of the console shows: the target, the relay and its tape are
// those of every client; what differs is who speaks the protocol on the person's side (sql.ts), over a stream
// within this process. It decides nothing (see session/session.ts for the order).
import type { Socket } from 'node:net'
import { duplexPair } from 'node:stream'
import type { Clock } from '../../clock.ts'
import type { SallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Claim, Front, Proof, Upstreaming } from '../../session/front.ts'
import type { Report } from '../../wire/postgres/messages.ts'
import { createCancelKeys } from '../postgres/cancels.ts'
import { Client } from '../postgres/client.ts'
import { Relay } from '../postgres/relay.ts'
import { connectTarget } from '../postgres/target.ts'
import type { Target, TargetTimeouts } from '../postgres/target.ts'
import { TargetSaid } from '../postgres/words.ts'
import type { Page } from './page.ts'
import { Sql } from './sql.ts'

export interface SqlSetting {
  clock: Clock
  timeouts: TargetTimeouts
}

/** What a page shows is text, and dates are read by people anywhere. */
const settings: ReadonlyMap<string, string> = new Map([
  ['client_encoding', 'UTF8'], ['DateStyle', 'ISO, YMD'], ['application_name', 'sallyport console']
])

export class SqlFront implements Front<Target | undefined> {
  readonly #page: Page
  readonly #claim: Claim
  readonly #setting: SqlSetting
  readonly #cancelKeys = createCancelKeys()
  readonly #greetings: Report[] = []
  readonly #sql: Sql
  #relay: Relay | undefined
  #onLeft: (() => void) | undefined

  constructor(page: Page, claim: Claim, setting: SqlSetting) {
    this.#page = page
    this.#claim = claim
    this.#setting = setting
    this.#sql = new Sql(page, {
      cancel: (pid, key) => { this.#cancelKeys.cancel(pid, key) },
      left: () => this.#onLeft?.()
    })
  }

  async claim(): Promise<Claim> {
    return this.#claim
  }

  /** Nothing is proved here: what counts is the ticket of the claim. */
  async prove(): Promise<Proof | undefined> {
    return undefined
  }

  tell(line: string): void {
    if (this.#relay === undefined) this.#page.say({ type: 'notice', text: line })
    else this.#relay.tell(line)
  }

  onLeft(act: () => void): () => void {
    this.#onLeft = act
    if (this.#page.over) act()
    return () => { this.#onLeft = undefined }
  }

  async refuse(error: SallyportError): Promise<void> {
    // The relay has said it, or nobody is there to hear it.
    if (this.#relay !== undefined || error.code === 'client-closed') return this.#page.leave()
    const { cause } = error
    this.#page.fail(error, cause instanceof TargetSaid ? { detail: cause.message } : {})
  }

  /** Undefined when the page was left meanwhile: then no connection is opened. */
  async connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<Target | undefined> {
    if (this.#page.over) return undefined
    const wishes = {
      user: undefined, database: undefined, replication: 'none' as const, settings: new Map(settings),
      refused: []
    }
    const keep = (report: Report): void => { this.#greetings.push(report) }
    return connectTarget(upstreaming, wishes, this.#setting.timeouts, signal, keep)
  }

  async relay(target: Target | undefined, recording: Recording, signal: AbortSignal): Promise<Ending> {
    if (target === undefined) return { how: 'ended', reason: 'client-closed' }
    const { clock } = this.#setting
    const [proxySide, ourSide] = duplexPair()
    // Of a socket the relay uses here what every stream has: no handle, so nothing past the stream.
    const client = new Client(proxySide as Socket, this.#claim.address, clock, () => undefined)
    this.#relay = new Relay({
      client, target, recording, signal, clock, cancelKeys: this.#cancelKeys, minor: 0, readMode: 'stream',
      greetings: this.#greetings
    })
    this.#page.say({ type: 'open', session: recording.session })
    this.#sql.begin(ourSide)
    return this.#relay.run()
  }
}
