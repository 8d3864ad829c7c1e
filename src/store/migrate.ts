// Brings the schema up to date at open: every file of migrations/ that the store has not seen, in order,
// all in one transaction under an advisory lock, so that two nodes starting together apply it once. Forward
// only: a store that was migrated by a newer program, or with a file that was edited since, is refused
// before anything is touched.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Sql } from 'postgres'
import { SallyportError } from '../errors.ts'
import type { Backend } from './backend.ts'
import { StatementError } from './failures.ts'

interface Applied {
  tag: string
  sha256: string
}

interface Migration extends Applied {
  statements: readonly string[]
}

const folder = new URL('../../migrations/', import.meta.url)
// "sallypor" read as a number: any constant will do, as long as every version uses the same.
const advisoryLock = '8313164298043355762'
const separator = '--> statement-breakpoint'

/**
 * Applies what is missing. Throws `internal` when the store is newer than this program or its history
 * differs.
 */
export async function migrate(backend: Backend): Promise<void> {
  const ours = readMigrations()
  const connection = backend.connect('migration')
  try {
    await applyMissing(connection.client, ours)
  } catch (thrown) {
    throw thrown instanceof SallyportError ? thrown : new StatementError(thrown)
  } finally {
    connection.destroy()
  }
}

async function applyMissing(client: Sql, ours: readonly Migration[]): Promise<void> {
  await client.unsafe('begin')
  await client.unsafe(`select pg_advisory_xact_lock(${advisoryLock})`)
  await client.unsafe(`create table if not exists migration
    (tag text primary key, sha256 text not null, applied_at timestamptz not null default now())`)
  const rows = await client.unsafe<Applied[]>('select tag, sha256 from migration order by tag')
  for (const migration of missing(ours, rows)) {
    for (const statement of migration.statements) await client.unsafe(statement)
    const { tag, sha256 } = migration
    await client.unsafe('insert into migration (tag, sha256) values ($1, $2)', [tag, sha256])
  }
  await client.unsafe('commit')
}

function missing(ours: readonly Migration[], applied: readonly Applied[]): readonly Migration[] {
  for (const [position, row] of applied.entries()) {
    const known = ours[position]
    if (known === undefined) {
      throw refusal(`it has migration ${row.tag}, which this version does not know: use the newer program`)
    }
    if (known.tag !== row.tag || known.sha256 !== row.sha256) {
      throw refusal(`the store's migration ${row.tag} is not the ${known.tag} of this version`)
    }
  }
  return ours.slice(applied.length)
}

function refusal(detail: string): SallyportError {
  return new SallyportError('internal', { detail: `store: ${detail}` })
}

function readMigrations(): readonly Migration[] {
  const journal = JSON.parse(readFileSync(new URL('meta/_journal.json', folder), 'utf8')) as
    { entries: { tag: string }[] }
  return journal.entries.map(({ tag }) => {
    const text = readFileSync(new URL(`${tag}.sql`, folder), 'utf8')
    return { tag, sha256: createHash('sha256').update(text).digest('hex'), statements: text.split(separator) }
  })
}
