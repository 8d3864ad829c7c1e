// What the hooks' login lacks on a SQL Server: each right is asked for by the server's own function, and
// named with the statement that gives it.
import type { Access, HookContext, Probe, Variables } from '../../src/jit/plugin.ts'
import { reading, trustWarnings } from '../reach.ts'
import { named, openLink, ownDatabase, quoted } from './link.ts'
import type { Link } from './link.ts'

/** Rights on the server: what each is for. */
const wanted: readonly (readonly [string, string])[] = [
  ['ALTER ANY LOGIN', 'make and remove logins'],
  ['ALTER ANY CONNECTION', 'end sessions of others'],
  ['VIEW SERVER STATE', 'see sessions of others'],
  ['VIEW ANY DEFINITION', 'see what a login owns'],
  ['CONNECT ANY DATABASE', 'look for its users in every database']
]

export async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  return await reading(await openLink(access, context), access, async link => {
    const me = named(access.username)
    const missingRights: string[] = []
    const warnings = trustWarnings(access)
    for (const [right, purpose] of wanted) {
      if (await has(link, 'NULL', 'NULL', right)) continue
      missingRights.push(`cannot ${purpose}: GRANT ${right} TO ${me}`)
    }
    const database = typeof variables['database'] === 'string' ? variables['database'] : undefined
    for (const [name, purpose] of [
      [ownDatabase, 'keep its own table'], [database, 'make users and hand over what they own']
    ] as const) {
      if (name === undefined || await has(link, quoted(named(name)), "N'DATABASE'", 'CONTROL')) continue
      const first = name === ownDatabase ? `CREATE DATABASE ${named(name)}, if it is missing; ` : ''
      missingRights.push(`cannot ${purpose} in ${name}: ${first}USE ${named(name)}; `
        + `CREATE USER ${me} FOR LOGIN ${me}; ALTER ROLE [db_owner] ADD MEMBER ${me}`)
    }
    warnings.push(...await judgeServer(link))
    return { version: link.version, missingRights, warnings }
  })
}

async function has(link: Link, what: string, kind: string, right: string): Promise<boolean> {
  const [row] = await link.query(
    `SELECT CONVERT(nvarchar(1), HAS_PERMS_BY_NAME(${what}, ${kind}, ${quoted(right)}))`)
  return row?.[0] === '1'
}

async function judgeServer(link: Link): Promise<string[]> {
  const [row] = await link.query(`SELECT CONVERT(nvarchar(1), SERVERPROPERTY('IsIntegratedSecurityOnly')),
    CONVERT(nvarchar(1), IS_SRVROLEMEMBER(N'sysadmin'))`)
  const warnings = ['ALTER ANY LOGIN reaches every login but sysadmins: guard this one like the server']
  if (row?.[0] === '1') warnings.push('only Windows logins are let in here: accounts could not log in')
  if (row?.[1] === '1') {
    warnings.push('the login of the hooks is a sysadmin; see plugins/README.md for what is enough')
  }
  return warnings
}
