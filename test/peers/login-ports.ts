// The ports of logins over plain maps: what is asked of authenticators and what their answers are worth is
// the real thing, only the rows are not in a store.
import { systemClock } from '../../src/clock.ts'
import type { LoginPorts } from '../../src/api/ports-login.ts'
import { createPasskeyPort } from '../../src/main/passkeys.ts'
import type { PasskeyRow, Passkeys } from '../../src/store/passkeys.ts'

export const testOrigin = 'https://localhost:8443'

export type Note = (kind: string, actor: string, subject: string, detail: unknown) => void

export function loginsOf(
  rows: Map<string, PasskeyRow>, note: Note, origin?: string
): LoginPorts {
  return {
    passkeys: createPasskeyPort({
      clock: systemClock, rows: passkeyRows(rows), key: Buffer.alloc(32, 3), origin,
      audit: { append: async (kind, actor, subject, detail) => note(kind, actor, subject, detail) }
    })
  }
}

function passkeyRows(rows: Map<string, PasskeyRow>): Passkeys {
  const spent = new Set<string>()
  return {
    get: async id => rows.get(id),
    list: async user => [...rows.values()].filter(row => row.user === user),
    async add(row) {
      if (rows.has(row.id)) return undefined
      const added = { ...row, createdAt: systemClock.now(), lastUsedAt: null }
      rows.set(row.id, added)
      return added
    },
    async used(id, counter) {
      const row = rows.get(id)!
      if (counter <= row.counter && counter + row.counter > 0) return false
      row.counter = counter
      return true
    },
    remove: async (user, id) => rows.get(id)?.user === user && rows.delete(id),
    async removeOf(user) {
      for (const row of rows.values()) if (row.user === user) rows.delete(row.id)
    },
    spend: async ({ id }) => spent.size < spent.add(id).size
  }
}
