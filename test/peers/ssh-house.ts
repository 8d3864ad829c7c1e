// The product with an SSH target, as its users have it: `src/main.ts` in a process of its own, a real sshd
// in a box, stock ssh as alice. `direct` is the same client without us: what the proxy gives must be the
// same.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { generateSshKey } from '../../src/wire/ssh/key.ts'
import { freePort } from '../../tool/postgres.ts'
import { startLinuxBox } from '../../tool/linux-box.ts'
import type { LinuxBox, LinuxBoxOptions } from '../../tool/linux-box.ts'
import { programOf } from '../../tool/services.ts'
import { ran, startProduct } from './house.ts'
import type { Product, Ran } from './house.ts'

export interface SshHouseOptions {
  box?: LinuxBoxOptions
  /** More documents for `apply`. */
  access?: string
  /** Of alice, beside the one that she uses here. */
  publicKeys?: readonly string[]
  /** Of alice's grant. */
  channels?: readonly string[] | undefined
  /** One more line of that grant. */
  grant?: string
  /** More of `sallyport.yaml`. */
  config?: string
  /** Its `limits`, as `name: value, name: value`. */
  limits?: string
  environment?: NodeJS.ProcessEnv
}

export interface SshHouse extends Product {
  box: LinuxBox
  sshPort: number
  /** alice's key and what she believes of hosts. */
  home: string
  /** Options of every ssh, scp, sftp of alice's. */
  options: readonly string[]
  /** `ssh` through the proxy; `login` as typed in front of the proxy's address. */
  ssh(words: readonly string[], options?: { login?: string, input?: string }): Promise<Ran>
  /** Straight to the target, as the standing account. */
  direct(words: readonly string[], input?: string): Promise<Ran>
  spawnSsh(words: readonly string[], login?: string): ChildProcess
  end(): Promise<void>
}

export const standingAccount = 'deploy'

/** The box as a target, and root on it. */
export function boxDocuments(box: LinuxBox): string {
  return `kind: target
name: web01
protocol: ssh
address: ${box.host}:${box.port}
hostKeys: ["${box.hostKey}"]
---
kind: credential
name: web01-admin
target: web01
username: root
privateKey: { env: WEB01_ADMIN_KEY }
---
`
}

export function documents(box: LinuxBox, publicKey: string, options: SshHouseOptions): string {
  const channels = options.channels === undefined ? '' : `channels: [${options.channels.join(', ')}]\n`
  return `${boxDocuments(box)}kind: credential
name: deploy
target: web01
username: ${standingAccount}
privateKey: { env: DEPLOY_KEY }
---
kind: user
name: alice
roles: [user]
password: { env: ALICE_PASSWORD }
publicKeys: [${[publicKey, ...options.publicKeys ?? []].map(line => `"${line}"`).join(', ')}]
---
kind: grant
name: alice-on-web01
users: [alice]
credentials: [deploy]
${channels}${options.grant ?? ''}
${(options.access ?? '').replaceAll('PUBLIC', publicKey)}`
}

/** A credential whose account is made for each session, or switched on where `templates` say so. */
export function jitCredential(
  name: string, templates: readonly [open: string, close: string] = ['create-user', 'delete-user'], more = ''
): string {
  const isShared = templates[1].startsWith('disable')
  const [open, close] = isShared ? ['enable', 'disable'] : ['create', 'delete']
  return `---
kind: credential
name: ${name}
target: web01
${more}
jit:
  enabled: true
  type: ${isShared ? 'enable-disable' : 'creation-deletion'}
  authenticationCredential: web01-admin
  ${open}: { plugin: linux, template: linux/${templates[0]} }
  ${close}: { plugin: linux, template: linux/${templates[1]} }
  maxSession: 1h
`
}

export async function startSshHouse(options: SshHouseOptions = {}): Promise<SshHouse> {
  const box = await startLinuxBox(options.box ?? {})
  const home = mkdtempSync(join(tmpdir(), 'sallyport-alice-'))
  const [own, deploy] = [generateSshKey(), generateSshKey()]
  const keyFile = join(home, 'id')
  const deployFile = join(home, 'deploy')
  writeFileSync(keyFile, own.privateKey, { mode: 0o600 })
  writeFileSync(deployFile, deploy.privateKey, { mode: 0o600 })
  await box.addUser(standingAccount, deploy.publicKey)
  const sshPort = await freePort()
  const product = await startProduct({
    listen: `ssh: "127.0.0.1:${sshPort}", postgres: null`,
    config: options.config, limits: options.limits, access: documents(box, own.publicKey, options),
    environment: {
      WEB01_ADMIN_KEY: box.admin.privateKey, DEPLOY_KEY: deploy.privateKey, ...options.environment
    }
  })
  const hostKey = readFileSync(join(product.folder, 'data/ssh/host_ed25519_key.pub'), 'utf8').trim()
  const knownHosts = join(home, 'known_hosts')
  writeFileSync(knownHosts, `[127.0.0.1]:${sshPort} ${hostKey}\n[127.0.0.1]:${box.port} ${box.hostKey}\n`)
  const common = ['-F', 'none', '-o', `UserKnownHostsFile=${knownHosts}`, '-o', 'StrictHostKeyChecking=yes',
    '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes']
  const sshOptions = [...common, '-o', `IdentityFile=${keyFile}`]
  const wordsFor = (login: string): string[] => [...sshOptions, '-p', String(sshPort), `${login}@127.0.0.1`]
  const house: SshHouse = {
    ...product, box, sshPort, home, options: sshOptions,
    ssh: (words, { login = 'alice+deploy', input = '' } = {}) =>
      ran(programOf('ssh'), [...wordsFor(login), ...words], {}, input),
    direct: (words, input = '') => ran(programOf('ssh'), [
      ...common, '-o', `IdentityFile=${deployFile}`, '-p', String(box.port),
      `${standingAccount}@127.0.0.1`, ...words
    ], {}, input),
    spawnSsh: (words, login = 'alice+deploy') =>
      spawn(programOf('ssh'), [...wordsFor(login), ...words], { stdio: 'pipe' }),
    // Of the product as it is now: a test may have started it again.
    async end() {
      await house.stop()
      house.clear()
      rmSync(home, { recursive: true, force: true })
      await box.stop()
    }
  }
  return house
}
