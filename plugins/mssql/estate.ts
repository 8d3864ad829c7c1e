// What a login has on a server beside itself: its user in each database, and what that user owns there; the
// databases, jobs and endpoints that belong to the login. Schemas, roles and objects go to dbo, with all that
// is in them, and then the users; what is the login's own stays, is named, and keeps the login from going.
import type { Residue } from '../../src/jit/plugin.ts'
import { isRefused } from '../apart/words.ts'
import { named, refused } from './link.ts'
import type { Link } from './link.ts'

interface Owned {
  kind: string
  /** Of objects; else ''. */
  schema: string
  name: string
}

/** What the user of that SID owns there, `user` for itself. */
async function ownedIn(link: Link, database: string, sid: string): Promise<Owned[]> {
  const at = `${named(database)}.sys`
  const who = (column: string): string => `JOIN ${at}.database_principals p ON p.principal_id = ${column}
    WHERE p.sid = ${sid}`
  const rows = await link.query(`SELECT N'schema', N'', s.name FROM ${at}.schemas s ${who('s.principal_id')}
    UNION ALL SELECT N'role', N'', r.name FROM ${at}.database_principals r ${who('r.owning_principal_id')}
    UNION ALL SELECT N'object', s.name, o.name FROM ${at}.objects o
      JOIN ${at}.schemas s ON s.schema_id = o.schema_id ${who('o.principal_id')}
    UNION ALL SELECT N'user', N'', u.name FROM ${at}.database_principals u WHERE u.sid = ${sid}`)
  return rows.map(([kind, schema, name]) => ({ kind: kind ?? '', schema: schema ?? '', name: name ?? '' }))
}

function residueOf(database: string, { kind, schema, name }: Owned, fate: Residue['fate']): Residue {
  return { kind, name: `database ${database}: ${schema === '' ? name : `${schema}.${name}`}`, fate }
}

const shutOut = (database: string): Residue => (
  { kind: 'database', name: `${database} (could not be looked into)`, fate: 'left' })

/** What is left in databases, without touching it. */
export async function usersLeft(link: Link, sid: string): Promise<Residue[]> {
  const { open, shut } = await link.databases()
  const left = shut.map(shutOut)
  for (const database of open) {
    left.push(...(await ownedIn(link, database, sid)).map(one => residueOf(database, one, 'left')))
  }
  return left
}

/** Databases, jobs and endpoints of the login. */
export async function serverEstate(link: Link, sid: string): Promise<Residue[]> {
  const rows = [
    ...await link.query(`SELECT N'database', name FROM sys.databases WHERE owner_sid = ${sid}`),
    ...await link.rowsUnless(
      `SELECT N'job', name FROM [msdb].[dbo].[sysjobs] WHERE owner_sid = ${sid}`,
      refused.noObject, refused.noRight, refused.noAccess),
    ...await link.query(`SELECT N'endpoint', e.name FROM sys.endpoints e
      JOIN sys.server_principals p ON p.principal_id = e.principal_id WHERE p.sid = ${sid}`)
  ]
  return rows.map(([kind, name]) => (
    { kind: kind ?? '', name: `${name ?? ''} (is the login's)`, fate: 'left' }))
}

/** Hands over what users of that login own, and drops them, in every database. */
export async function dropUsers(link: Link, sid: string, keep: () => Promise<void>): Promise<Residue[]> {
  const { open, shut } = await link.databases()
  const done = shut.map(shutOut)
  for (const database of open) {
    await keep()
    for (const one of await ownedIn(link, database, sid)) {
      await droppedAlready(link.inDatabase(database, handOver(one)))
      if (one.kind !== 'user') done.push(residueOf(database, one, 'reassigned'))
    }
  }
  return done
}

function handOver({ kind, schema, name }: Owned): string {
  switch (kind) {
    case 'user': return `DROP USER ${named(name)}`
    case 'object':
      return `ALTER AUTHORIZATION ON OBJECT::${named(schema)}.${named(name)} TO SCHEMA OWNER`
    default: return `ALTER AUTHORIZATION ON ${kind === 'role' ? 'ROLE' : 'SCHEMA'}::${named(name)} TO [dbo]`
  }
}

async function droppedAlready(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!isRefused(error, refused.notThere)) throw error
  }
}
