// Connections that wait for their person at the console: who can prove something there, and the request that
// they confirm. Without a console's address there is nothing to open, and nobody waits; whoever has a passkey
// is then refused where only a password was proved.
import type { LoginPorts } from '../api/ports-login.ts'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { Claim } from '../session/front.ts'
import type { ConfirmationPort } from '../session/confirm.ts'
import type { Database } from '../store/database.ts'
import { loginWaysOf } from '../store/login-ways.ts'
import { consoleOrigin } from './logins.ts'

const loginCharactersMax = 64

interface Needs {
  config: Config
  clock: Clock
  database: Database
  logins: LoginPorts
}

export function createConfirmations(
  { config, clock, database, logins }: Needs
): ConfirmationPort {
  return {
    isOpen: consoleOrigin(config) !== undefined,
    waitSeconds: config.limits.consoleConfirm,
    async waysOf(user) {
      const { passkey, provider } = await loginWaysOf(database, user)
      return { passkey, provider: provider && logins.oidc !== undefined }
    },
    ask: (user, { address, protocol, login }: Claim) => logins.requests.begin({
      kind: 'session', user, address, what: `${protocol} as ${login.slice(0, loginCharactersMax)}`
    }),
    async decided(secret, waitMs, signal) {
      const over = new AbortController()
      const cancel = clock.after(waitMs, () => over.abort(new SallyportError('expired-token')))
      try {
        return await logins.requests.decided(secret, AbortSignal.any([signal, over.signal]))
      } catch (thrown) {
        if (asSallyportError(thrown).code === 'expired-token') return 'expired'
        throw thrown
      } finally {
        cancel()
      }
    }
  }
}
