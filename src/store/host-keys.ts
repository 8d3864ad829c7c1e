// Host keys of targets that pin none, as they were first seen (trust on first use): the same for all nodes,
// and changed only by an admin who forgets one. The first node to write wins; the others read what it wrote.
import type { Database } from './database.ts'
import { eq, inArray } from './drizzle.ts'
import { setting } from './schema.ts'

export interface HostKeys {
  /** The learnt line `type base64`, or undefined. */
  known(target: string): Promise<string | undefined>
  /** Remembers a key unless there is one; answers with the one that counts. */
  learn(target: string, line: string): Promise<string>
  forget(target: string): Promise<void>
}

const keyOf = (target: string): string => `host-key:${target}`

export function createHostKeys(database: Database): HostKeys {
  const known = async (target: string): Promise<string | undefined> => {
    const [row] = await database.run(handle =>
      handle.select().from(setting).where(inArray(setting.key, [keyOf(target)])))
    return row === undefined ? undefined : String(row.value)
  }
  return {
    known,
    async learn(target, line) {
      await database.run(handle =>
        handle.insert(setting).values({ key: keyOf(target), value: line }).onConflictDoNothing())
      return await known(target) ?? line
    },
    async forget(target) {
      await database.run(handle => handle.delete(setting).where(eq(setting.key, keyOf(target))))
    }
  }
}
