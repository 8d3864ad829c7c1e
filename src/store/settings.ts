// Small facts about this store: what receivers of audit events refused (audit-outbox.ts), and here the id of
// the installation, drawn once when the store is made, which signed things carry so that they cannot be taken
// for another installation's.
import { randomUUID } from 'node:crypto'
import type { Database } from './database.ts'
import { eq } from './drizzle.ts'
import { setting } from './schema.ts'

const instanceKey = 'instance'

/** The id of the installation: the same for every node and every start on this store. */
export async function instanceId(database: Database): Promise<string> {
  const [row] = await database.run(async handle => {
    await handle.insert(setting).values({ key: instanceKey, value: randomUUID() }).onConflictDoNothing()
    return handle.select().from(setting).where(eq(setting.key, instanceKey))
  })
  return String(row?.value)
}
