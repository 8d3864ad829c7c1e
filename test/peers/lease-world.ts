// Ledgers for tests: any number of nodes over one real store (the embedded one, or a throw-away PostgreSQL
// 15), with short times, a target that obeys the test, and what the ledger said kept in lists. What is faked
// is the world outside of the ledger; the ledger and its SQL are the real ones.
import { generateKeyPairSync, randomUUID, sign, verify } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep, systemClock } from '../../src/clock.ts'
import type { Cancel, Clock } from '../../src/clock.ts'
import { SallyportError } from '../../src/errors.ts'
import type { IssueRequest, MaximumOf } from '../../src/lease/context.ts'
import { createLedger } from '../../src/lease/ledger.ts'
import type { Ledger } from '../../src/lease/ledger.ts'
import type { LedgerLimits } from '../../src/lease/limits.ts'
import type { AccountSpec, PinnedTemplate } from '../../src/lease/ports.ts'
import { Secret } from '../../src/secret.ts'
import { openDatabase } from '../../src/store/database.ts'
import type { Database } from '../../src/store/database.ts'
import { sql } from '../../src/store/drizzle.ts'
import { createLedgerStore } from '../../src/store/ledger.ts'
import { startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { LeaseTarget } from './lease-target.ts'
import type { LedgerStore } from '../../src/lease/store-port.ts'

export type StoreKind = 'pglite' | 'postgres'

/** The house's clock with two hands that the test can move. */
export class MovableClock implements Clock {
  wallMs = 0
  forwardMs = 0

  now(): Date {
    return new Date(systemClock.now().getTime() + this.wallMs)
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.forwardMs
  }

  after(delayMs: number, act: () => void): Cancel {
    return systemClock.after(delayMs, act)
  }
}

// Short, so that lapses and retries happen within a test, and in the same proportions as the real ones.
export const shortLimits: Partial<LedgerLimits> = {
  claimMs: 1500, lateCheckMs: 300, tickMs: 50, beatMs: 200, nodeTtlMs: 1500, nodeMarginMs: 500, askMs: 100,
  probeMs: 200, wakeSpreadMs: 20, retry: { baseMs: 40, capMs: 300 }, releaseWaitMs: 3000, undoWaitMs: 1000,
  joinWaitMs: 5000, joinPollMs: 10, expiryAskMs: 1000
}

/** Times so long that nothing happens by itself: the test calls `pass`. */
export const stillLimits: Partial<LedgerLimits> = {
  ...shortLimits, claimMs: 60_000, tickMs: 3_600_000, beatMs: 3_600_000, nodeTtlMs: 3_600_000,
  nodeMarginMs: 1000
}

export interface Node {
  ledger: Ledger
  clock: MovableClock
  cut: { session: string, error: SallyportError }[]
  log: string[]
}

export interface World extends AsyncDisposable {
  readonly database: Database
  readonly store: LedgerStore
  readonly target: LeaseTarget
  readonly audit: { kind: string, actor: string, subject: string, detail: Record<string, unknown> }[]
  /** What the definitions say now; as at issue until a test says otherwise. */
  maximumOf: MaximumOf
  /** While true, the audit cannot be written. */
  auditAway: boolean
  /** Starts a node; each is stopped with the world. */
  node(name: string, options?: NodeOptions): Promise<Node>
  /** Rows of a statement; for looking, and for making things old. */
  rows(statement: string): Promise<readonly Record<string, unknown>[]>
  verifyReceipt(body: string, signature: string): boolean
}

export interface NodeOptions {
  limits?: Partial<LedgerLimits>
  target?: LeaseTarget
  mintName?: (request: IssueRequest, attempt: number) => string
  /** Something between the ledger and its store. */
  through?: (store: LedgerStore) => LedgerStore
}

/** A database for a test file: started once, since starting one takes seconds. */
export async function openStore(kind: StoreKind): Promise<{ database: Database, close(): Promise<void> }> {
  if (kind === 'pglite') {
    const dataDir = mkdtempSync(join(tmpdir(), 'sallyport-lease-'))
    const database = await openDatabase({ store: 'pglite', dataDir })
    return {
      database,
      close: async () => {
        await database.close()
        rmSync(dataDir, { recursive: true, force: true })
      }
    }
  }
  const server: PostgresServer = await startPostgres({ version: '15' })
  const database = await openDatabase({ store: server.url(), dataDir: tmpdir(), connectionsMax: 12 })
  return {
    database,
    close: async () => {
      await database.close()
      await server.stop()
    }
  }
}

/** An empty ledger in that database (or with `keep` the one that is there), and a target. */
export async function openWorld(
  database: Database, {
    target = new LeaseTarget(), keep = false
  }: { target?: LeaseTarget, keep?: boolean } = {}
): Promise<World> {
  const rows = (statement: string): Promise<readonly Record<string, unknown>[]> =>
    database.run(
      async handle => [...await handle.execute(sql.raw(statement)) as unknown as Record<string, unknown>[]]
    )
  if (!keep) await rows('truncate account, hold, lease_event, receipt, node cascade')
  const nodes: Ledger[] = []
  const sealed = new Map<string, Secret<string>>()
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const store = createLedgerStore(database, {
    // As the real one: part of what the transaction did, or not at all.
    appendIn(tx, kind, actor, subject, detail) {
      if (world.auditAway) throw new SallyportError('store-unavailable', { detail: 'the audit is away' })
      database.beforeCommit(tx, () => Promise.resolve(outcome => {
        if (outcome === 'committed') world.audit.push({ kind, actor, subject, detail })
      }))
    }
  })
  const world: World = {
    database, store, target, audit: [], auditAway: false, maximumOf: ({ maxAt }) => maxAt, rows,
    async node(name, options = {}) {
      const { limits = shortLimits, target: own = target, mintName = drawName, through } = options
      const clock = new MovableClock()
      const cut: Node['cut'] = []
      const log: string[] = []
      const note = (fields: Record<string, unknown>, message: string): void => {
        log.push(`${message} ${JSON.stringify(fields)}`)
      }
      const ledger = createLedger({
        store: through?.(store) ?? store, hooks: own, clock, node: name, limits, mintName,
        boot: randomUUID(), onBoot: () => {},
        signer: {
          sign: bytes => ({ keyId: 'test', signature: sign(null, bytes, privateKey).toString('base64') })
        },
        audit: {
          append: (kind, actor, subject, detail) => {
            if (world.auditAway) return Promise.reject(new Error('the audit is away'))
            world.audit.push({ kind, actor, subject, detail })
            return Promise.resolve()
          }
        },
        sessions: {
          cut: (session, error) => void cut.push({ session, error }), cutAll: () => 0,
          closeFenced: () => Promise.resolve()
        },
        secrets: {
          put: plain => {
            const id = randomUUID()
            sealed.set(id, plain)
            return Promise.resolve(id)
          },
          open: id => Promise.resolve(sealed.get(id) ?? new Secret('gone')),
          forget: id => Promise.resolve(void sealed.delete(id))
        },
        maximums: () => Promise.resolve(lease => world.maximumOf(lease)),
        log: { info: note, warn: note, error: note }
      })
      nodes.push(ledger)
      await ledger.start()
      return { ledger, clock, cut, log }
    },
    verifyReceipt: (body, signature) => verify(
      null, Buffer.from(body), publicKey, Buffer.from(signature, 'base64')
    ),
    async [Symbol.asyncDispose]() {
      for (const ledger of nodes) await ledger.stop(1000)
    }
  }
  return world
}

// Not by chance: a test that counts names must not collide with itself, nor with the process that it recovers
// from.
let drawn = systemClock.now().getTime()

function drawName(): string {
  return `jit_${++drawn}`
}

function template(action: PinnedTemplate['action'], version = 1): PinnedTemplate {
  return {
    id: `fake/${action}`, version, action, plugin: 'fake', sha256: `${action} ${version}`,
    body: `text of ${action} ${version}`
  }
}

/** What a session asks for; `enable` for a shared account, with the template's version. */
export function request(
  kind: 'create' | 'enable' = 'create', changes: Partial<IssueRequest> = {}, version = 1
): IssueRequest {
  const [open, close] = kind === 'create' ? ['create', 'delete'] as const : ['enable', 'disable'] as const
  const spec: AccountSpec = {
    plugin: 'fake', authenticationCredential: 'admin', variables: { roles: ['reader'] },
    target: { name: 'orders', protocol: 'postgres', host: '127.0.0.1', port: 5432, tls: { mode: 'disable' } },
    open: template(open, version), close: template(close, version)
  }
  return {
    credential: 'orders-rw', target: 'orders', kind, spec, owner: {
      kind: 'session', id: randomUUID()
    }, actor: 'alice',
    accountName: kind === 'enable' ? 'deploy' : undefined, ttlSeconds: 3600, maxTtlSeconds: 7200,
    tell: () => {},
    ...changes
  }
}

/**
 * Waits until something is so; a test that waits for what never comes fails by its deadline, with this
 * sentence.
 */
export async function until(
  what: string, isSo: () => boolean | Promise<boolean>, limitMs = 15_000
): Promise<void> {
  const startedMs = systemClock.monotonicMs()
  while (!await isSo()) {
    if (systemClock.monotonicMs() - startedMs > limitMs) {
      throw new Error(`waited ${limitMs} ms in vain: ${what}`)
    }
    await sleep(systemClock, 10)
  }
}

/**
 * All live leases are past their time from now on. Takes its locks in the ledger's order (accounts, each in
 * its turn, then holds), so that it may run beside a janitor.
 */
export async function expireAll(world: World): Promise<void> {
  await world.rows(`
    with a as materialized (select id from account order by id for update)
    update hold set expires_at = now() from a
    where hold.account = a.id and hold.state in ('pending', 'active')`)
}

/** The state of an account in the store. */
export async function stateOf(world: World, accountId: string): Promise<unknown> {
  return (await world.rows(`select state from account where id = '${accountId}'`))[0]?.state
}

/** Resolves to the code of the error that a promise rejects with. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(() => 'no error', (thrown: unknown) => (thrown as SallyportError).code ?? String(thrown))
}

/** Names on the target that the books do not have: whatever a test does, there are none at its end. */
export async function strangers(world: World): Promise<readonly string[]> {
  const known = new Set((await world.rows('select name from account')).map(row => row.name))
  return world.target.accounts.names().filter(name => !known.has(name))
}
