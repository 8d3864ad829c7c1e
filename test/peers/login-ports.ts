// The ports of logins over plain maps: what is asked of authenticators and what their answers are worth is
// the real thing, only the rows are not in a store.
import { systemClock } from '../../src/clock.ts'
import type { Clock } from '../../src/clock.ts'
import type { LoginPorts } from '../../src/api/ports-login.ts'
import { createLoginRequestPort } from '../../src/main/login-requests.ts'
import { createPasskeyPort } from '../../src/main/passkeys.ts'
import type { LoginRequestRow, LoginRequests } from '../../src/store/login-requests.ts'
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
    }),
    oidc: undefined, identities: identitiesOf(),
    requests: createLoginRequestPort({ clock: systemClock, rows: requestRows(note, systemClock), origin })
  }
}

export function requestRows(note: Note, clock: Clock): LoginRequests {
  const rows = new Map<string, LoginRequestRow & { polledAt: number, intervalSeconds: number }>()
  const pending = (code: string) =>
    [...rows.values()].find(row =>
      row.code === code && row.state === 'pending' && row.expiresAt > clock.now())
  return {
    async add({ hash, ttlSeconds, ...row }) {
      const expiresAt = new Date(clock.now().getTime() + ttlSeconds * 1000)
      rows.set(hash, { ...row, state: 'pending', decidedBy: null, expiresAt, polledAt: -Infinity })
      return expiresAt
    },
    async look(hash) {
      const row = rows.get(hash)
      if (row === undefined || row.expiresAt <= clock.now()) return undefined
      const isHasty = row.polledAt > clock.monotonicMs() - row.intervalSeconds * 1000
      row.polledAt = clock.monotonicMs()
      if (isHasty) row.intervalSeconds += 5
      return { ...row, isHasty }
    },
    take: async hash => rows.get(hash)?.state === 'approved' && rows.delete(hash),
    find: async code => pending(code),
    async decide(code, state, by) {
      const row = pending(code)
      if (row === undefined) return false
      Object.assign(row, { state, decidedBy: by })
      note(`login-request.${state}`, by, row.address, { kind: row.kind, what: row.what })
      return true
    },
    async removeOf(user) {
      for (const [hash, row] of rows) if (row.user === user || row.decidedBy === user) rows.delete(hash)
    }
  }
}

function identitiesOf(): LoginPorts['identities'] {
  const users = new Map<string, string>()
  return {
    get: async (issuer, subject) => users.get(`${issuer} ${subject}`),
    async bind(issuer, subject, user) {
      const key = `${issuer} ${subject}`
      if (!users.has(key) && ![...users.values()].includes(user)) users.set(key, user)
      return users.get(key) === user
    },
    async removeOf(user) {
      const key = [...users].find(([, each]) => each === user)?.[0]
      return key !== undefined && users.delete(key)
    }
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
