// The look at an account: whether it is there, can be used, is ours, who is logged in, what it left. One
// round trip, under the account's lock, so that it waits for an action that is under way instead of missing
// what that is about to commit. Everything is asked by name, since nobody knows the role's number before.
import type { AccountRef, Pinned, Residue, Verified } from '../../src/jit/plugin.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { mentionsOf, readMentions } from './estate.ts'
import { preparedOf, readLook, roleNumber, sessionsOf } from './link.ts'
import type { Link, Row } from './link.ts'

/** How the account stands, over a link that is open. Reads only, in one round trip. */
export async function seenNow(link: Link, account: AccountRef, pinned?: Pinned): Promise<Verified> {
  const { name } = account
  const [seen, prepared, sessions, mentioned, strays, roles] = await link.looks(name, [
    link.lookOf(name), preparedOf(name), sessionsOf(name), mentionsOf(name), { sql: straysSql },
    rolesOf(name, pinned)
  ])
  const { oid, canLogin, accountId, epoch } = readLook(seen)
  if (oid === undefined) {
    return { exists: false, enabled: false, ours: false, sessions: 0, residue: straysFrom(strays) }
  }
  const privileges = pinned?.template.proof === 'privileges'
  const residue = pendingOf(prepared)
  // What a removal could not take away; a live account's things are nobody's residue yet.
  if (account.kind === 'create' && !canLogin) residue.push(...readMentions(mentioned))
  return {
    exists: true, enabled: privileges ? (roles ?? []).length > 0 : canLogin,
    ours: accountId === account.accountId, epoch, sessions: (sessions ?? []).length, residue
  }
}

/** Those of the roles to be given that the account has. */
function rolesOf(name: string, pinned: Pinned | undefined): Statement {
  const roles = pinned?.variables['roles'] ?? pinned?.template.variables['roles']?.default
  const names = Array.isArray(roles) ? roles.map(String) : []
  return {
    sql: `SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
      WHERE m.member = ${roleNumber}
        AND g.rolname = ANY (SELECT jsonb_array_elements_text($2::jsonb))`,
    values: [name, JSON.stringify(names)]
  }
}

/** Prepared transactions outlive sessions. */
function pendingOf(rows: readonly Row[] = []): Residue[] {
  return rows.map(([gid, database]) =>
    ({ kind: 'prepared-transaction', name: `database ${database ?? ''}: ${gid ?? ''}`, fate: 'left' }))
}

/**
 * Sessions whose role is gone: somebody dropped a role under them. Whose they were, the server has forgotten,
 * and then says the number in the place of a name (a name that looks like one would be in quotes). Read on
 * connections that are new, where each catalogue that a statement mentions is opened first.
 */
export const straysSql = `
  SELECT pid FROM pg_stat_get_activity(NULL) WHERE usesysid <> 0 AND usesysid::regrole::text = usesysid::text`

export function straysFrom(rows: readonly Row[] = []): Residue[] {
  return rows.map(
    ([pid]) => ({ kind: 'session', name: `pid ${pid ?? ''} of a role that was dropped`, fate: 'left' })
  )
}
