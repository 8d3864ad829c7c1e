// A throw-away PostgreSQL with all that the tests of accounts need: two databases, group roles, the
// recommended hook login (CREATEROLE, no superuser), the shipped templates and a hook runner. Accounts are
// made and removed with one call each, and a session logs in with the keys that the account was made with.
import { readFileSync } from 'node:fs'
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
import { connectClient } from '../../src/wire/postgres/query.ts'
import type { Client } from '../../src/wire/postgres/query.ts'
import { adminRole, startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'

export interface JitTargetOptions {
  version: '15' | '18'
  limits?: Partial<HookLimits>
  settings?: Readonly<Record<string, string | number | boolean>>
}

export interface Account extends AccountRef {
  inject: Injectable
}

const shelf = createShelf(shippedPlugins)

export function shippedTemplate(name: string): Template {
  const file = join(import.meta.dirname, `../../templates/postgres/${name}.yaml`)
  return shelf.admit(readFileSync(file, 'utf8')).template
}

export class JitTarget implements AsyncDisposable {
  readonly server: PostgresServer
  readonly access: Access
  readonly hooks: Hooks
  readonly log: string[]
  readonly plugin: Plugin = shelf.plugin('postgres')
  #made = 0

  constructor(server: PostgresServer, access: Access, hooks: Hooks, log: string[]) {
    this.server = server
    this.access = access
    this.hooks = hooks
    this.log = log
  }

  /** An account that is not on the target yet. */
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
      action, pluginId: 'postgres',
      template: typeof template === 'string' ? shippedTemplate(template) : template,
      account: { name, accountId, epoch, kind }, access: this.access, variables
    }
  }

  async create(roles: readonly string[] = ['app_rw']): Promise<Account> {
    const account = this.mint()
    const made = await this.hooks.run(
      this.job('create', 'create-role', account, { roles, ...account.minted })
    )
    if (made.state !== 'done') {
      throw new Error(`create: ${made.state} ${made.failedStep ?? ''} ${made.error ?? ''}`)
    }
    return account
  }

  async remove(account: AccountRef): Promise<HookResult> {
    return await this.hooks.run(this.job('delete', 'delete-role', { ...account, epoch: account.epoch + 1 }))
  }

  async look(account: AccountRef): Promise<Verified> {
    return await this.hooks.verify(this.job('delete', 'delete-role', account))
  }

  /** A session of the account itself, straight at the target. */
  async login({ name, inject }: Account, database = 'app'): Promise<Session> {
    return new Session(await connectClient({
      host: this.server.host, port: this.server.port, tls: { mode: 'disable' }, user: name, database,
      timeouts: { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 },
      parameters: [['search_path', 'public']],
      secret: () => {
        if (inject.kind === 'password') return { kind: 'password', password: inject.password.expose() }
        if (inject.kind !== 'scram-keys') throw new Error(`no ${inject.kind} opens a database`)
        const { kind, clientKey, serverKey } = inject
        return { kind, clientKey: clientKey.expose(), serverKey: serverKey.expose() }
      }
    }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hooks.close()
    await this.server.stop()
  }
}

export class Session {
  readonly #client: Client

  constructor(client: Client) {
    this.#client = client
  }

  /** Rows as text, `|` between columns. */
  async run(sql: string): Promise<string[]> {
    const { rows } = await this.#client.query(sql, { timeoutMs: 60_000 })
    return rows.map(row => row.map(value => value ?? '').join('|'))
  }

  async close(): Promise<void> {
    await this.#client.close()
  }
}

/**
 * Two databases (`postgres`, where hooks connect, and `app`, `other` for people), groups `app_rw` and
 * `app_ro`.
 */
export async function startJitTarget({ version, limits, settings }: JitTargetOptions): Promise<JitTarget> {
  const server = await startPostgres({ version, settings: { max_prepared_transactions: 10, ...settings } })
  await server.psql('CREATE ROLE app_rw NOLOGIN; CREATE ROLE app_ro NOLOGIN')
  for (const database of ['app', 'other']) {
    await server.psql(`CREATE DATABASE ${database}`)
    await server.psql(`GRANT CREATE ON DATABASE ${database} TO app_rw`)
    await server.psql(
      'GRANT CREATE, USAGE ON SCHEMA public TO app_rw; CREATE TABLE orders (id int)', database
    )
    await server.psql('GRANT SELECT, INSERT, TRIGGER, REFERENCES ON orders TO app_rw', database)
  }
  const admin = await adminRole(
    server, { name: 'hook admin', kind: 'createrole', groups: ['app_rw', 'app_ro'] }
  )
  const log: string[] = []
  const access: Access = {
    target: {
      name: 'target', protocol: 'postgres', host: server.host, port: server.port, database: 'postgres',
      tls: { mode: 'disable' }
    },
    username: admin.name,
    secret: { kind: 'password', password: new Secret(admin.password) }
  }
  const hooks = createHooks({ shelf, clock: systemClock, limits, log: line => log.push(line) })
  return new JitTarget(server, access, hooks, log)
}
