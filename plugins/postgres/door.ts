// The plugin's connection to a target, fresh or kept from an earlier hook. A kept one is cleaned with the
// first statements that go over it (DISCARD ALL: settings, role, locks, temporary tables, prepared statements
// go, what the login set comes back), so that it costs no round trip and carries nothing over. It may have
// died while nobody looked: then a fresh one takes its place, but only while nothing can have been done yet.
import { createHmac, randomBytes } from 'node:crypto'
import { SallyportError } from '../../src/errors.ts'
import type { Access, HookContext, Injectable, KeptConnection } from '../../src/jit/plugin.ts'
import { UpstreamError } from '../../src/wire/error.ts'
import { ConnectionLost, ServerError, connectClient } from '../../src/wire/postgres/query.ts'
import type { Client, QueryResult, Statement } from '../../src/wire/postgres/query.ts'
import type { TransactionStatus } from '../../src/wire/postgres/messages.ts'
import { pause } from '../../src/wire/pause.ts'
import { unreached } from '../reach.ts'

/** The server gives up a little before we do: its refusal is definite, our time-out is not. */
const statementMarginMs = 500
/** A node that stalls within a transaction loses it: locks are not kept for sleepers. */
const idleInTransactionMs = 10_000

/** Together a quarter of a second: more than a server needs to see that we have hung up. */
const freedTriesMax = 5
const freedWaitMs = 50

const cleaning: Statement = { sql: 'DISCARD ALL' }
const tooManyConnections = '53300'

/** A network that died with half of what we sent: the server ends the session, and frees its locks. */
const keepalives = { tcp_keepalives_idle: '10', tcp_keepalives_interval: '5', tcp_keepalives_count: '2' }

/** Digests of logins are for comparing within this process. */
const digestKey = randomBytes(32)

export interface DoorOptions {
  database: string
  /** `lock_timeout`. */
  lockMs: number
  /** Whether a connection of an earlier hook may be taken, and this one be left for the next. */
  kept: boolean
}

class KeptClient implements KeptConnection {
  readonly client: Client

  constructor(client: Client) {
    this.client = client
  }

  isBroken(): boolean {
    return this.client.isLost
  }

  async close(): Promise<void> {
    await this.client.close()
  }
}

export class Door {
  readonly #open: () => Promise<Client>
  readonly #keep: ((client: KeptClient) => void) | undefined
  #kept: KeptClient
  /** It served another hook, and nothing has gone over it since. */
  #isUsed: boolean
  #failed = false

  constructor(
    kept: KeptClient, isUsed: boolean, open: () => Promise<Client>,
    keep: ((client: KeptClient) => void) | undefined
  ) {
    this.#kept = kept
    this.#isUsed = isUsed
    this.#open = open
    this.#keep = keep
  }

  get parameters(): ReadonlyMap<string, string> {
    return this.#kept.client.parameters
  }

  get transactionStatus(): TransactionStatus {
    return this.#kept.client.transactionStatus
  }

  /**
   * In one round trip. `harmless` statements commit nothing: where a kept connection turns out to be dead
   * they are sent again over a fresh one.
   */
  async send(
    statements: readonly Statement[], timeoutMs: number, harmless: boolean
  ): Promise<readonly QueryResult[]> {
    try {
      if (!this.#isUsed) return await this.#kept.client.batch(statements, { timeoutMs })
      this.#isUsed = false
      return await this.#first(statements, timeoutMs, harmless)
    } catch (error) {
      this.#failed = true
      throw error
    }
  }

  async #first(
    statements: readonly Statement[], timeoutMs: number, harmless: boolean
  ): Promise<readonly QueryResult[]> {
    const along = harmless ? statements : []
    try {
      const results = await this.#kept.client.batch([cleaning, ...along], { timeoutMs })
      if (harmless) return results.slice(1)
    } catch (error) {
      if (error instanceof ServerError) throw error.behind(1)
      if (!(error instanceof ConnectionLost) || error.reason !== 'closed') throw error
      this.#kept = new KeptClient(await this.#open())
    }
    return await this.#kept.client.batch(statements, { timeoutMs })
  }

  /** For the next hook, unless something went wrong over it. */
  async leave(): Promise<void> {
    const isClean = !this.#failed && this.transactionStatus === 'I'
    if (this.#keep === undefined || !isClean) return await this.close()
    this.#keep(this.#kept)
  }

  async close(): Promise<void> {
    await this.#kept.close()
  }
}

/** @throws SallyportError, as `openLink` */
export async function doorOf(
  access: Access, context: HookContext, { database, lockMs, kept: mayKeep }: DoorOptions
): Promise<Door> {
  const settings = {
    application_name: 'sallyport-hook',
    client_min_messages: 'error',
    default_transaction_isolation: 'read committed',
    default_transaction_read_only: 'off',
    statement_timeout: String(Math.max(1, context.statementTimeoutMs - statementMarginMs)),
    lock_timeout: String(lockMs),
    idle_in_transaction_session_timeout: String(idleInTransactionMs),
    ...keepalives
  }
  const open = (): Promise<Client> => logIn(access, context, database, settings)
  const { kept } = context
  if (!mayKeep || kept === undefined) return new Door(new KeptClient(await open()), false, open, undefined)
  const slot = JSON.stringify([access.username, database, lockMs])
  const login = digestOf(access, settings)
  const keep = (connection: KeptClient): void => {
    connection.client.rest(true)
    kept.give(slot, login, connection)
  }
  const known = kept.take(slot, login)
  if (known instanceof KeptClient) {
    known.client.rest(false)
    return new Door(known, true, open, keep)
  }
  return new Door(new KeptClient(await open()), false, open, keep)
}

async function logIn(
  access: Access, context: HookContext, database: string, settings: Readonly<Record<string, string>>
): Promise<Client> {
  const { target, username, secret } = access
  const limitMs = context.connectTimeoutMs
  const connect = (): Promise<Client> => connectClient({
    host: target.host, port: target.port, tls: target.tls, user: username, database,
    timeouts: { connectMs: limitMs, tlsMs: limitMs, loginMs: limitMs },
    signal: AbortSignal.any([context.signal, AbortSignal.timeout(limitMs)]),
    secret: () => exposed(secret),
    parameters: Object.entries(settings)
  })
  try {
    try {
      return await connect()
    } catch (error) {
      // Our own idle connections may be what takes the room.
      if (!isFull(error) || context.kept === undefined || !await context.kept.clear()) throw error
      return await whenFreed(connect)
    }
  } catch (error) {
    throw unreached(error, target, context.signal, notNow)
  }
}

const isFull = (error: unknown): boolean =>
  error instanceof UpstreamError && error.sqlstate === tooManyConnections

/** The server counts a connection that was closed for a moment longer. */
async function whenFreed(connect: () => Promise<Client>): Promise<Client> {
  for (let left = freedTriesMax; ; left--) {
    try {
      return await connect()
    } catch (error) {
      if (left === 0 || !isFull(error)) throw error
      await pause(freedWaitMs)
    }
  }
}

/** All that a login rests on: another secret or another way there is another login. */
function digestOf({ target, username, secret }: Access, settings: Readonly<Record<string, string>>): string {
  const { host, port, tls } = target
  const known = exposed(secret)
  const proof = known.kind === 'password'
    ? known.password
    : [known.clientKey, known.serverKey].map(key => Buffer.from(key).toString('base64'))
  return createHmac('sha256', digestKey)
    .update(JSON.stringify([host, port, tls, username, proof, settings])).digest('base64')
}

type ScramSecret =
  | { kind: 'password', password: string }
  | { kind: 'scram-keys', clientKey: Uint8Array, serverKey: Uint8Array }

function exposed(secret: Injectable): ScramSecret {
  if (secret.kind === 'password') return { kind: 'password', password: secret.password.expose() }
  if (secret.kind === 'private-key') {
    throw new SallyportError('target-refused', { detail: 'PostgreSQL has no login with an SSH key' })
  }
  return { kind: 'scram-keys', clientKey: secret.clientKey.expose(), serverKey: secret.serverKey.expose() }
}

// Too many connections, starting up, shutting down: there is a server, but not for us and not now.
const notNow = [tooManyConnections, '57P01', '57P02', '57P03']
