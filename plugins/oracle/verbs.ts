// What the steps of an Oracle template can do beside SQL. A lock refuses logins and ends nothing; a user
// that is connected cannot be dropped, and one that owns something goes only with all of it (CASCADE):
// whether that may happen is the template's to say.
import { randomBytes } from 'node:crypto'
import type { Residue } from '../../src/jit/plugin.ts'
import { keepHold } from '../books.ts'
import { endUntilNone, listOf } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { isRefused } from '../apart/words.ts'
import { named, passwordVerifier, refused } from './link.ts'
import type { Link } from './link.ts'

export interface OracleRung extends Rung {
  link: Link
}

export const verbs: Verbs<OracleRung> = {
  'grant-roles': {
    plan: 'GRANT each of the roles',
    lists: { roles: true },
    act: async ({ link, account, ...rung }) => {
      for (const role of listOf(rung, 'roles')) {
        await link.query(`GRANT ${named(role)} TO ${named(account.name)}`)
      }
    }
  },
  'revoke-roles': {
    plan: 'REVOKE each of the roles',
    lists: { roles: true },
    act: revokeRoles
  },
  'refuse-logins': {
    plan: 'ALTER USER … ACCOUNT LOCK, then a verifier that nobody knows the password of',
    act: refuseLogins
  },
  'end-sessions': {
    plan: 'ALTER SYSTEM DISCONNECT SESSION (KILL on other instances) … IMMEDIATE, until a look finds none',
    act: endSessions
  },
  'drop-user': {
    plan: 'DROP USER; with `cascade: yes` and all that it owns; the row in our table says that it is gone',
    options: { cascade: false },
    act: dropUser
  }
}

async function revokeRoles(rung: OracleRung): Promise<void> {
  const { link, account } = rung
  for (const role of listOf(rung, 'roles')) {
    try {
      await link.query(`REVOKE ${named(role)} FROM ${named(account.name)}`)
    } catch (error) {
      if (!isRefused(error, refused.notGranted, refused.noUser)) throw error
    }
  }
}

async function refuseLogins({ link, account }: OracleRung): Promise<void> {
  if (await link.user(account.name) === undefined) return
  await link.query(`ALTER USER ${named(account.name)} ACCOUNT LOCK`)
  const nobody = await passwordVerifier(randomBytes(18).toString('base64url'))
  // The lock is what counts: a server that takes no verifiers keeps the old one.
  await link.rowsUnless(
    refused.badVerifier, `ALTER USER ${named(account.name)} IDENTIFIED BY VALUES '${nobody}'`)
}

async function endSessions(rung: OracleRung): Promise<void> {
  const { link, account } = rung
  await endUntilNone(rung, async () => {
    const sessions = await link.sessions(account.name)
    if (sessions.length > 0) await keepHold(link, account.name)
    for (const session of sessions) await link.end(session)
    return sessions.length
  })
}

export async function estateOf(link: Link, name: string, fate: Residue['fate']): Promise<Residue[]> {
  return (await link.estate(name)).map(([kind, object]) => ({ kind, name: `${name}: ${object}`, fate }))
}

async function dropUser(
  { link, account, residue }: OracleRung, { cascade }: Readonly<Record<string, string>>
): Promise<void> {
  const isCascade = cascade === 'yes'
  if (await link.user(account.name) !== undefined) {
    const owned = await estateOf(link, account.name, isCascade ? 'removed' : 'left')
    if (!isCascade) residue.push(...owned)
    await link.query(`DROP USER ${named(account.name)}${isCascade ? ' CASCADE' : ''}`)
    if (isCascade) residue.push(...owned)
  }
  await link.markGone(account.name)
}

/** What a creation does first to an account that is ours already: somebody may have its password. */
export async function clearAway(rung: OracleRung): Promise<void> {
  await refuseLogins(rung)
  await endSessions(rung)
  await rung.link.query(`DROP USER ${named(rung.account.name)}`)
}
