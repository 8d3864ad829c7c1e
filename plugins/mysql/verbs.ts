// What the steps of a MySQL template can do beside SQL. All of it goes by the account's name, on every host
// for which it exists: an account that is locked for one host and open for another is open. Nothing here is
// transactional on the server, so each verb looks first and may be repeated.
import { randomBytes } from 'node:crypto'
import { objectParts, privilegeList } from '../../src/jit/grant-text.ts'
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import { nativeVerifier } from '../../src/wire/mysql/packet.ts'
import { StepFailed, endUntilNone, fitting, listOf } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { accountText, isRefused, ownSchema, quoted, refusal } from './link.ts'
import type { Link } from './link.ts'

/** Where times of events end: January 2038. */
const eventSecondsMax = 2 ** 31 - 2

export interface MysqlRung extends Rung {
  link: Link
}

export const verbs: Verbs<MysqlRung> = {
  'grant-roles': {
    plan: 'GRANT each of the roles; after a creation the first one is active at login (SET DEFAULT ROLE)',
    lists: { roles: true },
    act: grantRoles
  },
  'revoke-roles': {
    plan: 'REVOKE each of the roles',
    lists: { roles: true },
    act: revokeRoles
  },
  'grant-permissions': {
    plan: 'GRANT the privileges of grant_what on `where`, a database or a table',
    options: { where: true },
    lists: { grant_what: true },
    act: grantPermissions,
    check: (values, { where = '' }) => void permissions(values, where)
  },
  'arm-deadline': {
    plan: 'CREATE EVENT in our schema, which locks the account and ends its sessions at that time',
    options: { at: true },
    act: armDeadline
  },
  'disarm-deadline': {
    plan: 'DROP EVENT IF EXISTS',
    act: disarmDeadline
  },
  'refuse-logins': {
    plan: 'for every host: ALTER USER … a password that nobody knows, ACCOUNT LOCK',
    act: refuseLogins
  },
  'end-sessions': {
    plan: 'KILL every connection of the account, by its name, until a look finds none',
    act: endSessions
  },
  'drop-account': {
    plan: 'for every host: DROP USER; the marker in our table says that it is gone',
    act: dropAccount
  }
}

async function grantRoles(rung: MysqlRung): Promise<void> {
  const { link, account, template } = rung
  const roles = listOf(rung, 'roles').map(quoteIdentifier)
  for (const { host } of await link.hosts(account.name)) {
    const whom = accountText(account.name, host)
    for (const role of roles) await link.query(`GRANT ${role} TO ${whom}`)
    if (template.action !== 'create' || roles.length === 0) continue
    // MariaDB has one active role for each session, MySQL any number.
    await link.query(link.dialect.isMariadb
      ? `SET DEFAULT ROLE ${roles[0]} FOR ${whom}`
      : `SET DEFAULT ROLE ${roles.join(', ')} TO ${whom}`)
  }
}

async function revokeRoles(rung: MysqlRung): Promise<void> {
  const { link, account } = rung
  for (const { host } of await link.hosts(account.name)) {
    for (const role of listOf(rung, 'roles')) {
      try {
        await link.query(`REVOKE ${quoteIdentifier(role)} FROM ${accountText(account.name, host)}`)
      } catch (error) {
        if (!isRefused(error, refusal.noSuchGrant, refusal.noSuchRole, refusal.notGranted)) throw error
      }
    }
  }
}

/** On one database, or one table of it. */
const privilegeWords = [
  'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'REFERENCES', 'TRIGGER', 'CREATE', 'DROP', 'ALTER', 'INDEX',
  'CREATE VIEW', 'SHOW VIEW', 'CREATE TEMPORARY TABLES', 'LOCK TABLES', 'EXECUTE', 'ALL', 'ALL PRIVILEGES'
]
const systemDatabases = new RegExp(`^(?:mysql|sys|information_schema|performance_schema|${ownSchema})$`, 'i')

/** In the name of a whole database `_` and `%` stand for any character, unless they are escaped. */
function permissions(values: Parameters<typeof listOf>[0], where: string): string {
  return fitting('grant_what or grant_where', () => {
    const words = privilegeList(listOf(values, 'grant_what'), privilegeWords)
    const [database, table] = objectParts(where, systemDatabases)
    const whole = table === '*'
    const place = quoteIdentifier(whole ? database.replaceAll(/[\\_%]/g, '\\$&') : database)
    return `GRANT ${words} ON ${place}.${whole ? '*' : quoteIdentifier(table)}`
  })
}

async function grantPermissions(
  rung: MysqlRung, { where = '' }: Readonly<Record<string, string>>
): Promise<void> {
  const { link, account } = rung
  const grant = permissions(rung, where)
  for (const { host } of await link.hosts(account.name)) {
    await link.query(`${grant} TO ${accountText(account.name, host)}`)
  }
}

/** The dead man's switch: acts when nobody is left to remove the account. */
async function armDeadline(rung: MysqlRung, { at = '' }: Readonly<Record<string, string>>): Promise<void> {
  const { link, account } = rung
  const seconds = Math.min(Math.ceil(Date.parse(at) / 1000), eventSecondsMax)
  if (!Number.isSafeInteger(seconds)) throw new StepFailed('`at` is not an instant', false)
  const hosts = await link.hosts(account.name)
  if (hosts.length === 0) throw new StepFailed('there is no such account')
  const acts = hosts.flatMap(({ host }) => {
    const whom = accountText(account.name, host)
    const lock = `ALTER USER IF EXISTS ${whom} ACCOUNT LOCK;`
    return link.dialect.isMariadb ? [lock, `KILL USER ${whom};`] : [lock]
  })
  await disarmDeadline(rung)
  await link.query(`CREATE EVENT ${eventOf(account.name)} ON SCHEDULE AT FROM_UNIXTIME(${seconds})
    DO BEGIN ${acts.join(' ')} END`)
}

async function disarmDeadline({ link, account }: MysqlRung): Promise<void> {
  try {
    await link.query(`DROP EVENT IF EXISTS ${eventOf(account.name)}`)
  } catch (error) {
    if (!isRefused(error, refusal.noSuchDatabase)) throw error
  }
}

function eventOf(name: string): string {
  return `"${ownSchema}".${quoteIdentifier(name)}`
}

async function refuseLogins({ link, account }: MysqlRung): Promise<void> {
  for (const { host } of await link.hosts(account.name)) {
    const nobody = nativeVerifier(randomBytes(32).toString('base64url'))
    await link.query(`ALTER USER IF EXISTS ${accountText(account.name, host)}
      IDENTIFIED WITH mysql_native_password AS ${quoted(nobody)} ACCOUNT LOCK`)
  }
}

async function endSessions(rung: MysqlRung): Promise<void> {
  const { link, account } = rung
  await endUntilNone(rung, async () => {
    const sessions = await link.sessions(account.name)
    for (const id of sessions) await link.kill(id)
    return sessions.length
  })
}

async function dropAccount({ link, account, residue }: MysqlRung): Promise<void> {
  for (const [kind, name] of await link.query(link.dialect.definers(account.name))) {
    residue.push({ kind: kind ?? 'object', name: `${name ?? ''} (its definer is gone)`, fate: 'left' })
  }
  for (const { host } of await link.hosts(account.name)) {
    await link.query(`DROP USER IF EXISTS ${accountText(account.name, host)}`)
  }
  await markGone(link, account.name)
}

/** The row stays for a day: a node that slept finds out that its epoch is old. */
export async function markGone(link: Link, name: string): Promise<void> {
  await link.query(`UPDATE "${ownSchema}"."accounts" SET gone_at = UTC_TIMESTAMP()
    WHERE name = ${quoted(name)}`)
  await link.query(`DELETE FROM "${ownSchema}"."accounts"
    WHERE gone_at < UTC_TIMESTAMP() - INTERVAL 1 DAY`)
}

/** What a creation does first to an account that is ours already: somebody may have its password. */
export async function clearAway(rung: MysqlRung): Promise<void> {
  await refuseLogins(rung)
  await endSessions(rung)
  for (const { host } of await rung.link.hosts(rung.account.name)) {
    await rung.link.query(`DROP USER IF EXISTS ${accountText(rung.account.name, host)}`)
  }
}
