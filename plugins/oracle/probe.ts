// What the hooks' login lacks on an Oracle database: rights from the session's own views, views of the
// catalogue by trying them, each named with the statement that gives it.
import type { Access, HookContext, Probe, Variables } from '../../src/jit/plugin.ts'
import { reading, trustWarnings } from '../reach.ts'
import { isRefused } from '../apart/words.ts'
import { folded, named, openLink, ownProfile } from './link.ts'
import type { Connect, Link } from './link.ts'

const wanted: readonly (readonly [string, string])[] = [
  ['CREATE TABLE', 'keep its own table (with a quota on its tablespace)'], ['CREATE USER', 'make accounts'],
  ['ALTER USER', 'lock accounts'], ['DROP USER', 'remove accounts'],
  ['ALTER SYSTEM', 'end sessions of others']
]
/** Views, and what they are granted as. */
const catalogue: readonly (readonly [string, string])[] = [
  ['dba_users', 'dba_users'], ['dba_role_privs', 'dba_role_privs'], ['dba_objects', 'dba_objects'],
  ['dba_profiles', 'dba_profiles'], ['gv$session', 'gv_$session']
]

export function probeWith(connect: Connect) {
  return async (access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> =>
    await reading(await openLink(connect, access, context), access, async link => {
      const me = named(access.username)
      const roles = Array.isArray(variables['roles']) ? variables['roles'].map(String) : []
      return {
        version: link.version,
        missingRights: [
          ...await rights(link, me), ...await views(link, me), ...await grants(link, me, roles)
        ],
        warnings: [
          ...trustWarnings(access), 'ALTER USER reaches every account, also SYSTEM: guard this login'
        ]
      }
    })
}

async function rights(link: Link, me: string): Promise<string[]> {
  const has = (await link.query('SELECT privilege FROM session_privs')).map(([right]) => right)
  return wanted.filter(([right]) => !has.includes(right))
    .map(([right, purpose]) => `cannot ${purpose}: GRANT ${right} TO ${me}`)
}

async function views(link: Link, me: string): Promise<string[]> {
  const missing: string[] = []
  for (const [view, granted] of catalogue) {
    try {
      const [row] = await link.query(view === 'dba_profiles'
        ? `SELECT COUNT(*) FROM dba_profiles WHERE profile = '${ownProfile}'`
        : `SELECT COUNT(*) FROM ${view} WHERE 1 = 0`)
      if (view === 'dba_profiles' && row?.[0] === '0') {
        missing.push(`no profile marks our accounts: CREATE PROFILE ${ownProfile.toLowerCase()} LIMIT `
          + 'FAILED_LOGIN_ATTEMPTS UNLIMITED PASSWORD_LIFE_TIME UNLIMITED')
      }
    } catch (error) {
      if (!isRefused(error)) throw error
      missing.push(`cannot read ${view}: GRANT SELECT ON sys.${granted} TO ${me}`)
    }
  }
  return missing
}

async function grants(link: Link, me: string, roles: readonly string[]): Promise<string[]> {
  const rows = await link.query(`SELECT granted_role FROM user_role_privs WHERE admin_option = 'YES'
    UNION ALL SELECT privilege FROM user_sys_privs WHERE admin_option = 'YES'`)
  const has = rows.map(([granted]) => granted)
  const missing = has.includes('CREATE SESSION')
    ? []
    : [`cannot let accounts in: GRANT CREATE SESSION TO ${me} WITH ADMIN OPTION`]
  for (const role of roles) {
    if (has.includes(folded(role))) continue
    missing.push(`cannot hand out the role ${role}: GRANT ${named(role)} TO ${me} WITH ADMIN OPTION`)
  }
  return missing
}
