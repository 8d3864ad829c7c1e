// The plugin's connection to a target: opened with the hook's limits, every statement with a time limit, and
// transactions that are fenced. A fenced transaction takes an advisory lock on the account's name, so that
// two nodes never act on one account at once, and then looks at the account: whose it is, which epoch acted
// last, and whether the target's own clock is past the claim's deadline. A node that slept through its claim
// finds out here (F22, F23).
import { quoteIdentifier, quoteLiteral } from '../../src/jit/sql-text.ts'
import { proofAccountPrefix } from '../../src/jit/plugin.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { ServerError } from '../../src/wire/postgres/query.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { doorOf } from './door.ts'
import type { Door } from './door.ts'
import { fitting } from '../steps.ts'

export type Row = readonly (string | null)[]

/** Membership in it tells pg_hba.conf and people which roles are ours; it has no rights. */
export const markerRole = 'sallyport_jit'
/** Owns what removed accounts leave behind; it has no rights and cannot log in. */
export const graveyardRole = 'sallyport_graveyard'

/** Waiting for a lock: long enough for a busy catalogue, short against the action's limit. */
const lockTimeoutMs = 5000
/** The first wait of a removal: whoever blocks it is usually the account itself, and is ended then. */
const shortLockTimeoutMs = 1000

const markerForm = /(?:^|\n)sallyport account=(\S{1,100}) epoch=(\d{1,15})$/

/** How the account stands, seen under the lock. */
export interface Look {
  oid: string | undefined
  canLogin: boolean
  hasReplication: boolean
  comment: string
  accountId: string | undefined
  epoch: number | undefined
  /** The target's own clock. */
  clock: string
  /** Milliseconds of that clock left until the deadline; Infinity where none was given. */
  leftMs: number
  markerExists: boolean
  graveyardExists: boolean
}

/** Why a fenced transaction did not begin: it was rolled back, nothing happened. */
export class Fenced extends Error {
  readonly kind: 'late' | 'stale' | 'foreign'

  constructor(kind: 'late' | 'stale' | 'foreign', message: string) {
    super(message)
    this.kind = kind
  }
}

export const sqlstate = {
  duplicateObject: '42710',
  undefinedObject: '42704',
  uniqueViolation: '23505',
  insufficientPrivilege: '42501',
  dependentObjects: '2BP01',
  lockNotAvailable: '55P03'
} as const

export function isServerError(thrown: unknown, ...states: readonly string[]): thrown is ServerError {
  return thrown instanceof ServerError && (states.length === 0 || states.includes(thrown.sqlstate))
}

/** Two of us touched one catalogue row: the loser only has to do it again. */
export function isRace(thrown: unknown): boolean {
  if (isServerError(thrown, '40001', '40P01')) return true
  return isServerError(thrown, 'XX000') && thrown.serverMessage.includes('concurrently')
}

/** The epoch and the account in a role's comment. */
export function readMarker(comment: string): { accountId: string, epoch: number } | undefined {
  const [, accountId, epoch] = markerForm.exec(comment) ?? []
  return accountId === undefined ? undefined : { accountId, epoch: Number(epoch) }
}

/** The comment with our marker as its last line; what people wrote before stays. */
export function withMarker(comment: string, { accountId, epoch }: AccountRef): string {
  const before = comment.replace(markerForm, '')
  return `${before === '' ? '' : `${before}\n`}sallyport account=${accountId} epoch=${epoch}`
}

export class Link {
  readonly database: string
  readonly #door: Door
  readonly #context: HookContext
  #deadline: string | undefined
  /** Statements of a transaction that travel with the next one that is waited for. */
  #unsent: { statement: Statement, onRefused: (() => void) | undefined }[] = []

  constructor(door: Door, context: HookContext, database: string) {
    this.#door = door
    this.#context = context
    this.database = database
  }

  get majorVersion(): number {
    return Number.parseInt(this.#door.parameters.get('server_version') ?? '', 10)
  }

  /** Whether our login is one. */
  get superuser(): boolean {
    return this.#door.parameters.get('is_superuser') === 'on'
  }

  /** One statement. @throws ServerError, ConnectionLost, or the signal's reason before anything is sent */
  async query(sql: string, values: readonly (string | null)[] = []): Promise<readonly Row[]> {
    const [rows = []] = await this.batch([{ sql, values }])
    return rows
  }

  /**
   * Several in one round trip, behind those that wait; the first that is refused ends them all. `harmless`:
   * they read, and commit nothing, so that they may be sent again over another connection.
   */
  async batch(statements: readonly Statement[], { harmless = false } = {}): Promise<(readonly Row[])[]> {
    this.#context.signal.throwIfAborted()
    const unsent = this.#unsent.splice(0)
    try {
      const all = [...unsent.map(({ statement }) => statement), ...statements]
      const results = await this.#door.send(all, this.#context.statementTimeoutMs, harmless)
      return results.slice(unsent.length).map(({ rows }) => rows)
    } catch (error) {
      if (error instanceof ServerError) unsent[error.place]?.onRefused?.()
      throw error
    }
  }

  /**
   * A statement of a transaction whose answer nobody needs before the transaction goes on: it travels with
   * the next one, at the latest with COMMIT, and its refusal comes out there, after `onRefused`.
   */
  send(sql: string, onRefused?: () => void): void {
    this.#unsent.push({ statement: { sql }, onRefused })
  }

  /** Everything that `act` sends takes effect together or not at all. */
  async transaction<T>(act: () => Promise<T>, { keep = true } = {}): Promise<T> {
    this.send('BEGIN')
    try {
      const result = await act()
      await this.query(keep ? 'COMMIT' : 'ROLLBACK')
      return result
    } catch (error) {
      await this.rollBack()
      throw error
    }
  }

  /** Reads under the account's lock, all in one round trip: what an action is about to commit counts. */
  async looks(name: string, statements: readonly Statement[]): Promise<(readonly Row[])[]> {
    try {
      const all = [{ sql: 'BEGIN READ ONLY' }, lockOf(name, 'shared'), ...statements, { sql: 'COMMIT' }]
      return (await this.batch(all, { harmless: true })).slice(2, -1)
    } catch (error) {
      await this.rollBack()
      throw error
    }
  }

  /**
   * A transaction under the account's lock. `act` gets the account as it stands, and what `also` found under
   * the lock: reads only, since the fence has not spoken yet.
   * @throws Fenced when the claim has lapsed, a newer epoch has acted, or the account is somebody else's
   */
  async fenced<T>(
    account: AccountRef, act: (look: Look, ...also: (readonly Row[])[]) => Promise<T>,
    { keep = true, also = [] }: { keep?: boolean, also?: readonly Statement[] } = {}
  ): Promise<T> {
    return await this.transaction(async () => {
      // Each statement sees what was committed when it begins, and these begin when the lock is ours.
      const looks = [lockOf(account.name), this.lookOf(account.name), ...also]
      const [, seen, ...rest] = await this.batch(looks, { harmless: true })
      const look = readLook(seen)
      this.heard(look.clock)
      if (look.leftMs <= 0 || this.#context.remainingMs() <= 0) {
        throw new Fenced('late', 'the claim on the account has lapsed')
      }
      if (look.accountId === account.accountId && (look.epoch ?? 0) > account.epoch) {
        throw new Fenced('stale', `epoch ${look.epoch} has acted on the account, this is ${account.epoch}`)
      }
      const foreign = look.oid !== undefined && look.accountId !== account.accountId
      // A proof may begin on an account that nobody uses now; once a session takes it, it must not go on.
      const begins = account.accountId.startsWith(proofAccountPrefix) && account.epoch === 1
      const claimed = look.accountId?.startsWith(proofAccountPrefix) === false && !begins
      if (foreign && (account.kind === 'create' || claimed)) {
        const owner = look.accountId === undefined ? 'is not ours' : `belongs to account ${look.accountId}`
        throw new Fenced('foreign', `the role ${account.name} exists and ${owner}`)
      }
      return await act(look, ...rest)
    }, { keep })
  }

  /** The deadline of the claim by the target's own clock, once that was heard. */
  get deadline(): string | null {
    return this.#deadline ?? null
  }

  /** From the first time on the target's clock decides, even if ours stands still. */
  heard(clock: string): void {
    this.#deadline ??= new Date(Date.parse(clock) + this.#context.remainingMs()).toISOString()
  }

  /** The look at an account, for `readLook`. */
  lookOf(name: string): Statement {
    return { sql: lookSql, values: [name, this.deadline, markerRole, graveyardRole] }
  }

  /**
   * Ends whoever holds the account's lock and is not a hook of the same login: anybody may take an advisory
   * lock, and with it hold up their own removal. True when somebody was told to end.
   */
  async endStrangers(name: string): Promise<boolean> {
    const rows = await this.query(strangersSql, [name])
    return rows.length > 0
  }

  async patientLocks(): Promise<void> {
    await this.query("SELECT set_config('lock_timeout', $1, false)", [String(lockTimeoutMs)])
  }

  async close(): Promise<void> {
    await this.#door.close()
  }

  /** The connection may serve the next hook: nothing went wrong, no transaction is open. */
  async leave(): Promise<void> {
    await this.#door.leave()
  }

  /** Ends a transaction that went wrong. Never throws. */
  async rollBack(): Promise<void> {
    this.#unsent = []
    if (this.#door.transactionStatus === 'I') return
    try {
      await this.#door.send([{ sql: 'ROLLBACK' }], this.#context.statementTimeoutMs, false)
    } catch {
      // The connection is lost, and with it the transaction.
    }
  }
}

export function readLook([row]: readonly Row[] = []): Look {
  const [oid, canLogin, replication, comment, clock, leftMs, marker, graveyard] = row ?? []
  const read = readMarker(comment ?? '')
  return {
    oid: oid ?? undefined,
    canLogin: canLogin === 't',
    hasReplication: replication === 't',
    comment: comment ?? '',
    accountId: read?.accountId, epoch: read?.epoch, clock: clock ?? '',
    leftMs: leftMs === null || leftMs === undefined ? Infinity : Number(leftMs),
    markerExists: marker === 't', graveyardExists: graveyard === 't'
  }
}

/** Waits until nobody else acts on the account; `shared` for a look. */
function lockOf(name: string, mode: 'exclusive' | 'shared' = 'exclusive'): Statement {
  const call = mode === 'shared' ? 'pg_advisory_xact_lock_shared' : 'pg_advisory_xact_lock'
  return { sql: `SELECT ${call}(hashtextextended('sallyport:' || $1, 0))`, values: [name] }
}

/** Number of the role that is called `$1`, so that what is asked about it travels with the look for it. */
export const roleNumber = 'to_regrole(quote_ident($1::text))::oid'

/** One row for each session of a role, and for each of its background workers. */
export function sessionsOf(name: string): Statement {
  return { sql: `SELECT FROM pg_stat_get_activity(NULL) WHERE usesysid = ${roleNumber}`, values: [name] }
}

/** Prepared transactions of a role: name and database. */
export function preparedOf(name: string): Statement {
  return {
    sql: `SELECT p.gid, d.datname FROM pg_prepared_xact() p JOIN pg_database d ON d.oid = p.dbid
      WHERE p.ownerid = ${roleNumber}`,
    values: [name]
  }
}

// Runs in every transaction, so it avoids the costly views; quote_ident because to_regrole reads an
// identifier.
const lookSql = `
  SELECT r.oid, r.rolcanlogin, r.rolreplication, shobj_description(r.oid, 'pg_authid'),
    to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    ceil(extract(epoch FROM $2::timestamptz - clock_timestamp()) * 1000),
    to_regrole($3) IS NOT NULL, to_regrole($4) IS NOT NULL
  FROM (SELECT to_regrole(quote_ident($1)) AS oid) named LEFT JOIN pg_roles r ON r.oid = named.oid`

const strangersSql = `
  WITH k AS (SELECT hashtextextended('sallyport:' || $1, 0) AS key)
  SELECT pg_terminate_backend(l.pid)
  FROM k, pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
  WHERE l.locktype = 'advisory' AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = ((k.key >> 32) & 4294967295)::oid AND l.objid = (k.key & 4294967295)::oid
    AND a.usesysid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)`

export interface LinkOptions {
  database?: string | undefined
  /** Removals: wait briefly for a lock at first. */
  impatient?: boolean | undefined
  /** May take a connection of an earlier hook, and leave its own for the next; not for a proof. */
  kept?: boolean | undefined
}

/**
 * Logs in as the hook's credential, or takes up a connection that is logged in.
 * @throws SallyportError('target-unreachable' | 'target-untrusted' | 'target-refused' | 'target-violation')
 */
export async function openLink(
  access: Access, context: HookContext, { database: wanted, impatient, kept }: LinkOptions = {}
): Promise<Link> {
  const { target } = access
  // A TCP target need not name one.
  const declared = target.database === '' ? undefined : target.database
  const database = wanted ?? declared ?? 'postgres'
  const lockMs = impatient === true ? shortLockTimeoutMs : lockTimeoutMs
  return new Link(await doorOf(access, context, { database, lockMs, kept: kept === true }), context, database)
}

/** @throws SallyportError('invalid') for a name that PostgreSQL would refuse, or cut in silence */
export function assertRoleName(name: string): void {
  fitting('the name of the account', () => quoteIdentifier(name))
}

/** Puts our marker into the role's comment, with the next statement of the transaction. */
export function mark(link: Link, account: AccountRef, comment: string, onRefused?: () => void): void {
  const marked = quoteLiteral(withMarker(comment, account))
  link.send(`COMMENT ON ROLE ${quoteIdentifier(account.name)} IS ${marked}`, onRefused)
}

/** Makes a role of our own without any rights, unless it is there. */
export async function ensureRole(link: Link, name: string): Promise<void> {
  try {
    await link.query(`CREATE ROLE ${quoteIdentifier(name)} NOLOGIN`)
  } catch (error) {
    const exists = isServerError(error, sqlstate.duplicateObject, sqlstate.uniqueViolation)
    if (!exists && !isRace(error)) throw error
  }
}
