// What a person is told of a TCP target: how to log in there, in one line. What was made for this session is
// told once; the rest of the house never sees it.
import type { OneTimeLogin } from '../../session/hand-over.ts'
import type { Upstreaming } from '../../session/front.ts'

export function loginWords({ target, username }: Upstreaming, login: OneTimeLogin | undefined): string {
  const { name } = target
  if (login !== undefined) {
    return `log in to ${name} as ${login.username} with the one-time password ${login.password} `
      + '(both end with this connection)'
  }
  return username === ''
    ? `log in to ${name} as you are known there`
    : `log in to ${name} as ${username}, with its own password`
}
