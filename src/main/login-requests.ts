// Logins that a person confirms in the console: the command line's (the device flow of RFC 8628), and those
// of clients that have no place to ask. Two things are drawn: a secret for the program that waits, and a
// short code for the person, which counts only for somebody who is logged in. How often either is asked for
// is bounded: by address for those who begin, by person for those who type codes; nobody is locked out by
// anybody else.
import { createHash, randomBytes, randomInt } from 'node:crypto'
import type { LoginRequestPort } from '../api/ports-login.ts'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { createShares } from '../proxy/penalties.ts'
import { sourceOf } from '../proxy/source.ts'
import type { LoginRequests } from '../store/login-requests.ts'

/** From asking to the confirmation. */
export const loginRequestSeconds = 600
/** Between two questions of a program. */
const intervalSeconds = 2
/** Letters that make no words and are not taken for each other: 8 of 20 are 34 bits, for ten minutes. */
const letters = 'BCDFGHJKLMNPQRSTVWXZ'
const codeLetters = 8
/** Of one address, in ten minutes. */
const beginningsMax = 30
/** Codes of one person that are nobody's, in ten minutes. */
const wrongCodesMax = 10
const windowMs = 600_000
/** How often a connection that waits looks. */
const lookMs = 1000

export function createLoginRequestPort(
  { clock, rows, origin }: { clock: Clock, rows: LoginRequests, origin: string | undefined }
): LoginRequestPort {
  const beginnings = createShares(clock, beginningsMax, windowMs)
  const guesses = createShares(clock, wrongCodesMax, windowMs)
  const page = `${origin ?? ''}/console/confirm`
  return {
    async begin({ kind, user, address, what }) {
      // Connections have proved a first factor: those of one person are not kept out by their neighbours.
      const source = kind === 'session' ? `${user ?? ''} ${sourceOf(address)}` : sourceOf(address)
      if (beginnings.throttled(source)) throw new SallyportError('auth-throttled', { detail: address })
      beginnings.failed(source)
      const secret = randomBytes(32).toString('base64url')
      const code = mintCode()
      const expiresAt = await rows.add({
        hash: hashOf(secret), code, kind, user: user ?? null, address, what, intervalSeconds,
        ttlSeconds: loginRequestSeconds
      })
      if (expiresAt === undefined) throw new SallyportError('too-many-connections', { detail: 'logins wait' })
      return { secret, code, page, link: `${page}#${code}`, expiresAt, intervalSeconds }
    },
    async redeem(secret) {
      const hash = hashOf(secret)
      const row = await rows.look(hash)
      if (row === undefined || row.kind !== 'token') throw new SallyportError('expired-token')
      if (row.isHasty) throw new SallyportError('slow-down')
      if (row.state === 'pending') throw new SallyportError('authorization-pending')
      if (row.state === 'denied' || row.decidedBy === null) throw new SallyportError('access-denied')
      if (!await rows.take(hash)) throw new SallyportError('expired-token')
      return row.decidedBy
    },
    async find(typed, by) {
      if (guesses.throttled(by)) throw new SallyportError('auth-throttled', { detail: `codes of ${by}` })
      guesses.failed(by)
      const row = await rows.find(readCode(typed))
      if (row === undefined || (row.user !== null && row.user !== by)) return undefined
      guesses.forgiven(by)
      return row
    },
    decide: (typed, state, by) => rows.decide(readCode(typed), state, by),
    async decided(secret, signal) {
      const hash = hashOf(secret)
      for (;;) {
        const row = await rows.look(hash)
        if (row === undefined) return 'expired'
        if (row.state === 'denied') return 'denied'
        if (row.state === 'approved') return await rows.take(hash) ? 'approved' : 'expired'
        await sleep(clock, lookMs, signal)
      }
    },
    removeOf: user => rows.removeOf(user)
  }
}

function mintCode(): string {
  const drawn = Array.from({ length: codeLetters }, () => letters[randomInt(letters.length)]!).join('')
  return `${drawn.slice(0, 4)}-${drawn.slice(4)}`
}

/** People type small letters, and blanks or nothing in between. */
function readCode(typed: string): string {
  const plain = typed.toUpperCase().replace(/[^A-Z]/g, '')
  return `${plain.slice(0, 4)}-${plain.slice(4)}`
}

function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}
