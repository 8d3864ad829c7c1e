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
import { readPrivateKey } from '../proxy/ssh/ssh2.ts'
import type { PrivateKey } from '../proxy/ssh/ssh2.ts'
import { signCertificate } from '../wire/ssh/certificate.ts'
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

/** Our keys towards clients, made 0600 at the first start; `.pub` beside each is for clients. */
export interface ListenerHostKeys {
  /** The private key as a file of OpenSSH. */
  hostKey: string
  publicKey: string
  /** Line of the authority that certifies us as each target for `ssh -J`. */
  authority: string
  certify(host: string): Uint8Array
}

const certificateHours = 24
const hourMs = 3_600_000

export function listenerHostKeys(dataFolder: string, clock: Clock): ListenerHostKeys {
  const hostKey = keyFile(dataFolder, 'host_ed25519_key')
  const authority = readPrivateKey(keyFile(dataFolder, 'host_ca_ed25519_key'))
  const own = readPrivateKey(hostKey)
  return {
    hostKey, publicKey: lineOf(own), authority: lineOf(authority),
    certify(host) {
      const nowMs = clock.now().getTime()
      return signCertificate(authority, {
        kind: 'host', key: own.getPublicSSH(), keyId: `sallyport ${host}`, principals: [host],
        serial: BigInt(nowMs), validAfter: new Date(nowMs - hourMs),
        validBefore: new Date(nowMs + certificateHours * hourMs)
      })
    }
  }
}

/** Lines of the keys that are ours: `ssh-ed25519 AAAA…`. */
export function lineOf(key: PrivateKey): string {
  return `ssh-ed25519 ${key.getPublicSSH().toString('base64')}`
}

/** The private key of that name under `data`/ssh, as a file of OpenSSH; made when there is none. */
export function keyFile(dataFolder: string, name: string): string {
  const folder = join(dataFolder, 'ssh')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const file = join(folder, name)
  if (existsSync(file)) return readFileSync(file, 'utf8')
  const { privateKey, publicKey } = generateSshKey()
  writeFileSync(`${file}.pub`, `${publicKey} sallyport\n`)
  writeFileSync(file, privateKey, { mode: 0o600, flag: 'wx' })
  return privateKey
}
