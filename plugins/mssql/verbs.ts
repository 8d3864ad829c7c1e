// What the steps of a SQL Server template can do beside SQL. Neither ALTER LOGIN … DISABLE nor DROP USER ends
// a session, KILL is refused inside a transaction and only marks what has to be rolled back first: so each
// verb is its own batch, looks first, and may be repeated.
import { randomBytes } from 'node:crypto'
import { keepHold } from '../books.ts'
import { StepFailed, endUntilNone, listOf } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { dropUsers, serverEstate } from './estate.ts'
import { isRefused } from '../apart/words.ts'
import { named, passwordHash, refused, sidOf } from './link.ts'
import type { Link } from './link.ts'

export interface MssqlRung extends Rung {
  link: Link
}

type Options = Readonly<Record<string, string>>

export const verbs: Verbs<MssqlRung> = {
  'make-user': {
    plan: 'in that database: CREATE USER … FOR LOGIN',
    options: { database: true },
    act: makeUser
  },
  'grant-roles': {
    plan: 'in that database, for each of the roles: ALTER ROLE … ADD MEMBER',
    options: { database: true }, lists: { roles: true },
    act: (rung, options) => eachRole(rung, options, 'ADD')
  },
  'revoke-roles': {
    plan: 'in that database, for each of the roles: ALTER ROLE … DROP MEMBER',
    options: { database: true }, lists: { roles: true },
    act: (rung, options) => eachRole(rung, options, 'DROP')
  },
  'refuse-logins': {
    plan: 'ALTER LOGIN … DISABLE, then a hash that nobody knows the password of',
    act: refuseLogins
  },
  'end-sessions': {
    plan: 'KILL every session that began with this login, until a look finds none',
    act: endSessions
  },
  'drop-users': {
    plan: 'in every database: what the login’s user owns goes to dbo, then DROP USER',
    act: async ({ link, account, residue }) => {
      const sid = await sidThere(link, account)
      residue.push(...await dropUsers(link, sid, () => keepHold(link, account.name)))
    }
  },
  'drop-login': {
    plan: 'DROP LOGIN; what belongs to the login itself is named; the row in our table says that it is gone',
    act: dropLogin
  }
}

async function sidThere(link: Link, account: MssqlRung['account']): Promise<string> {
  return (await link.login(account.name))?.sid ?? sidOf(account)
}

async function makeUser({ link, account }: MssqlRung, { database = '' }: Options): Promise<void> {
  if (await link.user(database, await sidThere(link, account)) !== undefined) return
  const name = named(account.name)
  await link.inDatabase(database, `CREATE USER ${name} FOR LOGIN ${name}`)
}

async function eachRole(rung: MssqlRung, { database = '' }: Options, word: 'ADD' | 'DROP'): Promise<void> {
  const { link, account } = rung
  const user = await link.user(database, await sidThere(link, account))
  if (user === undefined && word === 'ADD') {
    throw new StepFailed(`${account.name} has no user in the database ${database}`)
  }
  for (const role of user === undefined ? [] : listOf(rung, 'roles')) {
    try {
      await link.inDatabase(database, `ALTER ROLE ${named(role)} ${word} MEMBER ${named(user ?? '')}`)
    } catch (error) {
      if (word === 'ADD' || !isRefused(error, refused.notThere)) throw error
    }
  }
}

async function refuseLogins({ link, account }: MssqlRung): Promise<void> {
  const seen = await link.login(account.name)
  if (seen === undefined) return
  await link.query(`ALTER LOGIN ${named(account.name)} DISABLE`)
  if (seen.kind === 'S') await scramble(link, account.name)
}

/** A hash is taken only without a password policy. */
async function scramble(link: Link, name: string): Promise<void> {
  await link.query(`ALTER LOGIN ${named(name)} WITH CHECK_POLICY = OFF`)
  const nobody = passwordHash(randomBytes(32).toString('base64url'))
  await link.query(`ALTER LOGIN ${named(name)} WITH PASSWORD = ${nobody} HASHED`)
}

async function endSessions(rung: MssqlRung): Promise<void> {
  const { link, account } = rung
  await endUntilNone(rung, async () => {
    const sessions = await link.sessions(account.name)
    if (sessions.length > 0) await keepHold(link, account.name)
    for (const id of sessions) await link.kill(id)
    return sessions.length
  })
}

async function dropLogin({ link, account, residue }: MssqlRung): Promise<void> {
  const seen = await link.login(account.name)
  if (seen !== undefined) {
    residue.push(...await serverEstate(link, seen.sid))
    await link.query(`DROP LOGIN ${named(account.name)}`)
  }
  await link.markGone(account.name)
}

/** What a creation does first to an account that is ours already: somebody may have its password. */
export async function clearAway(rung: MssqlRung): Promise<void> {
  const { link, account } = rung
  await refuseLogins(rung)
  await endSessions(rung)
  await dropUsers(link, await sidThere(link, account), () => keepHold(link, account.name))
  await link.query(`DROP LOGIN ${named(account.name)}`)
}
