// Which host keys are believed: those that an admin pinned, else the one that was seen first, which is kept
// in the store and in the audit log. Our own key towards clients is made at the first start; people see its
// fingerprint when they connect for the first time.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TargetAddress } from '../jit/plugin.ts'
import { scanHostKey } from '../proxy/ssh/scan.ts'
import type { Clock } from '../clock.ts'
import type { AuditLog } from '../store/audit.ts'
import type { HostKeys } from '../store/host-keys.ts'
import { blobOf, fingerprintOf, generateSshKey } from '../wire/ssh/key.ts'

export type HostKeysOf = (target: TargetAddress) => Promise<readonly string[]>

/** @throws SallyportError `target-unreachable` when there is nothing to learn from, `store-unavailable` */
export function createHostKeysOf(
  hostKeys: HostKeys, audit: Pick<AuditLog, 'append'>, clock: Clock, limitMs: number
): HostKeysOf {
  return async target => {
    if (target.hostKeys !== undefined) return target.hostKeys
    const known = await hostKeys.known(target.name)
    if (known !== undefined) return [known]
    const seen = await scanHostKey(target, clock, limitMs)
    const learnt = await hostKeys.learn(target.name, seen)
    const fingerprint = fingerprintOf(blobOf(learnt))
    await audit.append('host-key.learnt', 'system', target.name, { fingerprint, type: learnt.split(' ')[0] })
    return [learnt]
  }
}

/** Where a session or a hook goes, with the host keys that are believed there. */
export async function locate(target: TargetAddress, hostKeysOf: HostKeysOf): Promise<TargetAddress> {
  return target.protocol === 'ssh' ? { ...target, hostKeys: await hostKeysOf(target) } : target
}

/**
 * The private host key of the SSH listener, made 0600 at the first start; `.pub` beside it is for clients.
 */
export function listenerHostKey(dataFolder: string): string {
  const folder = join(dataFolder, 'ssh')
  const file = join(folder, 'host_ed25519_key')
  if (existsSync(file)) return readFileSync(file, 'utf8')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { privateKey, publicKey } = generateSshKey()
  writeFileSync(`${file}.pub`, `${publicKey} sallyport\n`)
  writeFileSync(file, privateKey, { mode: 0o600, flag: 'wx' })
  return privateKey
}
