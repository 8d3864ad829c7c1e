// Jobs of pg_cron. They name their role in a text column, so nothing in the catalogue holds the role and DROP
// ROLE does not see them. Names are never used again, so such a job could only fail for ever; it goes all the
// same, since it is what the account left running. A job shows itself to its owner and to superusers only:
// our login takes the account's role for as long as it looks.
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import type { Residue } from '../../src/jit/plugin.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { isServerError } from './link.ts'
import type { Link } from './link.ts'

/** A command may be long; a receipt is read by people. */
const commandCharactersMax = 200

/** SQL: the database that pg_cron works from. Null where it is not loaded or our login is not told. */
export const cronDatabase = `CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER')
  THEN current_setting('cron.database_name', true) END`

/** SQL: pg_cron is in the current database. */
export const cronIsHere = "EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron')"

/** SQL: there is some pg_cron, so that an account may have left jobs. */
export const cronSomewhere = `(${cronIsHere} OR ${cronDatabase} IS NOT NULL)`

export const cronLook: Statement = { sql: `SELECT ${cronSomewhere}`, values: [] }

/** Takes the account's jobs away, each listed: all or none. Without rights on them it could make none. */
export async function unschedule(link: Link, name: string): Promise<Residue[]> {
  try {
    return await link.transaction(async () => {
      await link.query(`SET LOCAL ROLE ${quoteIdentifier(name)}`)
      const [[mayUse] = []] = await link.query("SELECT has_schema_privilege('cron', 'USAGE')")
      if (mayUse !== 't') return []
      const rows = await link.query(`
        SELECT schedule, left(command, ${commandCharactersMax}), cron.unschedule(jobid)
        FROM cron.job WHERE username = current_user ORDER BY jobid`)
      return rows.map(([schedule, command]): Residue => {
        const job = `database ${link.database}: ${schedule ?? ''} ${command ?? ''}`
        return { kind: 'cron job', name: job, fate: 'removed' }
      })
    })
  } catch (error) {
    if (!isServerError(error)) throw error
    return [{ kind: 'cron jobs', name: `database ${link.database}: not looked at`, fate: 'left' }]
  }
}
