// The plugin's connection to SQL Server: what it asks and how names, texts and SIDs are written. A login of
// ours is made with a SID that follows from its account's id, so that the marker is part of the login and
// nobody else's login of that name is taken for ours; a table of our own (books.ts) has the rest. Names of
// databases stand in each statement: the connection never moves to another one.
import { createHash, randomBytes } from 'node:crypto'
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { quoteBracketed, quoteNational } from '../../src/jit/sql-dialect.ts'
import { connectApart } from '../apart/thread.ts'
import { isRefused } from '../apart/words.ts'
import type { Client, Rows } from '../apart/words.ts'
import { holdSeconds } from '../books.ts'
import type { Book, BookRow } from '../books.ts'
import { passwordOf, unreached } from '../reach.ts'
import { fitting } from '../steps.ts'
import type { MssqlOptions } from './driver.ts'

export interface LoginSeen {
  isDisabled: boolean
  /** `0x` and upper case. */
  sid: string
  /** S: with a password of its own. */
  kind: string
}

/** Holds who is ours; made by the admin, for the hooks' login alone. */
export const ownDatabase = 'sallyport'
const table = `[${ownDatabase}].[dbo].[accounts]`

/** The server gives up on a lock a good while before we give up on the statement. */
const lockWaitMs = 5000
/** Rows of finished accounts stay for a day: a node that slept finds out that its epoch is old. */
const keepHours = 24
const azureDatabase = '5'

export const refused = {
  noObject: 208, noRight: 229, noDatabase: 911, noAccess: 916, alreadyThere: 2627, tableThere: 2714,
  noSuchSession: [6101, 6104, 6106, 6107], userThere: 15023, notThere: 15151, loggedIn: 15434
} as const

export const named = (value: string): string => fitting('a value', () => quoteBracketed(value))
export const quoted = (value: string): string => fitting('a value', () => quoteNational(value))

/** What a login stores of a password since SQL Server 2012: version, salt, SHA-512 of both. */
export function passwordHash(password: string, salt = randomBytes(4)): string {
  const hash = createHash('sha512').update(password, 'utf16le').update(salt).digest()
  return `0x0200${Buffer.concat([salt, hash]).toString('hex').toUpperCase()}`
}

/** The SID of the login that we make for this account, and of no other. */
export function sidOf({ accountId }: Pick<AccountRef, 'accountId'>): string {
  const bytes = createHash('sha256').update(`sallyport ${accountId}`).digest().subarray(0, 16)
  return `0x${bytes.toString('hex').toUpperCase()}`
}

const until = `DATEADD(second, ${holdSeconds}, SYSUTCDATETIME())`

export class Link implements Book {
  readonly version: string
  readonly #client: Client
  readonly #context: HookContext

  constructor(client: Client, context: HookContext, version: string) {
    this.#client = client
    this.#context = context
    this.version = version
  }

  /** One batch. @throws DriverRefused, ConnectionLost, or the signal's reason before anything is sent */
  async query(sql: string): Promise<Rows> {
    this.#context.signal.throwIfAborted()
    return await this.#client.query(sql, this.#context.statementTimeoutMs)
  }

  /** The same in another database, which the connection does not move to. */
  async inDatabase(database: string, sql: string): Promise<Rows> {
    return await this.query(`EXEC ${named(database)}.sys.sp_executesql ${quoted(sql)}`)
  }

  /** Rows, or none where the server refuses with one of these. */
  async rowsUnless(sql: string, ...numbers: readonly number[]): Promise<Rows> {
    try {
      return await this.query(sql)
    } catch (error) {
      if (isRefused(error, ...numbers)) return []
      throw error
    }
  }

  async login(name: string): Promise<LoginSeen | undefined> {
    const [row] = await this.query(`SELECT CONVERT(nvarchar(1), is_disabled), CONVERT(nvarchar(180), sid, 1),
      type FROM sys.server_principals WHERE name = ${quoted(name)}`)
    if (row === undefined) return undefined
    return { isDisabled: row[0] === '1', sid: row[1] ?? '', kind: row[2] ?? '' }
  }

  /** By the login that they began with, whomever they act as now. */
  async sessions(name: string): Promise<string[]> {
    const rows = await this.query(`SELECT CONVERT(nvarchar(10), session_id) FROM sys.dm_exec_sessions
      WHERE original_login_name = ${quoted(name)} AND is_user_process = 1`)
    return rows.map(([id]) => id ?? '')
  }

  async kill(id: string): Promise<void> {
    try {
      await this.query(`KILL ${BigInt(id)}`)
    } catch (error) {
      if (!isRefused(error, ...refused.noSuchSession)) throw error
    }
  }

  /** Those that can be looked into, and those that cannot. */
  async databases(): Promise<{ open: string[], shut: string[] }> {
    const rows = await this.query(`SELECT name, CONVERT(nvarchar(1), HAS_DBACCESS(name)) FROM sys.databases
      WHERE state = 0 ORDER BY database_id`)
    const names = (access: boolean): string[] =>
      rows.filter(([, can]) => (can === '1') === access).map(([name]) => name ?? '')
    return { open: names(true), shut: names(false) }
  }

  /** The name of the login's user there. */
  async user(database: string, sid: string): Promise<string | undefined> {
    const [row] = await this.query(
      `SELECT name FROM ${named(database)}.sys.database_principals WHERE sid = ${sid}`)
    return row?.[0] ?? undefined
  }

  async roles(database: string, sid: string): Promise<string[]> {
    const at = `${named(database)}.sys`
    const rows = await this.query(`SELECT r.name FROM ${at}.database_role_members m
      JOIN ${at}.database_principals r ON r.principal_id = m.role_principal_id
      JOIN ${at}.database_principals u ON u.principal_id = m.member_principal_id WHERE u.sid = ${sid}`)
    return rows.map(([name]) => name ?? '')
  }

  async read(name: string): Promise<BookRow | undefined> {
    const [row] = await this.rowsUnless(`SELECT account_id, CONVERT(nvarchar(20), epoch), holder,
      CONVERT(nvarchar(20), DATEDIFF(millisecond, SYSUTCDATETIME(), held_until)) FROM ${table}
      WHERE name = ${quoted(name)}`, refused.noObject)
    if (row === undefined) return undefined
    const [accountId, epoch, holder, heldMs] = row
    return { accountId: accountId ?? '', epoch: Number(epoch), holder: holder ?? '', heldMs: Number(heldMs) }
  }

  async open(name: string): Promise<void> {
    const insert = `INSERT INTO ${table} (name, account_id, epoch, holder, held_until)
      SELECT ${quoted(name)}, N'', 0, N'', SYSUTCDATETIME()
      WHERE NOT EXISTS (SELECT 1 FROM ${table} WHERE name = ${quoted(name)})`
    try {
      await this.query(insert)
    } catch (error) {
      if (isRefused(error, refused.alreadyThere)) return
      if (!isRefused(error, refused.noObject)) throw error
      await this.#makeTable()
      await this.open(name)
    }
  }

  async hold(name: string, holder: string): Promise<boolean> {
    const rows = await this.query(`UPDATE ${table} SET holder = ${quoted(holder)}, held_until = ${until}
      OUTPUT inserted.name WHERE name = ${quoted(name)}
      AND (holder = ${quoted(holder)} OR held_until <= SYSUTCDATETIME())`)
    return rows.length > 0
  }

  async write({ name, accountId, epoch }: AccountRef): Promise<void> {
    await this.query(`UPDATE ${table} SET account_id = ${quoted(accountId)}, epoch = ${epoch}, gone_at = NULL
      WHERE name = ${quoted(name)}`)
  }

  async markGone(name: string): Promise<void> {
    await this.rowsUnless(
      `UPDATE ${table} SET gone_at = SYSUTCDATETIME() WHERE name = ${quoted(name)}`, refused.noObject)
    await this.rowsUnless(
      `DELETE FROM ${table} WHERE gone_at < DATEADD(hour, -${keepHours}, SYSUTCDATETIME())`, refused.noObject)
  }

  async marked(): Promise<{ name: string, accountId: string }[]> {
    const rows = await this.rowsUnless(
      `SELECT name, account_id FROM ${table} WHERE gone_at IS NULL AND account_id <> N'' ORDER BY name`,
      refused.noObject)
    return rows.map(([name, accountId]) => ({ name: name ?? '', accountId: accountId ?? '' }))
  }

  close(): void {
    this.#client.close()
  }

  async #makeTable(): Promise<void> {
    await this.rowsUnless(`CREATE TABLE ${table} (name sysname NOT NULL PRIMARY KEY,
      account_id nvarchar(100) NOT NULL, epoch bigint NOT NULL, holder nvarchar(32) NOT NULL,
      held_until datetime2 NOT NULL, gone_at datetime2 NULL)`, refused.tableThere)
  }
}

/** Whether what is there is what our row speaks of: a login that we made has the SID of its account. */
export function isBound(seen: LoginSeen | undefined, account: AccountRef): boolean {
  return account.kind === 'enable' || seen?.sid === sidOf(account)
}

/** The driver, in the thread of that target. @throws UpstreamError, SallyportError */
export async function connectMssql(access: Access, context: HookContext): Promise<Client> {
  const { target: { host, port, database, tls }, username } = access
  const options: MssqlOptions = {
    host, port, database, tls, username, password: passwordOf(access), connectMs: context.connectTimeoutMs
  }
  const program = new URL('./driver.ts', import.meta.url)
  return await connectApart(program, `${host} ${port}`, options, context.connectTimeoutMs, context.signal)
}

/** Logs in as the hook's credential. @throws SallyportError when it could not */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  const { target } = access
  let client: Client | undefined
  try {
    client = await connectMssql(access, context)
    const limitMs = context.statementTimeoutMs
    await client.query(`SET LOCK_TIMEOUT ${lockWaitMs}`, limitMs)
    const [row] = await client.query(`SELECT CONVERT(nvarchar(60), SERVERPROPERTY('ProductVersion')),
      CONVERT(nvarchar(10), SERVERPROPERTY('EngineEdition'))`, limitMs)
    if (row?.[1] === azureDatabase) {
      const detail = `${target.name}: Azure SQL Database has other logins`
      throw new SallyportError('target-refused', { detail })
    }
    return new Link(client, context, row?.[0] ?? 'unknown')
  } catch (error) {
    client?.close()
    if (isRefused(error)) {
      throw new SallyportError('target-refused', { detail: `${target.name}: ${error.message}`, cause: error })
    }
    throw unreached(error, target, context.signal)
  }
}
