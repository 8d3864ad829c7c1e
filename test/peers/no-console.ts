// Confirmations where there is no console to open: nobody has a passkey or is known to a provider, and nobody
// can be sent anywhere. For tests of logins that have nothing to do with browsers, whose steps must be told
// so all the same.
import type { ConfirmationPort } from '../../src/session/confirm.ts'

export const noConsole: ConfirmationPort = {
  isOpen: false, waitSeconds: 1, waysOf: async () => ({ passkey: false, provider: false }),
  ask: () => Promise.reject(new Error('nobody is sent to a console')), decided: async () => 'denied'
}
