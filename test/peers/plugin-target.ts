// A target of some plugin, as tests use it: jobs for the hook runner with the shipped templates, accounts
// that are minted as the ledger mints them, and the answers of the runner. The server behind it is real; each
// test file starts its own.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { shippedPlugins } from '../../plugins/shipped.ts'
import { systemClock } from '../../src/clock.ts'
import { createHooks } from '../../src/jit/hooks.ts'
import type { HookJob, HookResult, Hooks } from '../../src/jit/hook.ts'
import type { HookLimits } from '../../src/jit/hooks.ts'
import type {
  Access, AccountRef, Action, HookContext, Plugin, Variables, Verified
} from '../../src/jit/plugin.ts'
import { proveTemplates } from '../../src/jit/prove.ts'
import type { Proof } from '../../src/jit/prove.ts'
import { createShelf } from '../../src/jit/shelf.ts'
import type { Shelf } from '../../src/jit/shelf.ts'
import type { Template } from '../../src/jit/template.ts'

export interface Account extends AccountRef {
  password: string
  /** What the template gets of the fresh secret, and the end. */
  minted: Variables
}

export const shelf = createShelf(shippedPlugins)

const farAway = '2099-01-01T00:00:00Z'

/** Long enough for everything that a test does by hand. */
export function handContext(remainingMs: () => number = () => 30_000): HookContext {
  return {
    signal: AbortSignal.timeout(60_000), connectTimeoutMs: 10_000, statementTimeoutMs: 10_000, remainingMs,
    now: () => systemClock.now(), log: () => undefined
  }
}

export interface Liar extends AsyncDisposable {
  port: number
  /** What it was told. */
  heard(): string
}

/** A server that says one of these at once and one after each thing that it hears. */
export async function startLiar(lies: readonly (string | Buffer)[]): Promise<Liar> {
  let heard = ''
  const server = createServer(socket => {
    const rest = [...lies]
    const say = (): void => {
      const next = rest.shift()
      if (next !== undefined) socket.write(next)
    }
    socket.on('error', () => undefined)
    socket.on('data', chunk => {
      heard += chunk.toString('latin1')
      say()
    })
    say()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return {
    port, heard: () => heard,
    async [Symbol.asyncDispose]() {
      server.close()
      await Promise.resolve()
    }
  }
}

/** A line to a target that breaks, on both sides, right after the client said something for the nth time. */
async function startLine(target: { host: string, port: number }, saysMax: number): Promise<Liar> {
  const sockets = new Set<Socket>()
  let said = 0
  const server = createServer(client => {
    const upstream = connect(target.port, target.host)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    upstream.pipe(client)
    client.on('data', chunk => {
      upstream.write(chunk)
      said++
      // What was said arrives; its answer does not.
      if (said === saysMax) {
        client.destroy()
        upstream.end()
      }
    })
    client.on('close', () => upstream.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return {
    port, heard: () => String(said),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await Promise.resolve()
    }
  }
}

export class PluginTarget {
  readonly plugin: Plugin
  readonly access: Access
  readonly hooks: Hooks
  readonly log: string[] = []
  /** Values of the credential that every job gets. */
  readonly variables: Variables
  readonly #shelf: Shelf
  #made = 0

  /** `own`: a shelf with the plugin over something else than its driver. */
  constructor(
    id: string, access: Access, variables: Variables = {}, limits: Partial<HookLimits> = {},
    own: Shelf = shelf
  ) {
    this.#shelf = own
    this.plugin = own.plugin(id)
    this.access = access
    this.variables = variables
    this.hooks = createHooks({ shelf: own, clock: systemClock, limits, log: line => this.log.push(line) })
  }

  template(name: string): Template {
    const file = join(import.meta.dirname, `../../templates/${this.plugin.id}/${name}.yaml`)
    return this.#shelf.admit(readFileSync(file, 'utf8')).template
  }

  mint(name?: string, kind: AccountRef['kind'] = 'create'): Account {
    this.#made++
    const { inject, variables } = this.plugin.mint()
    if (inject.kind !== 'password') throw new Error(`no ${inject.kind} logs in there`)
    return {
      name: name ?? `jit_${String(this.#made).padStart(7, '0')}`, accountId: `account-${this.#made}`,
      epoch: 1, kind, password: inject.password.expose(), minted: { ...variables, expires_at: farAway }
    }
  }

  job(action: Action, template: string | Template, account: Account, variables: Variables = {}): HookJob {
    const { name, accountId, epoch, kind, minted } = account
    const opening = action === 'create' || action === 'enable'
    return {
      action, pluginId: this.plugin.id,
      template: typeof template === 'string' ? this.template(template) : template,
      account: { name, accountId, epoch, kind }, access: this.access,
      variables: { ...this.variables, ...opening ? minted : {}, ...variables }
    }
  }

  async run(
    action: Action, template: string | Template, account: Account, variables?: Variables
  ): Promise<HookResult> {
    return await this.hooks.run(this.job(action, template, account, variables))
  }

  async done(
    action: Action, template: string | Template, account: Account, variables?: Variables
  ): Promise<HookResult> {
    const result = await this.run(action, template, account, variables)
    if (result.state === 'done') return result
    const { state, failedStep, code, error } = result
    throw new Error(`${action}: ${state} at ${failedStep ?? code ?? ''}: ${error ?? ''}`)
  }

  /** What a renewal beyond the old maximum does. */
  async prolong(account: Account): Promise<HookResult> {
    const template = shelf.admit(this.plugin.prolong ?? '').template
    const { name, accountId, epoch, kind } = account
    return await this.hooks.run({
      action: 'enable', pluginId: this.plugin.id, template, account: { name, accountId, epoch, kind },
      access: this.access, variables: { expires_at: farAway }
    })
  }

  async look(template: string, account: Account): Promise<Verified> {
    return await this.hooks.verify(this.job(this.template(template).action, template, account))
  }

  /** What `sallyport templates prove` does. */
  async prove(opening: string, closing: string, username?: string): Promise<Proof> {
    return await proveTemplates({
      hooks: this.hooks, plugin: this.plugin, opening: this.template(opening),
      closing: this.template(closing), access: this.access, variables: this.variables, username,
      expiresAt: farAway
    })
  }

  /** What a creation ends in when the target is this liar. */
  async deceive(
    number: number, lies: readonly (string | Buffer)[], opening = 'create-user'
  ): Promise<HookResult & { heard: string }> {
    await using liar = await startLiar(lies)
    const address = { ...this.access.target, name: `liar ${number}`, host: '127.0.0.1', port: liar.port }
    const access = { ...this.access, target: address }
    const made = await this.hooks.run({ ...this.job('create', opening, this.mint()), access })
    return { ...made, heard: liar.heard() }
  }

  /**
   * Creations whose line breaks after the first, second … thing that the hook says, each removed afterwards
   * over a good line. Answers how the creations ended; @throws when something of one is left.
   */
  async breakLines(opening: string, closing: string, linesMax = 40): Promise<HookResult['state'][]> {
    const ended: HookResult['state'][] = []
    for (let said = 1, broke = true; broke && said <= linesMax; said++) {
      await using line = await startLine(this.access.target, said)
      const account = this.mint()
      const address = { ...this.access.target, name: `line ${said}`, host: '127.0.0.1', port: line.port }
      const access = { ...this.access, target: address }
      const made = await this.hooks.run({ ...this.job('create', opening, account), access })
      ended.push(made.state)
      broke = Number(line.heard()) >= said
      const removed = await this.done('delete', closing, { ...account, epoch: 2 })
      if (removed.seen?.exists !== false) throw new Error(`after ${said}: ${JSON.stringify(removed)}`)
    }
    return ended
  }

  close(): void {
    this.hooks.close()
  }
}
