// What a hook costs in round trips: each is a wait for the target, wherever in the world that is. The bytes
// that the plugin sends are counted on their way (one Sync for each round trip), so that a statement that is
// added to the ladder without thought is seen here.
import { createServer, connect } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { HookJob } from '../src/jit/hook.ts'
import { startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

/** Forwards connections and counts the Sync messages of those who connect. */
class Counter {
  readonly #server: Server
  syncs = 0

  constructor(port: number) {
    this.#server = createServer(client => {
      const target = connect(port, '127.0.0.1')
      let unread = Buffer.alloc(0)
      let started = false
      client.on('data', chunk => {
        target.write(chunk)
        unread = Buffer.concat([unread, chunk])
        for (;;) {
          // The startup packet has no tag.
          const at = started ? 1 : 0
          const bytes = unread.length < at + 4 ? Infinity : at + unread.readInt32BE(at)
          if (unread.length < bytes) return
          if (started && unread[0] === 0x53) this.syncs++
          started = true
          unread = unread.subarray(bytes)
        }
      })
      target.on('data', chunk => client.write(chunk))
      for (const [one, other] of [[client, target], [target, client]] as const) {
        one.on('error', () => other.destroy()).on('end', () => other.end())
      }
    })
  }

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.#server.listen(0, '127.0.0.1', resolve))
    return (this.#server.address() as AddressInfo).port
  }

  close(): void {
    this.#server.close()
  }
}

for (const version of ['15', '18'] as const) {
  const trips = suite<{ target: JitTarget, counter: Counter }>(`PostgreSQL ${version}`)

  trips.before(async state => {
    state.target = await startJitTarget({ version })
    state.counter = new Counter(state.target.server.port)
    const { access } = state.target
    Object.assign(access, { target: { ...access.target, port: await state.counter.listen() } })
    // The first account makes our own two roles.
    await state.target.remove(await state.target.create())
  })
  trips.after(async ({ target, counter }) => {
    counter.close()
    await target[Symbol.asyncDispose]()
  })

  trips('an account is made in 2 round trips, and taken away in 4 with its look', async ({
    target, counter
  }) => {
    const counts: Record<'create' | 'look' | 'remove', number[]> = { create: [], look: [], remove: [] }
    const times: Record<keyof typeof counts, number[]> = { create: [], look: [], remove: [] }
    const counted = async <T>(what: keyof typeof counts, act: () => Promise<T>): Promise<T> => {
      const [before, startedMs] = [counter.syncs, performance.now()]
      const result = await act()
      times[what].push(performance.now() - startedMs)
      counts[what].push(counter.syncs - before)
      return result
    }
    for (let round = 0; round < 20; round++) {
      const account = await counted('create', () => target.create())
      assert.is((await counted('look', () => target.look(account))).exists, true)
      assert.is((await counted('remove', () => target.remove(account))).state, 'done')
    }
    const median = (list: number[]): string => list.sort((a, b) => a - b)[list.length >> 1]!.toFixed(1)
    for (const [what, all] of Object.entries(counts)) {
      const time = median(times[what as keyof typeof times])
      process.stdout.write(`${version}: ${what} ${all[0]} round trips, median ${time} ms\n`)
    }
    assert.equal([...new Set(counts.create)], [2])
    assert.equal([...new Set(counts.look)], [1])
    assert.equal([...new Set(counts.remove)], [4])
  })

  trips('who is refused is told at which step, though the steps travel together', async ({ target }) => {
    const account = target.mint()
    const job: HookJob = target.job('create', 'create-role', account, {
      roles: ['no_such_role'], ...account.minted
    })
    const refused = await target.hooks.run(job)
    assert.is(refused.state, 'refused')
    assert.is(refused.failedStep, 'make the role')
    assert.is((await target.look(account)).exists, false)
  })

  trips.run()
}
