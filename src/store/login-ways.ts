// What somebody can prove in a browser, in one question: it is asked at every login of every protocol.
import type { Database } from './database.ts'
import { sql } from './drizzle.ts'
import { identity, passkey } from './schema-logins.ts'

export interface LoginWays {
  passkey: boolean
  /** Known to an identity provider. */
  provider: boolean
}

export async function loginWaysOf(database: Database, user: string): Promise<LoginWays> {
  const [row] = await database.run(handle => handle.execute<Record<string, boolean>>(sql`select
    exists (select 1 from ${passkey} where ${passkey.user} = ${user}) as passkey,
    exists (select 1 from ${identity} where ${identity.user} = ${user}) as provider`))
  return { passkey: row?.['passkey'] === true, provider: row?.['provider'] === true }
}
