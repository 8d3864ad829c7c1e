// Joins secrets outside sessions to the rooms that they need: what is declared, the templates as they are
// now, the ledger that makes the accounts.
import { createSecrets } from '../secrets/secrets.ts'
import type { Secrets } from '../secrets/secrets.ts'
import { pin } from './accounts.ts'
import { addressOf } from './hooks.ts'
import type { Rooms } from './rooms.ts'

export function openSecretRoom(
  { clock, declared, openSecret, templates, ledger, audit }:
  Pick<Rooms, 'clock' | 'declared' | 'openSecret' | 'templates' | 'ledger' | 'audit'>
): Secrets {
  const ports = { template: (id: string) => templates.get(id) }
  return createSecrets({
    clock, declared, openSecret, addressOf: target => addressOf(target),
    async pin({ provider: plugin, create, delete: remove }) {
      return {
        open: await pin(ports, { plugin, template: create }, 'create'),
        close: await pin(ports, { plugin, template: remove }, 'delete')
      }
    },
    issue: request => ledger.issue(request),
    revoke: (lease, actor, address) => ledger.revoke(lease, actor, address),
    audit: (kind, actor, subject, detail) => audit.append(kind, actor, subject, detail)
  })
}
