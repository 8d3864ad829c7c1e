// The one way in which a secret reaches a person, the exception of J14. A TCP target speaks a protocol that
// we do not read, so nothing can be injected: whoever was let in gets the login of the account that was made
// for this very session, once, and the account dies with it. Never a secret that was there before, never on
// another kind of target; nothing else of the house opens an account's secret for anybody but a target.
import { SallyportError } from '../errors.ts'
import type { Injectable } from '../jit/plugin.ts'
import type { Target } from '../policy/types.ts'

export interface OneTimeLogin {
  username: string
  password: string
}

export interface HandOver {
  /** The login, as text for the person; undefined from the second time on. */
  take(): OneTimeLogin | undefined
}

/** `made`: the account was created for this session. @throws SallyportError `internal` for anything else */
export function handOver(
  { protocol }: Target, { username, secret, made }: { username: string, secret: Injectable, made: boolean }
): HandOver {
  if (protocol !== 'tcp' || !made || secret.kind !== 'password') {
    throw new SallyportError('internal', { detail: `the secret of ${username} is not for a person` })
  }
  let left: OneTimeLogin | undefined = { username, password: secret.password.expose() }
  return {
    take() {
      const login = left
      left = undefined
      return login
    }
  }
}
