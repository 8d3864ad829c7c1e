// What the hooks' login lacks on a MariaDB or MySQL server: each right is tried where a try changes nothing,
// else read from the grants that the server shows, and named with the statement that gives it.
import type { Access, HookContext, Probe, Variables } from '../../src/jit/plugin.ts'
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import { reading, trustWarnings } from '../reach.ts'
import { accountText, isRefused, openLink, ownSchema, quoted } from './link.ts'
import type { Link } from './link.ts'

interface Findings {
  missingRights: string[]
  warnings: string[]
}

/** Global rights: what each is for. */
const wanted: readonly (readonly [RegExp, string, string])[] = [
  [/\bCREATE USER\b/, 'CREATE USER', 'make and remove accounts'],
  [/\bPROCESS\b/, 'PROCESS', 'see sessions of others'],
  [/\b(?:CONNECTION ADMIN|CONNECTION_ADMIN|SUPER)\b/, 'CONNECTION ADMIN', 'end sessions of others'],
  [/\bSHOW VIEW\b/, 'SHOW VIEW', 'see which views an account leaves'],
  [/\bTRIGGER\b/, 'TRIGGER', 'see which triggers an account leaves']
]

export async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  return await reading(await openLink(access, context), access, async link => {
    const found = { version: link.version, missingRights: [], warnings: trustWarnings(access) }
    const rows = await link.query('SHOW GRANTS FOR CURRENT_USER()')
    const [[current] = []] = await link.query('SELECT CURRENT_USER()')
    const [name = '', host = '%'] = splitPrincipal(current ?? '')
    const me = accountText(name, host)
    const grants = rows.map(([grant]) => grant ?? '')
    judgeGlobal(grants, me, found)
    await judgeCatalogue(link, me, found)
    judgeSchema(grants, me, found)
    const roles = Array.isArray(variables['roles']) ? variables['roles'].map(String) : []
    judgeRoles(link, grants, roles, me, found)
    await judgeServer(link, found)
    return found
  })
}

function splitPrincipal(principal: string): [string, string] {
  const at = principal.lastIndexOf('@')
  return [principal.slice(0, at), principal.slice(at + 1)]
}

/** The part of each grant that names rights on everything. */
function globalRights(grants: readonly string[]): string {
  return grants.filter(grant => /\bON \*\.\*/.test(grant)).join('\n')
}

function judgeGlobal(grants: readonly string[], me: string, { missingRights, warnings }: Findings): void {
  const rights = globalRights(grants)
  if (/\bALL PRIVILEGES\b/.test(rights)) {
    warnings.push('the login of the hooks may do everything; see plugins/README.md for what is enough')
    return
  }
  for (const [form, right, purpose] of wanted) {
    if (!form.test(rights)) missingRights.push(`cannot ${purpose}: GRANT ${right} ON *.* TO ${me}`)
  }
  warnings.push('CREATE USER reaches every account, also root: guard this login as you guard the server')
}

async function judgeCatalogue(link: Link, me: string, { missingRights }: Findings): Promise<void> {
  const { isMariadb } = link.dialect
  const tables = isMariadb ? ['global_priv', 'roles_mapping', 'proc', 'event'] : ['user', 'role_edges']
  for (const table of tables) {
    try {
      await link.query(`SELECT COUNT(*) FROM "mysql"."${table}"`)
    } catch (error) {
      if (!isRefused(error)) throw error
      missingRights.push(`cannot read mysql.${table}: GRANT SELECT ON "mysql"."${table}" TO ${me}`)
    }
  }
}

function judgeSchema(grants: readonly string[], me: string, { missingRights }: Findings): void {
  const all = /\bALL PRIVILEGES\b/
  const own = grants.some(grant => all.test(grant) && grant.includes(`ON "${ownSchema}".*`))
  if (own || all.test(globalRights(grants))) return
  missingRights.push(`cannot keep its own table: GRANT ALL ON "${ownSchema}".* TO ${me}`)
}

function judgeRoles(
  link: Link, grants: readonly string[], roles: readonly string[], me: string, { missingRights }: Findings
): void {
  for (const role of roles) {
    const named = (grant: string): boolean => grant.includes(quoteIdentifier(role))
    if (grants.some(grant => named(grant) && / WITH ADMIN OPTION$/.test(grant))) continue
    missingRights.push(
      `cannot hand out the role ${role}: GRANT ${quoteIdentifier(role)} TO ${me} WITH ADMIN OPTION`)
  }
  const update = grants.some(grant =>
    /\b(?:UPDATE|ALL PRIVILEGES)\b.* ON (?:["`]mysql["`]\.\*|\*\.\*)/.test(grant))
  if (roles.length > 0 && link.dialect.isMariadb && !update) {
    missingRights.push(`cannot make a role active at login: GRANT UPDATE ON "mysql".* TO ${me}`)
  }
}

async function judgeServer(link: Link, { warnings }: Findings): Promise<void> {
  const [row] = await link.query(`SELECT @@event_scheduler,
    (SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME = ${quoted('mysql_native_password')}
      AND PLUGIN_STATUS = ${quoted('ACTIVE')})`)
  const [scheduler, native] = row ?? []
  if (scheduler !== 'ON') {
    warnings.push('event_scheduler is off: no account is locked at its deadline if all of us are gone')
  }
  if (native !== '1') warnings.push('mysql_native_password is not active: accounts could not log in')
}
