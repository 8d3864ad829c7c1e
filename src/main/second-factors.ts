// The second factor of a person, made of what two rooms know: policy what a right code is, the store which
// step was used. Time is the store's, so that every node takes the same codes.
import { enrolmentUri, mintCodeSecret, stepOfCode } from '../policy/one-time-code.ts'
import type { SecondFactors as Rows } from '../store/second-factors.ts'
import type { CodeGuard } from './code-guard.ts'

export interface SecondFactors {
  /**
   * What somebody has to prove at a login from this address beside; undefined: nothing. Throws
   * `store-unavailable`; `check` also `auth-throttled`, when too many codes of the person were wrong.
   */
  of(user: string, address: string): Promise<{ check(code: string): Promise<boolean> } | undefined>
  /** The URI for the authenticator app, this once; undefined when there is a confirmed one, which stays. */
  enrol(user: string, by: string): Promise<string | undefined>
  /** `wrong`: the code; `none`: nothing waits for a code. */
  confirm(user: string, code: string, by: string): Promise<'confirmed' | 'wrong' | 'none'>
  /** False when there was none. */
  remove(user: string, by: string): Promise<boolean>
  /** Who has one, confirmed or not. */
  list(): Promise<readonly { user: string, confirmed: boolean }[]>
}

export function createSecondFactors(
  rows: Rows, now: () => Promise<Date>, guard: CodeGuard
): SecondFactors {
  return {
    async of(user, address) {
      const row = await rows.get(user)
      if (row?.confirmed !== true) return undefined
      return {
        async check(code) {
          const wasRight = guard.begin(user, address)
          const step = stepOfCode(await rows.open(row), code, await now())
          const isRight = step !== undefined && await rows.accept(row, step)
          if (isRight) wasRight()
          return isRight
        }
      }
    },
    async enrol(user, by) {
      const secret = mintCodeSecret()
      const isEnrolled = await rows.enrol(user, secret, by)
      return isEnrolled ? enrolmentUri(secret, user) : undefined
    },
    async confirm(user, code, by) {
      const row = await rows.get(user)
      if (row === undefined || row.confirmed) return 'none'
      const step = stepOfCode(await rows.open(row), code, await now())
      if (step === undefined) return 'wrong'
      return await rows.confirm(row, step, by) ? 'confirmed' : 'none'
    },
    remove: (user, by) => rows.remove(user, by),
    list: () => rows.list()
  }
}
