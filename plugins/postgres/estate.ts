// What an account leaves behind, and what becomes of it. Data goes to the owner that the template names (by
// default a role without any rights), code that would run with that owner's rights is dropped, privileges are
// dropped. Done in every database in which the server itself says that the role is mentioned (pg_shdepend):
// DROP ROLE looks there too, so nothing is missed. Where something cannot be cleaned it is listed as left,
// and the role stays, shut.
import { SallyportError } from '../../src/errors.ts'
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import type { Access, HookContext, Residue } from '../../src/jit/plugin.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { cronDatabase, cronIsHere, unschedule } from './cron.ts'
import { isServerError, openLink, roleNumber, sqlstate } from './link.ts'
import type { Link, Row } from './link.ts'

export interface Role {
  name: string
  oid: string
}

interface Database {
  name: string
  reachable: boolean
  /** pg_cron keeps its jobs there. */
  cron: boolean
}

// A receipt is read by people: what is beyond this is counted.
const listedMax = 200
// Objects may depend on each other; each pass drops those that nothing needs any more.
const passesMax = 5

/**
 * Kinds that are code or set-up, not data, with the word that DROP wants: dropped where they cannot change
 * hands. Names are those of pg_identify_object.
 */
const droppable: Readonly<Record<string, string>> = {
  'function': 'ROUTINE', 'procedure': 'ROUTINE', 'aggregate': 'ROUTINE', 'window function': 'ROUTINE',
  'operator': 'OPERATOR', 'operator class': 'OPERATOR CLASS', 'operator family': 'OPERATOR FAMILY',
  'collation': 'COLLATION', 'conversion': 'CONVERSION', 'statistics object': 'STATISTICS',
  'text search dictionary': 'TEXT SEARCH DICTIONARY',
  'text search configuration': 'TEXT SEARCH CONFIGURATION',
  'publication': 'PUBLICATION', 'subscription': 'SUBSCRIPTION', 'event trigger': 'EVENT TRIGGER',
  'server': 'SERVER', 'foreign-data wrapper': 'FOREIGN DATA WRAPPER', 'language': 'LANGUAGE'
}

/** Kinds that go on acting by themselves, whoever owns them: dropped first. */
const alive = ['subscription', 'event trigger']

/** DROP OWNED takes these; they cannot change hands. */
const personal = ['default acl', 'user mapping', 'policy']

interface Thing {
  kind: string
  /** Quoted, as a statement takes it. */
  identity: string
  /** For people. */
  name: string
}

/** Cleans every database that mentions the role. `owner` gets the data. */
export async function cleanDatabases(
  main: Link, access: Access, context: HookContext, role: Role, owner: string
): Promise<Residue[]> {
  const residue: Residue[] = []
  for (const { name, reachable, cron } of await databasesOf(main, role)) {
    if (!reachable) {
      residue.push({ kind: 'database', name: `database ${name}: takes no connections`, fate: 'left' })
      continue
    }
    const link = name === main.database ? main : await enter(access, context, name)
    if (link === undefined) {
      residue.push({ kind: 'database', name: `database ${name}: our login may not connect`, fate: 'left' })
      continue
    }
    try {
      if (cron) residue.push(...await unschedule(link, role.name))
      residue.push(...await cleanDatabase(link, role, owner))
    } finally {
      if (link !== main) await link.close()
    }
  }
  return residue
}

/** Undefined when the target does not let us into that database. */
async function enter(access: Access, context: HookContext, database: string): Promise<Link | undefined> {
  try {
    return await openLink(access, context, { database })
  } catch (error) {
    if (error instanceof SallyportError && error.code === 'target-refused') return undefined
    throw error
  }
}

/**
 * Databases in which the server's own list mentions the role, and the one of pg_cron. What belongs to no
 * database is cleaned from `main`, at the end; subscriptions do not either, but can be dropped only where
 * they were made.
 */
async function databasesOf(main: Link, { oid }: Role): Promise<Database[]> {
  const rows = await main.query(`
    SELECT coalesce(d.datname, current_database()) AS name, coalesce(d.datallowconn, true),
      CASE WHEN coalesce(d.datname, current_database()) = current_database() THEN ${cronIsHere}
        ELSE d.datname = ${cronDatabase} END
    FROM (SELECT dbid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1::oid
      UNION SELECT subdbid FROM pg_subscription WHERE subowner = $1::oid
      UNION SELECT oid FROM pg_database WHERE datname = ${cronDatabase}
      UNION SELECT oid FROM pg_database WHERE datname = current_database() AND ${cronIsHere}) s
      LEFT JOIN pg_database d ON d.oid = s.dbid
    GROUP BY 1, 2, 3 ORDER BY coalesce(d.datname, current_database()) = current_database(), 1`, [oid])
  return rows.map(([name, reachable, cron]) => ({
    name: name ?? '', reachable: reachable === 't', cron: cron === 't'
  }))
}

async function cleanDatabase(link: Link, role: Role, owner: string): Promise<Residue[]> {
  const residue = await disarm(link, role)
  residue.push(...await trapsOf(link, role))
  residue.push(...await dropKinds(link, role, alive))
  const before = await owned(link, role)
  try {
    await handOver(link, role, owner)
  } catch (error) {
    // The owner has no rights: code cannot change hands in a schema where it may not create. Then it goes.
    if (!isServerError(error, sqlstate.insufficientPrivilege)) throw error
    residue.push(...await dropKinds(link, role, Object.keys(droppable)))
    const rest = await owned(link, role)
    try {
      await handOver(link, role, owner)
    } catch (again) {
      if (!isServerError(again)) throw again
      return [...residue, ...rest.map(thing => listed(link, thing, 'left'))]
    }
    return [...residue, ...shortened(rest.map(thing => fateOf(link, thing)))]
  }
  return [...residue, ...shortened(before.map(thing => fateOf(link, thing)))]
}

/** Data to the new owner, then privileges, default privileges and mappings away: both or neither. */
async function handOver(link: Link, { name }: Role, owner: string): Promise<void> {
  await link.transaction(async () => {
    await link.query(`REASSIGN OWNED BY ${quoteIdentifier(name)} TO ${quoteIdentifier(owner)}`)
    await link.query(`DROP OWNED BY ${quoteIdentifier(name)}`)
  })
}

/**
 * SECURITY DEFINER routines run with their owner's rights: handing one over would hand over those of the new
 * owner. They are dropped; one that something else needs is made to run with its caller's rights, and nobody
 * may call it.
 */
async function disarm(link: Link, { oid }: Role): Promise<Residue[]> {
  const rows = await link.query(`
    SELECT i.type, i.identity, i.identity FROM pg_proc p, pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    WHERE p.proowner = $1::oid AND p.prosecdef`, [oid])
  const residue: Residue[] = []
  for (const thing of rows.map(thingOf)) {
    const named = { kind: 'security-definer function', name: `database ${link.database}: ${thing.name}` }
    try {
      await link.query(`DROP ROUTINE ${thing.identity}`)
      residue.push({ ...named, fate: 'removed' })
    } catch (error) {
      if (!isServerError(error, sqlstate.dependentObjects)) throw error
      await link.transaction(async () => {
        await link.query(`ALTER ROUTINE ${thing.identity} SECURITY INVOKER`)
        await link.query(`REVOKE ALL ON ROUTINE ${thing.identity} FROM PUBLIC`)
      })
      residue.push(
        { kind: named.kind, name: `${named.name} (needed by others: made harmless)`, fate: 'left' }
      )
    }
  }
  return residue
}

/** Triggers that the account put on other people's tables: they go on calling its functions. */
async function trapsOf(link: Link, { oid }: Role): Promise<Residue[]> {
  const rows = await link.query(`
    SELECT i.type, i.identity, i.identity
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid,
      pg_identify_object('pg_trigger'::regclass, t.oid, 0) i
    WHERE p.proowner = $1::oid AND c.relowner <> $1::oid AND NOT t.tgisinternal`, [oid])
  return rows.map(thingOf).map(thing => listed(link, thing, 'left'))
}

async function dropKinds(link: Link, role: Role, kinds: readonly string[]): Promise<Residue[]> {
  const residue: Residue[] = []
  for (let pass = 0; pass < passesMax; pass++) {
    let dropped = 0
    for (const thing of await owned(link, role)) {
      const word = kinds.includes(thing.kind) ? droppable[thing.kind] : undefined
      if (word === undefined || !await drop(link, word, thing)) continue
      residue.push(listed(link, thing, 'removed'))
      dropped++
    }
    if (dropped === 0) break
  }
  return residue
}

async function drop(link: Link, word: string, { kind, identity }: Thing): Promise<boolean> {
  try {
    if (kind === 'subscription') {
      // Without its slot: the publisher is another server, which we do not touch.
      await link.query(`ALTER SUBSCRIPTION ${identity} DISABLE`)
      await link.query(`ALTER SUBSCRIPTION ${identity} SET (slot_name = NONE)`)
    }
    await link.query(`DROP ${word} ${identity}`)
    return true
  } catch (error) {
    if (isServerError(error)) return false
    throw error
  }
}

/** What the role owns here and, as far as it belongs to no database, on the server. */
async function owned(link: Link, { oid }: Role): Promise<Thing[]> {
  const rows = await link.query(`
    SELECT i.type, i.identity, pg_describe_object(s.classid, s.objid, s.objsubid)
    FROM pg_shdepend s, pg_identify_object(s.classid, s.objid, s.objsubid) i
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid AND s.deptype = 'o'
      AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY 1, 2`, [oid])
  return rows.map(thingOf)
}

/**
 * Everything that keeps the role from being dropped, counted by database; for a role that could not be
 * removed.
 */
export function mentionsOf(name: string): Statement {
  return {
    sql: `SELECT coalesce(d.datname, ''), count(*)
      FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
      WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ${roleNumber} GROUP BY 1 ORDER BY 1`,
    values: [name]
  }
}

export function readMentions(rows: readonly Row[] = []): Residue[] {
  return rows.map(([database, count]) => {
    const where = database === '' ? 'the server' : `database ${database ?? ''}`
    return { kind: 'dependent objects', name: `${where}: ${count ?? ''} objects or privileges`, fate: 'left' }
  })
}

function thingOf([kind, identity, name]: Row): Thing {
  return { kind: kind ?? '', identity: identity ?? '', name: name ?? identity ?? '' }
}

function fateOf(link: Link, thing: Thing): Residue {
  return listed(link, thing, personal.includes(thing.kind) ? 'removed' : 'reassigned')
}

function listed(link: Link, { kind, name }: Thing, fate: Residue['fate']): Residue {
  return { kind, name: `database ${link.database}: ${name}`, fate }
}

function shortened(residue: Residue[]): Residue[] {
  if (residue.length <= listedMax) return residue
  const rest = {
    kind: 'objects', name: `and ${residue.length - listedMax} more`, fate: 'reassigned'
  } as const
  return [...residue.slice(0, listedMax), rest]
}
