// The plugin's connection to Oracle: what it asks, and how names are written there. Names are folded as
// Oracle folds them (`deploy` is DEPLOY), and DDL commits whatever was open: there are no transactions here.
// A profile of ours, given in CREATE USER, marks what we made; a table in the schema of the hooks' login
// (books.ts) says whose it is. Values of queries are bound, names of DDL are quoted.
import { createHash, pbkdf2, pbkdf2Sync, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { foldOracle, quoteOracle } from '../../src/jit/sql-dialect.ts'
import { connectApart } from '../apart/thread.ts'
import { isRefused } from '../apart/words.ts'
import type { Binds, Client, Rows } from '../apart/words.ts'
import { holdSeconds } from '../books.ts'
import type { Book, BookRow } from '../books.ts'
import { passwordOf, unreached } from '../reach.ts'
import { fitting } from '../steps.ts'
import type { OracleOptions } from './driver.ts'

export interface UserSeen {
  /** Nobody gets in, and no time that passes changes that. */
  isLocked: boolean
  profile: string
  /** Oracle's own: never touched. */
  isMaintained: boolean
}

export interface SessionSeen {
  sid: string
  serial: string
  instance: string
}

export const ownProfile = 'SALLYPORT_JIT'
const table = 'sallyport_accounts'
const now = 'SYS_EXTRACT_UTC(SYSTIMESTAMP)'
/** Rows of finished accounts stay for a day: a node that slept finds out that its epoch is old. */
const keepHours = 24
const estateMax = 200

export const refused = {
  alreadyThere: 1, noTable: 942, tableThere: 955, noUser: 1918, loggedIn: 1940, notGranted: 1951,
  badVerifier: 2153, noSuchSession: [26, 30, 31]
} as const

export const named = (value: string): string => fitting('a name', () => quoteOracle(value))
export const folded = (value: string): string => fitting('a name', () => foldOracle(value))

const iterations = 4096
const keyBytes = 64
const stretch = promisify(pbkdf2)

function stretching(salt: Buffer): Buffer {
  return Buffer.concat([salt, Buffer.from('AUTH_PBKDF2_SPEEDY_KEY')])
}

function verifierOf(key: Buffer, salt: Buffer): string {
  const hash = createHash('sha512').update(key).update(salt).digest()
  return `T:${Buffer.concat([hash, salt]).toString('hex').toUpperCase()}`
}

/** What Oracle 12c and later store of a password, as `IDENTIFIED BY VALUES` takes it. */
export async function passwordVerifier(password: string, salt = randomBytes(16)): Promise<string> {
  return verifierOf(await stretch(password, stretching(salt), iterations, keyBytes, 'sha512'), salt)
}

/** The same on this thread: some four milliseconds. */
export function passwordVerifierNow(password: string): string {
  const salt = randomBytes(16)
  return verifierOf(pbkdf2Sync(password, stretching(salt), iterations, keyBytes, 'sha512'), salt)
}

export class Link implements Book {
  readonly version: string
  readonly #client: Client
  readonly #context: HookContext
  readonly #instance: string

  constructor(client: Client, context: HookContext, instance: string, version: string) {
    this.#client = client
    this.#context = context
    this.#instance = instance
    this.version = version
  }

  /** One statement. @throws DriverRefused, ConnectionLost, or the signal's reason before anything is sent */
  async query(sql: string, ...binds: Binds): Promise<Rows> {
    this.#context.signal.throwIfAborted()
    return await this.#client.query(sql, this.#context.statementTimeoutMs, binds)
  }

  /** Rows, or none where the server refuses with that number. */
  async rowsUnless(number: number, sql: string, ...binds: Binds): Promise<Rows> {
    try {
      return await this.query(sql, ...binds)
    } catch (error) {
      if (isRefused(error, number)) return []
      throw error
    }
  }

  async user(name: string): Promise<UserSeen | undefined> {
    const [row] = await this.query(
      'SELECT account_status, profile, oracle_maintained FROM dba_users WHERE username = :1', folded(name))
    if (row === undefined) return undefined
    // "LOCKED(TIMED)" opens by itself, an expired password may be replaced at login.
    const isLocked = /\bLOCKED\b(?!\(TIMED\))/.test(row[0] ?? '')
    return { isLocked, profile: row[1] ?? '', isMaintained: row[2] === 'Y' }
  }

  async sessions(name: string): Promise<SessionSeen[]> {
    const rows = await this.query(`SELECT TO_CHAR(sid), TO_CHAR(serial#), TO_CHAR(inst_id) FROM gv$session
      WHERE username = :1 AND type = 'USER'`, folded(name))
    return rows.map(([sid, serial, instance]) => (
      { sid: sid ?? '', serial: serial ?? '', instance: instance ?? '' }))
  }

  /** DISCONNECT ends the server's process, but only on our own instance. */
  async end({ sid, serial, instance }: SessionSeen): Promise<void> {
    const which = `${BigInt(sid)},${BigInt(serial)}`
    const act = instance === this.#instance
      ? `DISCONNECT SESSION '${which}'`
      : `KILL SESSION '${which},@${BigInt(instance)}'`
    try {
      await this.query(`ALTER SYSTEM ${act} IMMEDIATE`)
    } catch (error) {
      if (!isRefused(error, ...refused.noSuchSession)) throw error
    }
  }

  async roles(name: string): Promise<string[]> {
    const rows = await this.query('SELECT granted_role FROM dba_role_privs WHERE grantee = :1', folded(name))
    return rows.map(([role]) => role ?? '')
  }

  /** Kind and name of what is in the account's schema; the first of them, when there are many. */
  async estate(name: string): Promise<[kind: string, name: string][]> {
    const rows = await this.query(`SELECT LOWER(object_type), object_name FROM dba_objects
      WHERE owner = :1 ORDER BY object_type, object_name FETCH FIRST ${estateMax} ROWS ONLY`, folded(name))
    return rows.map(([kind, object]) => [kind ?? '', object ?? ''])
  }

  async read(name: string): Promise<BookRow | undefined> {
    const [row] = await this.rowsUnless(refused.noTable, `SELECT account_id, TO_CHAR(epoch), holder,
      TO_CHAR(ROUND((CAST(held_until AS DATE) - CAST(${now} AS DATE)) * 86400000)) FROM ${table}
      WHERE name = :1`, folded(name))
    if (row === undefined) return undefined
    const [accountId, epoch, holder, heldMs] = row
    return { accountId: accountId ?? '', epoch: Number(epoch), holder: holder ?? '', heldMs: Number(heldMs) }
  }

  async open(name: string): Promise<void> {
    const account = folded(name)
    try {
      await this.query(`INSERT INTO ${table} (name, epoch, held_until) SELECT :1, 0, ${now} FROM dual
        WHERE NOT EXISTS (SELECT 1 FROM ${table} WHERE name = :2)`, account, account)
    } catch (error) {
      if (isRefused(error, refused.alreadyThere)) return
      if (!isRefused(error, refused.noTable)) throw error
      await this.#makeTable()
      await this.open(name)
    }
  }

  async hold(name: string, holder: string): Promise<boolean> {
    const [row] = await this.query(`UPDATE ${table} SET holder = :1,
      held_until = ${now} + NUMTODSINTERVAL(${holdSeconds}, 'SECOND')
      WHERE name = :2 AND (holder = :3 OR held_until <= ${now})`, holder, folded(name), holder)
    return Number(row?.[0]) > 0
  }

  async write({ name, accountId, epoch }: AccountRef): Promise<void> {
    await this.query(`UPDATE ${table} SET account_id = :1, epoch = :2, gone_at = NULL WHERE name = :3`,
      accountId, epoch, folded(name))
  }

  async markGone(name: string): Promise<void> {
    await this.rowsUnless(
      refused.noTable, `UPDATE ${table} SET gone_at = ${now} WHERE name = :1`, folded(name))
    await this.rowsUnless(refused.noTable,
      `DELETE FROM ${table} WHERE gone_at < ${now} - NUMTODSINTERVAL(${keepHours}, 'HOUR')`)
  }

  async marked(): Promise<{ name: string, accountId: string }[]> {
    const rows = await this.rowsUnless(refused.noTable, `SELECT name, account_id FROM ${table}
      WHERE gone_at IS NULL AND account_id IS NOT NULL ORDER BY name`)
    return rows.map(([name, accountId]) => ({ name: name ?? '', accountId: accountId ?? '' }))
  }

  close(): void {
    this.#client.close()
  }

  async #makeTable(): Promise<void> {
    await this.rowsUnless(refused.tableThere, `CREATE TABLE ${table} (name VARCHAR2(128) PRIMARY KEY,
      account_id VARCHAR2(100), epoch NUMBER(15) NOT NULL, holder VARCHAR2(32),
      held_until TIMESTAMP NOT NULL, gone_at TIMESTAMP)`)
  }
}

/** Whether what is there is what our row speaks of: a user that we made has our profile. */
export function isBound(seen: UserSeen | undefined, account: AccountRef): boolean {
  return seen?.isMaintained !== true && (account.kind === 'enable' || seen?.profile === ownProfile)
}

/** How a plugin gets its connection: the driver in a thread, or a test's own. */
export type Connect = (access: Access, context: HookContext) => Promise<Client>

/** The driver, in the thread of that target and its authority. @throws UpstreamError, SallyportError */
export async function connectOracle(access: Access, context: HookContext): Promise<Client> {
  const { target: { host, port, database = '', tls }, username } = access
  const options: OracleOptions = {
    host, port, service: database, tls, username, password: passwordOf(access),
    connectMs: context.connectTimeoutMs
  }
  const program = new URL('./driver.ts', import.meta.url)
  const key = `${host} ${port} ${createHash('sha256').update(tls.ca ?? '').digest('hex')}`
  return await connectApart(program, key, options, context.connectTimeoutMs, context.signal)
}

/** Logs in as the hook's credential. @throws SallyportError when it could not */
export async function openLink(connect: Connect, access: Access, context: HookContext): Promise<Link> {
  const { target } = access
  let client: Client | undefined
  try {
    client = await connect(access, context)
    const [row] = await client.query(`SELECT SYS_CONTEXT('USERENV', 'INSTANCE'),
      (SELECT MAX(version) FROM product_component_version) FROM dual`, context.statementTimeoutMs)
    return new Link(client, context, row?.[0] ?? '', row?.[1] ?? 'unknown')
  } catch (error) {
    client?.close()
    if (isRefused(error)) {
      throw new SallyportError('target-refused', { detail: `${target.name}: ${error.message}`, cause: error })
    }
    throw unreached(error, target, context.signal)
  }
}
