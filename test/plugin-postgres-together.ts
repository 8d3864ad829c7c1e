// Accounts that go together and connections that are kept, against a real PostgreSQL: each of a group is
// judged by itself, a proof looks over a connection that was opened after the effect, a kept connection
// carries nothing over and is replaced when it died, and nothing is sent twice that may have been done. What
// goes over the wire is seen by a relay in front of the server.
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openLink } from '../plugins/postgres/link.ts'
import { systemClock } from '../src/clock.ts'
import { hookLimits } from '../src/jit/hooks.ts'
import type { HookResult } from '../src/jit/hook.ts'
import { Keeper } from '../src/jit/kept.ts'
import type { Access, AccountRef, HookContext, Variables } from '../src/jit/plugin.ts'
import { Secret } from '../src/secret.ts'
import { shippedTemplate, startJitTarget } from './peers/jit-target.ts'
import type { Account, JitTarget } from './peers/jit-target.ts'

interface Said {
  connection: number
  text: string
}

/** Forwards connections; writes down, in order, when each began and what each side said. */
class Relay {
  readonly #server: Server
  readonly said: Said[] = []
  /** Cuts the connection that says this, before it is passed on. */
  cutAt: string | undefined

  constructor(port: number) {
    let connections = 0
    this.#server = createServer(client => {
      const connection = ++connections
      const target = connect(port, '127.0.0.1')
      this.said.push({ connection, text: 'opened' })
      client.on('data', chunk => {
        const text = chunk.toString('latin1')
        this.said.push({ connection, text })
        if (this.cutAt !== undefined && text.includes(this.cutAt)) client.destroy()
        else target.write(chunk)
      })
      target.on('data', chunk => {
        this.said.push({ connection, text: `answer ${chunk.toString('latin1')}` })
        client.write(chunk)
      })
      for (const [one, other] of [[client, target], [target, client]] as const) {
        one.on('error', () => other.destroy()).on('end', () => other.end()).on('close', () => other.destroy())
      }
    })
  }

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.#server.listen(0, '127.0.0.1', resolve))
    return (this.#server.address() as AddressInfo).port
  }

  /** Places of what holds this text. */
  find(text: string): number[] {
    return this.said.flatMap((each, place) => each.text.includes(text) ? [place] : [])
  }

  close(): void {
    this.#server.close()
  }
}

const together = suite<{ target: JitTarget, relay: Relay }>('together')

together.before(async state => {
  state.target = await startJitTarget({ version: '18' })
  state.relay = new Relay(state.target.server.port)
  const { access } = state.target
  Object.assign(access, { target: { ...access.target, port: await state.relay.listen() } })
  // The first account makes our own two roles.
  await state.target.remove(await state.target.create())
})
together.before.each(({ relay }) => {
  relay.said.length = 0
  relay.cutAt = undefined
})
together.after(async ({ target, relay }) => {
  await target[Symbol.asyncDispose]()
  relay.close()
})

// Accounts of one template go together, as they do where it is parsed once for all of them.
const creation = shippedTemplate('create-role')
const deletion = shippedTemplate('delete-role')

function create(
  target: JitTarget, account: ReturnType<JitTarget['mint']>, variables: Variables = {}
): Promise<HookResult> {
  return target.hooks.run(
    target.job('create', creation, account, { roles: ['app_rw'], ...account.minted, ...variables }))
}

async function made(target: JitTarget): Promise<Account> {
  const account = target.mint()
  assert.is((await create(target, account)).state, 'done')
  return account
}

function remove(target: JitTarget, account: AccountRef): Promise<HookResult> {
  return target.hooks.run(target.job('delete', deletion, { ...account, epoch: account.epoch + 1 }))
}

const many = <T>(count: number, act: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => act(index)))

const hookPids = async ({ server }: JitTarget): Promise<string[]> => (await server.psql(
  `SELECT pid FROM pg_stat_activity WHERE application_name = 'sallyport-hook' ORDER BY 1`
)).split('\n').filter(line => line !== '')

together('many are made and removed in a few visits, and few connections stay', async ({ target, relay }) => {
  const accounts = await many(40, () => made(target))
  const results = await many(40, index => remove(target, accounts[index]!))
  assert.equal([...new Set(results.map(({ state, changed }) => `${state} ${changed}`))], ['done true'])
  assert.is(await target.server.psql(`SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit%'`), '0')
  assert.ok(relay.find('opened').length < 20, `${relay.find('opened').length} connections`)
  assert.ok((await hookPids(target)).length <= hookLimits.keptMax)
})

together('each of many is judged by itself', async ({ target }) => {
  const [plain, owner, user, other] = await many(4, () => made(target)) as [
    Account, Account, Account, Account
  ]
  const owning = await target.login(owner)
  await owning.run('CREATE TABLE public.left_behind (id int)')
  await owning.close()
  const live = await target.login(user)
  const stranger = { ...other, accountId: 'of-somebody-else' }
  const busy = await target.login(plain)
  await busy.close()
  const results = await Promise.all([plain, owner, user, stranger].map(each => remove(target, each)))
  assert.equal(results.map(({ state }) => state), ['done', 'done', 'done', 'conflict'])
  assert.equal(results.map(({ residue }) => residue.length), [0, 1, 0, 0])
  assert.match(String(await live.run('SELECT 1').catch((error: unknown) => error)), /terminat|closed|lost/i)
  const left = await target.server.psql(`SELECT rolname FROM pg_roles WHERE rolname LIKE 'jit%'`)
  assert.is(left, other.name)
  assert.is((await remove(target, other)).state, 'done')
})

together('a refused creation does not take the others of its visit with it', async ({ target }) => {
  const accounts = Array.from({ length: 12 }, () => target.mint())
  const results = await many(12, index =>
    create(target, accounts[index]!, index % 5 === 2 ? { roles: ['no_such_role'] } : {}))
  assert.equal(results.map(({ state }) => state === 'done'), accounts.map((_, index) => index % 5 !== 2))
  const [refused] = results.filter(({ state }) => state !== 'done')
  assert.equal([refused?.state, refused?.failedStep], ['refused', 'make the role'])
  await Promise.all(accounts.map(each => remove(target, each)))
})

// Promised: J15.
together('a proof looks over a connection that was opened after the effects', async ({ target, relay }) => {
  const accounts = await many(10, () => made(target))
  relay.said.length = 0
  await many(10, index => remove(target, accounts[index]!))
  const drops = relay.find('DROP ROLE')
  assert.ok(drops.length > 0)
  for (const { name } of accounts) {
    const drop = drops.find(place => relay.said[place]!.text.includes(name))!
    const { connection } = relay.said[drop]!
    const answered = relay.said.findIndex((each, place) =>
      place > drop && each.connection === connection && each.text.startsWith('answer'))
    const look = relay.said.findIndex((each, place) => place > answered && each.text.includes(name))
    const seenOver = relay.said[look]!.connection
    const opened = relay.said.findIndex(each => each.connection === seenOver && each.text === 'opened')
    assert.ok(opened > answered, 'the look came over a connection of before the drop')
    assert.ok(relay.said[look]!.text.includes('BEGIN READ ONLY'))
  }
})

together('a kept connection that died is replaced; what may have been done is not sent again', async ({
  target, relay
}) => {
  await remove(target, await made(target))
  await target.server.psql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sallyport-hook'`)
  const account = await made(target)
  // Cut at the very moment at which the role is to be made.
  relay.said.length = 0
  relay.cutAt = 'CREATE ROLE'
  const lost = target.mint()
  const result = await create(target, lost)
  assert.is(result.state, 'unknown')
  assert.is(relay.find('CREATE ROLE').length, 1)
  relay.cutAt = undefined
  // Cut at a first look: nothing can have been done, and it is sent again.
  relay.cutAt = 'DISCARD ALL'
  assert.is((await remove(target, account)).state, 'done')
  assert.is((await target.look(lost)).exists, false)
})

together('another password closes the connections of the old one', async ({ target }) => {
  await remove(target, await made(target))
  const before = await hookPids(target)
  assert.ok(before.length > 0)
  await target.server.psql(`ALTER ROLE "${target.access.username}" PASSWORD 'the second one'`)
  Object.assign(target.access, { secret: { kind: 'password', password: new Secret('the second one') } })
  const account = await made(target)
  await remove(target, account)
  // Ending takes the server a moment.
  for (let turn = 0; turn < 50 && (await hookPids(target)).some(pid => before.includes(pid)); turn++) {
    await pause(20)
  }
  assert.equal((await hookPids(target)).filter(pid => before.includes(pid)), [])
})

together('a login that may have one connection only makes room with those that are kept', async ({
  target
}) => {
  const admin = `"${target.access.username}"`
  await remove(target, await made(target))
  assert.ok((await hookPids(target)).length > 0)
  await target.server.psql(`ALTER ROLE ${admin} CONNECTION LIMIT 1`)
  for (let round = 0; round < 3; round++) {
    assert.is((await remove(target, await made(target))).state, 'done')
  }
  await target.server.psql(`ALTER ROLE ${admin} CONNECTION LIMIT -1`)
})

function contextOf(keeper: Keeper): HookContext {
  return {
    signal: new AbortController().signal, connectTimeoutMs: 5000, statementTimeoutMs: 10_000,
    remainingMs: () => 30_000, now: () => new Date(), kept: keeper, log: () => undefined
  }
}

together('a kept connection carries nothing over', async ({ target }) => {
  const keeper = new Keeper(hookLimits, systemClock)
  const state = `SELECT pg_backend_pid(), current_user = session_user, current_setting('search_path'),
    current_setting('lock_timeout'), to_regclass('pg_temp.mine') IS NULL,
    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
    (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels())`
  const visit = async (access: Access, spoil: boolean): Promise<readonly (string | null)[]> => {
    const link = await openLink(access, contextOf(keeper), { kept: true })
    const [row] = await link.query(state)
    const dirt = [
      `SET search_path = public`, 'SET lock_timeout = 77', 'CREATE TEMP TABLE mine (id int)',
      'SELECT pg_advisory_lock(7)', 'PREPARE mine AS SELECT 1', 'LISTEN mine', 'SET ROLE app_rw'
    ]
    for (const sql of spoil ? dirt : []) await link.query(sql)
    await link.leave()
    return row ?? []
  }
  const [pid, ...clean] = await visit(target.access, true)
  const [again, ...afterwards] = await visit(target.access, false)
  assert.is(again, pid)
  assert.equal(afterwards, clean)

  // One that is in a transaction, or met an error, is not kept.
  const open = await openLink(target.access, contextOf(keeper), { kept: true })
  await open.query('BEGIN')
  await open.leave()
  const refused = await openLink(target.access, contextOf(keeper), { kept: true })
  const [row] = await refused.query('SELECT pg_backend_pid()')
  await refused.query('SELECT 1 / 0').catch(() => undefined)
  await refused.leave()
  const [last] = await visit(target.access, false)
  assert.not.equal([row?.[0], last], [pid, pid])
  assert.not.equal(row?.[0], last)
  keeper.close()
})

together.run()
