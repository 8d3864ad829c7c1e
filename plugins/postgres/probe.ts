// What the hook's login lacks on a target, found before the first session needs it: one sentence for each
// missing right with the statement that grants it, and warnings about set-ups that work and are weaker than
// they look. Reads only. PostgreSQL 16 changed what CREATEROLE means, so the answers differ by version.
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import type { Access, HookContext, Probe, Variables } from '../../src/jit/plugin.ts'
import { graveyardRole, markerRole, openLink } from './link.ts'
import type { Link } from './link.ts'

/** From here on CREATEROLE reaches only roles over which one has ADMIN OPTION. */
const adminOptionVersion = 16

const hostRoles = ['pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files']

interface Login {
  name: string
  superuser: boolean
  createRole: boolean
  inherits: boolean
  version: number
}

export async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  const link = await openLink(access, context)
  try {
    const { login, version } = await readLogin(link)
    const found: Probe & { missingRights: string[], warnings: string[] } = {
      version, missingRights: [], warnings: []
    }
    judgeLogin(login, found)
    const roles = Array.isArray(variables['roles']) ? variables['roles'].map(String) : []
    for (const role of roles) await judgeRole(link, login, role, found)
    const account = variables['username']
    if (typeof account === 'string') await judgeAccount(link, login, account, found)
    for (const role of [markerRole, graveyardRole]) await judgeOwnRole(link, login, role, found)
    await judgeSignals(link, login, found)
    await judgeDatabases(link, login, found)
    const { tls, host } = access.target
    const local = host === 'localhost' || host.startsWith('127.') || host === '::1' || host.startsWith('/')
    if (!local && (tls.mode === 'disable' || (tls.mode === 'require' && tls.ca === undefined))) {
      found.warnings.push(
        `tls ${tls.mode}: somebody between us and the target could take its place; use verify-full`
      )
    }
    return found
  } finally {
    await link.close()
  }
}

interface Findings {
  missingRights: string[]
  warnings: string[]
}

async function readLogin(link: Link): Promise<{ login: Login, version: string }> {
  const [row] = await link.query(`
    SELECT rolname, rolsuper, rolcreaterole, rolinherit, current_setting('server_version_num'),
      current_setting('server_version') FROM pg_roles WHERE rolname = current_user`)
  const [name, superuser, createRole, inherits, number, version] = row ?? []
  return {
    login: {
      name: name ?? '',
      superuser: superuser === 't',
      createRole: createRole === 't',
      inherits: inherits === 't',
      version: Math.floor(Number(number) / 10_000)
    },
    version: version ?? ''
  }
}

function judgeLogin(
  { name, superuser, createRole, inherits, version }: Login, { missingRights, warnings }: Findings
): void {
  const role = quoteIdentifier(name)
  if (superuser) {
    warnings.push(`${name} is a superuser; CREATEROLE is enough: ALTER ROLE ${role} NOSUPERUSER CREATEROLE`)
    return
  }
  if (!createRole) missingRights.push(`${name} may not make roles: ALTER ROLE ${role} CREATEROLE`)
  if (!inherits && version < adminOptionVersion) {
    missingRights.push(`${name} does not inherit the rights of its roles: ALTER ROLE ${role} INHERIT`)
  }
  if (createRole && version < adminOptionVersion) {
    warnings.push('before PostgreSQL 16 CREATEROLE is nearly a superuser (it can hand out '
      + 'pg_execute_server_program): '
      + `guard the credential of ${name} as you guard the target's host`)
  }
}

async function judgeRole(
  link: Link, login: Login, role: string, { missingRights, warnings }: Findings
): Promise<void> {
  const [row] = await link.query(`
    SELECT rolsuper, rolcreaterole, pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')
    FROM pg_roles WHERE rolname = $1::text`, [role])
  if (row === undefined) {
    const admin = login.version >= adminOptionVersion ? ` ADMIN ${quoteIdentifier(login.name)}` : ''
    missingRights.push(
      `the role ${role} does not exist: CREATE ROLE ${quoteIdentifier(role)} NOLOGIN${admin}`
    )
    return
  }
  const [superuser, createRole, admin] = row
  const grant = `GRANT ${quoteIdentifier(role)} TO ${quoteIdentifier(login.name)} WITH ADMIN OPTION`
  if (admin !== 't' && !login.superuser && (login.version >= adminOptionVersion || superuser === 't')) {
    missingRights.push(`${login.name} may not hand out the role ${role}: ${grant}`)
  }
  if (superuser === 't') {
    warnings.push(`the role ${role} is a superuser: its sessions can undo everything that we do`)
  }
  if (createRole === 't') {
    warnings.push(`the role ${role} may make roles: what its sessions make is not removed with them`)
  }
  if (hostRoles.includes(role)) {
    warnings.push(`the role ${role} reaches files or programs of the target's host`)
  }
}

/** An existing account, which is to be switched on and off. */
async function judgeAccount(
  link: Link, login: Login, name: string, { missingRights }: Findings
): Promise<void> {
  const [row] = await link.query(`
    SELECT rolsuper, pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')
    FROM pg_roles WHERE rolname = $1::text`, [name])
  const [superuser, admin] = row ?? []
  if (row === undefined) {
    missingRights.push(`the account ${name} does not exist: CREATE ROLE ${quoteIdentifier(name)} NOLOGIN`)
  } else if (superuser === 't' && !login.superuser) {
    missingRights.push(`${name} is a superuser, which only superusers may alter`)
  } else if (admin !== 't' && !login.superuser && login.version >= adminOptionVersion) {
    missingRights.push(`${login.name} may not alter the account ${name}: `
      + `GRANT ${quoteIdentifier(name)} TO ${quoteIdentifier(login.name)} WITH ADMIN OPTION`)
  }
}

/** Roles of our own are made at first use; one that is there must be ours to give. */
async function judgeOwnRole(
  link: Link, login: Login, role: string, { missingRights, warnings }: Findings
): Promise<void> {
  const [row] = await link.query(`
    SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid),
      pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')
    FROM pg_roles r WHERE rolname = $1::text`, [role])
  if (row === undefined || login.superuser) return
  const [strong, admin] = row
  if (admin !== 't' && login.version >= adminOptionVersion) {
    missingRights.push(`${login.name} may not hand out the role ${role}: `
      + `GRANT ${quoteIdentifier(role)} TO ${quoteIdentifier(login.name)} WITH ADMIN OPTION`)
  }
  if (strong === 't') warnings.push(`the role ${role} has rights or can log in; it should have none`)
}

async function judgeSignals(link: Link, login: Login, { warnings }: Findings): Promise<void> {
  const [row] = await link.query("SELECT pg_has_role(current_user, 'pg_signal_backend', 'USAGE')")
  if (row?.[0] === 't' || login.superuser) return
  warnings.push(`${login.name} cannot end sessions of others that hold up a removal: `
    + `GRANT pg_signal_backend TO ${quoteIdentifier(login.name)}`)
}

async function judgeDatabases(
  link: Link, login: Login, { missingRights, warnings }: Findings
): Promise<void> {
  const rows = await link.query(`
    SELECT datname FROM pg_database
    WHERE datallowconn AND NOT has_database_privilege(current_user, oid, 'CONNECT') ORDER BY 1`)
  for (const [name] of rows) {
    missingRights.push(`${login.name} cannot connect to the database ${name ?? ''} to clean it: `
      + `GRANT CONNECT ON DATABASE ${quoteIdentifier(name ?? '')} TO ${quoteIdentifier(login.name)}`)
  }
  const [prepared] = await link.query("SELECT current_setting('max_prepared_transactions')::int > 0")
  if (prepared?.[0] === 't') {
    warnings.push(
      'max_prepared_transactions is not 0: accounts can leave prepared transactions, which removals roll back'
    )
  }
}
