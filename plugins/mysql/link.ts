// The plugin's connection to MariaDB or MySQL. Its session is pinned to one way of reading text (ANSI quotes,
// no backslash escapes), because quoting is right only under the mode that it was made for; the server gives
// up a statement before we do, and ends a connection whose node sleeps. Accounts cannot carry a marker there,
// so it stands in a table of our own; a named lock keeps two nodes from acting on one account at once.
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { quoteLiteral } from '../../src/jit/sql-text.ts'
import { MysqlRefused, connectMysql } from '../../src/wire/mysql/client.ts'
import type { MysqlClient } from '../../src/wire/mysql/client.ts'
import { SallyportError } from '../../src/errors.ts'
import { passwordOf, unreached } from '../reach.ts'
import { StepFailed, assertOurs } from '../steps.ts'
import type { Marker } from '../steps.ts'

export type Rows = readonly (readonly (string | null)[])[]

/** MariaDB and MySQL keep accounts in other tables and say some things with other words. */
export interface Dialect {
  isMariadb: boolean
  /** Host, locked (1 or 0) of the accounts called NAME. */
  accounts(name: string): string
  /** Names of the roles that NAME was given. */
  roles(name: string): string
  /** Kind and name of what has NAME as its definer. */
  definers(name: string): string
}

/** Holds who is ours; without rights for anybody but the hooks' login. */
export const ownSchema = 'sallyport'

/** The server gives up a little before we do: its refusal is definite, our time-out is not. */
const statementMarginMs = 500
const lockSeconds = 5
/** A node that stalls loses its connection, and with it the account's lock. */
const idleSeconds = 10

export const refusal = {
  accessDenied: 1044, noSuchThread: 1094, tableAccessDenied: 1142, noSuchDatabase: 1049, noSuchTable: 1146,
  noSuchGrant: 1141, noSuchRole: 1959, notGranted: 3523
} as const

export function isRefused(thrown: unknown, ...numbers: readonly number[]): thrown is MysqlRefused {
  return thrown instanceof MysqlRefused && (numbers.length === 0 || numbers.includes(thrown.number))
}

/**
 * A text of a statement; the session reads no escapes, and a backslash would ask for one.
 * @throws SallyportError('invalid')
 */
export function quoted(value: string): string {
  if (value.includes('\\')) throw new SallyportError('invalid', { detail: 'a value holds a backslash' })
  return quoteLiteral(value)
}

/** `'name'@'host'` */
export function accountText(name: string, host: string): string {
  return `${quoted(name)}@${quoted(host)}`
}

/** Names differ by their case; the views of information_schema compare without it. */
function inPrincipals(column: string, name: string): string {
  return `BINARY LEFT(${column}, ${[...name].length + 1}) = ${quoted(`${name}@`)}`
}

const views = (name: string): string => `
  SELECT 'view', CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.VIEWS
    WHERE ${inPrincipals('DEFINER', name)}
  UNION ALL SELECT 'trigger', CONCAT(TRIGGER_SCHEMA, '.', TRIGGER_NAME) FROM information_schema.TRIGGERS
    WHERE ${inPrincipals('DEFINER', name)}`

const mariadb: Dialect = {
  isMariadb: true,
  accounts: name => `SELECT Host, COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) FROM mysql.global_priv
    WHERE User = ${quoted(name)} AND JSON_VALUE(Priv, '$.is_role') IS NULL`,
  roles: name => `SELECT DISTINCT Role FROM mysql.roles_mapping WHERE User = ${quoted(name)}`,
  definers: name => `${views(name)}
    UNION ALL SELECT LOWER(type), CONCAT(db, '.', name) FROM mysql.proc WHERE ${inPrincipals('definer', name)}
    UNION ALL SELECT 'event', CONCAT(db, '.', name) FROM mysql.event WHERE ${inPrincipals('definer', name)}`
}

const mysql: Dialect = {
  isMariadb: false,
  accounts: name => `SELECT Host, account_locked = 'Y' FROM mysql.user WHERE User = ${quoted(name)}`,
  roles: name => `SELECT DISTINCT FROM_USER FROM mysql.role_edges WHERE TO_USER = ${quoted(name)}`,
  definers: name => `${views(name)}
    UNION ALL SELECT LOWER(ROUTINE_TYPE), CONCAT(ROUTINE_SCHEMA, '.', ROUTINE_NAME)
      FROM information_schema.ROUTINES WHERE ${inPrincipals('DEFINER', name)}
    UNION ALL SELECT 'event', CONCAT(EVENT_SCHEMA, '.', EVENT_NAME)
      FROM information_schema.EVENTS WHERE ${inPrincipals('DEFINER', name)}`
}

export class Link {
  readonly dialect: Dialect
  readonly version: string
  readonly #client: MysqlClient
  readonly #context: HookContext

  constructor(client: MysqlClient, context: HookContext) {
    this.#client = client
    this.#context = context
    // MariaDB hides behind an old version for old replicas.
    this.version = client.version.replace(/^5\.5\.5-/, '')
    this.dialect = /mariadb/i.test(client.version) ? mariadb : mysql
  }

  /** One statement. @throws MysqlRefused, ConnectionLost, or the signal's reason before anything is sent */
  async query(sql: string): Promise<Rows> {
    this.#context.signal.throwIfAborted()
    return await this.#client.query(sql, this.#context.statementTimeoutMs)
  }

  async pin(): Promise<void> {
    const limitMs = Math.max(1000, this.#context.statementTimeoutMs - statementMarginMs)
    const limit = this.dialect.isMariadb ? `, max_statement_time = ${(limitMs / 1000).toFixed(1)}` : ''
    await this.query(`SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES',
      wait_timeout = ${idleSeconds}, lock_wait_timeout = ${lockSeconds}, autocommit = 1${limit}`)
  }

  /** Where the account is known, and whether it is locked there. */
  async hosts(name: string): Promise<{ host: string, locked: boolean }[]> {
    const rows = await this.query(this.dialect.accounts(name))
    return rows.map(([host, locked]) => ({ host: host ?? '', locked: Number(locked) === 1 }))
  }

  async sessions(name: string): Promise<string[]> {
    const rows = await this.query(
      `SELECT ID FROM information_schema.PROCESSLIST WHERE BINARY USER = ${quoted(name)}`)
    return rows.map(([id]) => id ?? '')
  }

  async kill(id: string): Promise<void> {
    try {
      await this.query(`KILL CONNECTION ${BigInt(id)}`)
    } catch (error) {
      if (!isRefused(error, refusal.noSuchThread)) throw error
    }
  }

  async marker(name: string): Promise<Marker | undefined> {
    const [row] = await this.#ownRows(
      `SELECT account_id, epoch FROM "${ownSchema}"."accounts" WHERE name = ${quoted(name)}`)
    return row === undefined ? undefined : { accountId: row[0] ?? '', epoch: Number(row[1]) }
  }

  /** Whatever our table has for ours and not for gone. */
  async marked(): Promise<{ name: string, accountId: string }[]> {
    const rows = await this.#ownRows(
      `SELECT name, account_id FROM "${ownSchema}"."accounts" WHERE gone_at IS NULL ORDER BY name`)
    return rows.map(([name, accountId]) => ({ name: name ?? '', accountId: accountId ?? '' }))
  }

  /**
   * Waits until nobody else acts on the account. Anybody may take a named lock, and hold up their own removal
   * with it: whoever has another login than ours is ended.
   */
  async lock(name: string): Promise<void> {
    const key = quoted(`${ownSchema}:${name}`)
    for (const seconds of [1, lockSeconds]) {
      const [row] = await this.query(`SELECT GET_LOCK(${key}, ${seconds})`)
      if (row?.[0] === '1') return
      const strangers = await this.query(`SELECT ID FROM information_schema.PROCESSLIST
        WHERE ID = IS_USED_LOCK(${key}) AND BINARY USER <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1)`)
      for (const [id] of strangers) await this.kill(id ?? '')
    }
    throw new StepFailed(`another hook is acting on ${name}`)
  }

  /**
   * Takes the account for this action: the lock, then whose it is, then our epoch in the marker, which stands
   * before the account does. Answers the hosts where it is known.
   */
  async take(account: AccountRef): Promise<{ host: string, locked: boolean }[]> {
    const { name, accountId, epoch } = account
    await this.lock(name)
    const hosts = await this.hosts(name)
    assertOurs(hosts.length > 0, await this.marker(name), account)
    const write = `INSERT INTO "${ownSchema}"."accounts" (name, account_id, epoch)
      VALUES (${quoted(name)}, ${quoted(accountId)}, ${epoch})
      ON DUPLICATE KEY UPDATE account_id = ${quoted(accountId)}, epoch = ${epoch}, gone_at = NULL`
    try {
      await this.query(write)
    } catch (error) {
      if (!isRefused(error, refusal.noSuchTable, refusal.noSuchDatabase)) throw error
      await this.#makeOwnTable()
      await this.query(write)
    }
    return hosts
  }

  close(): void {
    this.#client.close()
  }

  /** Rows of our table; none before it was made. */
  async #ownRows(sql: string): Promise<Rows> {
    try {
      return await this.query(sql)
    } catch (error) {
      if (isRefused(error, refusal.noSuchTable, refusal.noSuchDatabase)) return []
      throw error
    }
  }

  async #makeOwnTable(): Promise<void> {
    await this.query(`CREATE DATABASE IF NOT EXISTS "${ownSchema}"`)
    await this.query(`CREATE TABLE IF NOT EXISTS "${ownSchema}"."accounts" (
      name VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
      account_id VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
      epoch BIGINT NOT NULL, gone_at DATETIME NULL) ENGINE = InnoDB`)
  }
}

/** Logs in as the hook's credential. @throws SallyportError when it could not */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  const { target, username } = access
  const password = passwordOf(access)
  const limitMs = context.connectTimeoutMs
  try {
    const client = await connectMysql({
      host: target.host, port: target.port, tls: target.tls, username, password: () => password,
      timeouts: { connectMs: limitMs, tlsMs: limitMs, loginMs: limitMs },
      signal: AbortSignal.any([context.signal, AbortSignal.timeout(limitMs)])
    })
    const link = new Link(client, context)
    try {
      await link.pin()
    } catch (error) {
      link.close()
      throw error
    }
    return link
  } catch (error) {
    if (isRefused(error)) {
      throw new SallyportError('target-refused', { detail: `${target.name}: ${error.message}`, cause: error })
    }
    throw unreached(error, target, context.signal)
  }
}
