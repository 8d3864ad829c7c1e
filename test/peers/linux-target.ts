// A throw-away Linux host with all that the tests of accounts need: the hook's login, the shipped templates,
// a hook runner. Accounts are made and removed with one call each, and a session is stock ssh with the key
// that the account was made with.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { shippedPlugins } from '../../plugins/shipped.ts'
import { systemClock } from '../../src/clock.ts'
import { createHooks } from '../../src/jit/hooks.ts'
import type { HookJob, HookResult, Hooks } from '../../src/jit/hook.ts'
import type { HookLimits } from '../../src/jit/hooks.ts'
import type {
  Access, AccountRef, Action, Injectable, Plugin, Variables, Verified
} from '../../src/jit/plugin.ts'
import { createShelf } from '../../src/jit/shelf.ts'
import type { Template } from '../../src/jit/template.ts'
import { Secret } from '../../src/secret.ts'
import { startLinuxBox } from '../../tool/linux-box.ts'
import type { LinuxBox, LinuxBoxOptions } from '../../tool/linux-box.ts'
import { programOf } from '../../tool/services.ts'

export interface Account extends AccountRef {
  inject: Injectable
}

export interface Said {
  status: number | null
  stdout: string
  stderr: string
}

const shelf = createShelf(shippedPlugins)

export function linuxTemplate(name: string): Template {
  const file = join(import.meta.dirname, `../../templates/linux/${name}.yaml`)
  return shelf.admit(readFileSync(file, 'utf8')).template
}

export class LinuxTarget implements AsyncDisposable {
  readonly box: LinuxBox
  readonly access: Access
  readonly hooks: Hooks
  readonly log: string[]
  readonly plugin: Plugin = shelf.plugin('linux')
  readonly #folder = mkdtempSync(join(tmpdir(), 'sallyport-test-'))
  #made = 0
  #files = 0

  constructor(box: LinuxBox, access: Access, hooks: Hooks, log: string[]) {
    this.box = box
    this.access = access
    this.hooks = hooks
    this.log = log
  }

  /** An account that is not on the host yet. */
  mint(name?: string, kind: AccountRef['kind'] = 'create'): Account & { minted: Variables } {
    this.#made++
    const { inject, variables } = this.plugin.mint()
    return {
      name: name ?? `jit_${String(this.#made).padStart(7, '0')}`,
      accountId: `account-${this.#made}`, epoch: 1, kind,
      inject, minted: { ...variables, expires_at: '2099-01-01T00:00:00Z' }
    }
  }

  job(action: Action, template: string | Template, account: AccountRef, variables: Variables = {}): HookJob {
    const { name, accountId, epoch, kind } = account
    return {
      action, pluginId: 'linux', template: typeof template === 'string' ? linuxTemplate(template) : template,
      account: { name, accountId, epoch, kind }, access: this.access, variables
    }
  }

  async create(variables: Variables = {}): Promise<Account> {
    const account = this.mint()
    const made = await this.hooks.run(
      this.job('create', 'create-user', account, { ...account.minted, ...variables })
    )
    if (made.state !== 'done') {
      throw new Error(`create: ${made.state} ${made.failedStep ?? ''} ${made.error ?? ''}`)
    }
    return account
  }

  async remove(account: AccountRef): Promise<HookResult> {
    return await this.hooks.run(this.job('delete', 'delete-user', { ...account, epoch: account.epoch + 1 }))
  }

  async look(account: AccountRef): Promise<Verified> {
    return await this.hooks.verify(this.job('delete', 'delete-user', account))
  }

  /** Words of stock ssh for a login with the key of this account. */
  sshWords({ name, inject }: Account): string[] {
    if (inject.kind !== 'private-key') throw new Error(`no ${inject.kind} opens a shell here`)
    const [key, known] = ['key', 'known'].map(word => join(this.#folder, `${word}-${++this.#files}`))
    writeFileSync(key!, inject.privateKey.expose(), { mode: 0o600 })
    writeFileSync(known!, `[${this.box.host}]:${this.box.port} ${this.box.hostKey}\n`)
    return [
      '-F', 'none', '-p', String(this.box.port), '-i', key!, '-o', 'BatchMode=yes',
      '-o', 'IdentitiesOnly=yes',
      '-o', `UserKnownHostsFile=${known}`, '-o', 'StrictHostKeyChecking=yes', '-l', name, this.box.host
    ]
  }

  /** One command of a session, by stock ssh. */
  ssh(account: Account, command: string): Said {
    const { status, stdout, stderr } = spawnSync(
      programOf('ssh'), [...this.sshWords(account), command], { encoding: 'utf8', timeout: 20_000 }
    )
    return { status, stdout, stderr }
  }

  /** A session that stays open; resolves once its command says something. @throws when it does not */
  async open(account: Account, command = 'echo ready; sleep 1000'): Promise<{ ended: Promise<unknown> }> {
    const session = spawn(
      programOf('ssh'), [...this.sshWords(account), command], { stdio: ['pipe', 'pipe', 'ignore'] }
    )
    session.stdin.on('error', () => undefined)
    const ended = once(session, 'exit')
    const left = ended.then(() => { throw new Error('the session ended at once') })
    await Promise.race([once(session.stdout, 'data'), left])
    left.catch(() => undefined)
    return { ended }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hooks.close()
    await this.box.stop()
    rmSync(this.#folder, { recursive: true })
  }
}

/** A host with the groups `app` and `staff`, where hooks log in as root with a key. */
export async function startLinuxTarget(
  { limits, ...options }: LinuxBoxOptions & { limits?: Partial<HookLimits> } = {}
): Promise<LinuxTarget> {
  const box = await startLinuxBox(options)
  await box.run('groupadd app; groupadd -f staff')
  const log: string[] = []
  const access: Access = {
    target: {
      name: 'host', protocol: 'ssh', host: box.host, port: box.port, tls: { mode: 'disable' },
      hostKeys: [box.hostKey]
    },
    username: box.admin.username,
    secret: { kind: 'private-key', privateKey: new Secret(box.admin.privateKey) }
  }
  const hooks = createHooks({ shelf, clock: systemClock, limits, log: line => log.push(line) })
  return new LinuxTarget(box, access, hooks, log)
}
