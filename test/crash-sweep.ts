// deadline: 240 s
// The crash sweep in short: a fixed, even sample of the points at which tool/crash-sweep.ts kills the proxy,
// on both stores and both kinds of accounts. Whatever was under way, the next start leaves nothing on the
// target, every recording is whole, the audit log verifies and the ledger has every account proved gone (R2,
// F1 to F6).
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { World, countCalls, scenarios, spread } from '../tool/crash-sweep.ts'
import type { Point, Scenario } from '../tool/crash-sweep.ts'

// Points for each kind of account; about two seconds each.
const sample: Record<Scenario['store'], Record<Scenario['thread'], number>> = {
  embedded: { store: 2, pool: 0, main: 2 },
  postgres: { store: 0, pool: 0, main: 2 }
}

const worlds = new Map<string, World>()

test.before(async () => {
  for (const store of ['embedded', 'postgres'] as const) worlds.set(store, await World.open(store))
})
test.after(async () => {
  for (const world of worlds.values()) await world.close()
})

for (const store of ['embedded', 'postgres'] as const) {
  test(`killed at a sample of its writes, on the ${store} store, the proxy leaves nothing`, async () => {
    const world = worlds.get(store)!
    const points: Point[] = []
    for (const scenario of scenarios.filter(each => each.store === store)) {
      const wanted = sample[store][scenario.thread]
      if (wanted === 0) continue
      const count = await countCalls(world, scenario)
      // Not the first calls, which are the login.
      for (const n of spread(count, wanted + 1).slice(1)) {
        const point = await world.point(scenario, n)
        assert.equal(point.faults, [], `${scenario.name}, call ${n} of ${count}`)
        points.push(point)
      }
    }
    // Otherwise nothing was tried: the tracer kills nothing, or never in the middle.
    const killed = points.filter(each => each.killed)
    assert.ok(killed.length >= points.length - 1, `${killed.length} of ${points.length} were killed`)
    assert.ok(killed.some(({ left }) => left !== ''), 'none was killed while an account existed')
  })
}

test('after all these crashes every account is proved gone and all evidence is whole', async () => {
  for (const world of worlds.values()) assert.equal(await world.lastWord(), [])
})

test.run()
