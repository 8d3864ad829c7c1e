// The short form of the benchmark of leases: every part runs on real servers, and what it measured is gone
// from the target when it says so (it throws otherwise). Its figures mean nothing here (R27).
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bench, short } from '../tool/bench-leases.ts'

test('lifecycles, many ends at once and audit events are measured, and no account is left', async () => {
  const rows = await bench({ ...short, lifecycles: 20, expiring: 20, events: 500, stores: ['embedded'] })
  assert.equal(Object.keys(rows), ['lifecycles', 'expiry', 'audit'])
  for (const [part, [row, ...rest]] of Object.entries(rows)) {
    assert.equal(rest, [], part)
    const [store, ...figures] = row!
    assert.is(store, 'embedded')
    for (const figure of figures) assert.ok(Number(figure) > 0, `${part}: ${row!.join(' ')}`)
  }
})

test.run()
