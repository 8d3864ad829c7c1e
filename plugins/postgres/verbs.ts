// The rungs of the removal ladder that are more than one statement. A template names them (`do:
// terminate-sessions`), so an admin can read and reorder the ladder; what each does is here. Every rung may
// be repeated: it looks first and does what is left. A rung that fails says so and the ladder stops; the role
// is shut before that (rung one).
import { quoteIdentifier, quoteLiteral } from '../../src/jit/sql-text.ts'
import type { Access, AccountRef, HookContext, Residue } from '../../src/jit/plugin.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { cronLook } from './cron.ts'
import { cleanDatabases, mentionsOf, readMentions } from './estate.ts'
import {
  ensureRole, graveyardRole, isServerError, openLink, preparedOf, roleNumber, sessionsOf, sqlstate
} from './link.ts'
import type { Link, Look, Row } from './link.ts'

export interface Rung {
  link: Link
  access: Access
  account: AccountRef
  context: HookContext
  options: Readonly<Record<string, string>>
  residue: Residue[]
}

/** A rung that could not be done; the account stays, shut, and the rung is tried again later. */
export class RungFailed extends Error {}

interface Verb {
  /** What it does and, in words, what it sends: for `templates plan`. */
  plan: string
  options: readonly string[]
  act(rung: Rung): Promise<void>
}

// Asking for the end again and again makes nothing faster; this is how long the server sleeps between two
// looks.
const pollSeconds = 0.05
// What must be left of the action's time so that the rungs after this one can still run.
const reserveMs = 5000

export const verbs: Readonly<Record<string, Verb>> = {
  'terminate-sessions': {
    plan: 'end every session of the account, by the number of the role (pg_terminate_backend)',
    options: [],
    act: async rung => {
      await endSessions(rung)
    }
  },
  'wait-for-none': {
    plan: 'wait until no session of the account is left, ending those that appear',
    options: [],
    act: waitForNone
  },
  'rollback-prepared': {
    plan: 'roll back every prepared transaction of the account, in its database (ROLLBACK PREPARED)',
    options: [],
    act: rollBackPrepared
  },
  'reset-settings': {
    plan: 'take away settings of the account, everywhere and in each database (ALTER ROLE … RESET ALL)',
    options: [],
    act: resetSettings
  },
  'clean-databases': {
    plan: 'in every database that mentions the account: drop its SECURITY DEFINER functions, REASSIGN OWNED '
      + 'to the role in `owner`, DROP OWNED',
    options: ['owner'],
    act: clean
  },
  'drop-role': {
    plan: 'DROP ROLE, listing what stands in the way',
    options: [],
    act: dropRole
  }
}

/** Ends the account's sessions once; answers how many there were. */
export async function endSessions(rung: Rung): Promise<number> {
  const { link, account, residue } = rung
  const also = [sessionsOf(account.name)]
  const end = (look: Look, found?: readonly Row[]): Promise<number> =>
    endOnce(link, look, found?.length ?? 0, residue)
  try {
    return await link.fenced(account, end, { also })
  } catch (error) {
    if (!isServerError(error, sqlstate.insufficientPrivilege)) throw error
    // Members of a role may end its sessions. The membership lasts for this transaction and is rolled back.
    return await link.fenced(account, async (look, found) => {
      await join(link, account.name)
      return await end(look, found)
    }, { keep: false, also })
  }
}

async function endOnce(
  link: Link, { oid, hasReplication }: Look, sessions: number, residue: Residue[]
): Promise<number> {
  if (oid === undefined) return 0
  if (sessions > 0 || hasReplication) await nameSlots(link, oid, hasReplication, residue)
  if (sessions > 0) {
    link.send(`SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL) WHERE usesysid = ${oid}`)
  }
  return sessions
}

/** A slot does not say who made it, and dropping somebody else's would lose their data: it is named. */
async function nameSlots(
  link: Link, oid: string, hasReplication: boolean, residue: Residue[]
): Promise<void> {
  const slots = await link.query(`
    SELECT s.slot_name FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
    WHERE NOT s.temporary AND (a.usesysid = $1::oid OR (a.pid IS NULL AND $2::boolean))`,
  [oid, String(hasReplication)])
  residue.push(
    ...slots.map(([name]) => ({ kind: 'replication-slot', name: name ?? '', fate: 'left' } as const))
  )
}

async function waitForNone(rung: Rung): Promise<void> {
  for (;;) {
    const left = await endSessions(rung)
    if (left === 0) return
    if (rung.context.remainingMs() < reserveMs) throw new RungFailed(`${left} sessions are still alive`)
    await rung.link.query('SELECT pg_sleep($1::float8)', [String(pollSeconds)])
  }
}

/**
 * Only who prepared it may roll it back, so for each we become the account for a moment; superusers need not.
 */
export async function rollBackPrepared({ link, access, account, context, residue }: Rung): Promise<void> {
  const [rows = []] = await link.batch([preparedOf(account.name)])
  if (rows.length === 0) return
  const joined = await link.fenced(account, () => join(link, account.name))
  for (const [gid, database] of rows) {
    const there = await openLink(access, context, { database: database ?? undefined })
    try {
      if (!link.superuser) await there.query(`SET ROLE ${quoteIdentifier(account.name)}`)
      await there.query(`ROLLBACK PREPARED ${quoteLiteral(gid ?? '')}`)
      residue.push(
        { kind: 'prepared-transaction', name: `database ${database ?? ''}: ${gid ?? ''}`, fate: 'removed' }
      )
    } catch (error) {
      if (!isServerError(error, sqlstate.undefinedObject)) throw error
    } finally {
      await there.close()
    }
  }
  if (joined) {
    await link.fenced(account, () => link.query(`REVOKE ${quoteIdentifier(account.name)} FROM CURRENT_USER`))
  }
}

async function resetSettings({ link, account, residue }: Rung): Promise<void> {
  const settings = `
    SELECT d.datname, array_to_string(s.setconfig, ', ') FROM pg_db_role_setting s
      JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE r.rolname = $1::text`
  await link.fenced(account, async () => {
    for (const [database, values] of await link.query(settings, [account.name])) {
      const place = typeof database === 'string' ? ` IN DATABASE ${quoteIdentifier(database)}` : ''
      await link.query(`ALTER ROLE ${quoteIdentifier(account.name)}${place} RESET ALL`)
      residue.push({ kind: 'setting', name: `${whereOf(database)}${values ?? ''}`, fate: 'removed' })
    }
    // Settings that only a superuser may take away stay, without an error.
    for (const [database, values] of await link.query(settings, [account.name])) {
      residue.push({ kind: 'setting', name: `${whereOf(database)}${values ?? ''}`, fate: 'left' })
    }
  })
}

function whereOf(database: string | null | undefined): string {
  return typeof database === 'string' ? `database ${database}: ` : ''
}

async function clean({ link, access, account, context, options, residue }: Rung): Promise<void> {
  const owner = options['owner'] ?? graveyardRole
  const { look, mentioned, wards } = await link.fenced(account,
    async (seen, found = [], handed = [], cron = []) =>
      ({ look: seen, mentioned: found.length > 0 || cron[0]?.[0] === 't', wards: handed }),
    { also: [mentionsOf(account.name), wardsOf(account.name), cronLook] })
  if (look.oid === undefined) return
  residue.push(...wards.map(([name]) =>
    ({ kind: 'role', name: `${name ?? ''} (the account could hand it out)`, fate: 'left' } as const)))
  if (!mentioned) return
  if (owner === graveyardRole && !look.graveyardExists) await ensureRole(link, graveyardRole)
  await link.fenced(account, async () => {
    await join(link, account.name)
    await join(link, owner)
  })
  residue.push(...await cleanDatabases(link, access, context, { name: account.name, oid: look.oid }, owner))
}

/** Roles that the account may hand out to others: from 16 on that is what is left of making one. */
function wardsOf(name: string): Statement {
  return {
    sql: `SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
      WHERE m.member = ${roleNumber} AND m.admin_option`,
    values: [name]
  }
}

async function dropRole({ link, account, residue }: Rung): Promise<void> {
  try {
    await link.fenced(account, async ({ oid }) => {
      if (oid !== undefined) link.send(`DROP ROLE ${quoteIdentifier(account.name)}`)
    })
  } catch (error) {
    if (!isServerError(error, sqlstate.dependentObjects)) throw error
    const [rows] = await link.batch([mentionsOf(account.name)])
    residue.push(...readMentions(rows))
    throw new RungFailed(`${error.message}${error.detail === undefined ? '' : `: ${error.detail}`}`)
  }
}

/**
 * Makes the hook's login a member of `role`, with its rights; true when it was none. Superusers need not be.
 */
async function join(link: Link, role: string): Promise<boolean> {
  const { superuser, majorVersion } = link
  if (superuser) return false
  // From 16 on each grantor's grant stands for itself, and ours is the one with our options.
  const ours = majorVersion >= 16 ? 'AND m.grantor = u.oid AND m.inherit_option AND m.set_option' : ''
  const known = await link.query(`
    SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
    WHERE u.rolname = current_user AND g.rolname = $1::text ${ours}`, [role])
  if (known.length > 0) return false
  const options = majorVersion >= 16 ? ' WITH INHERIT TRUE, SET TRUE' : ''
  await link.query(`GRANT ${quoteIdentifier(role)} TO CURRENT_USER${options}`)
  return true
}
