// How many removals of a target are begun at once: a few for one that is slow or unknown, as many as it takes
// away in a second for one that is quick, and never more than that. The clock is the test's.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ledgerLimits } from '../src/lease/limits.ts'
import { createPace } from '../src/lease/pace.ts'
import type { Pace } from '../src/lease/pace.ts'
import type { LedgerOptions } from '../src/lease/context.ts'

const limits = { ...ledgerLimits, perTarget: 4, perTargetMax: 20 }

function stage(): { pace: Pace, pass(ms: number): void, remove(count: number): void } {
  let nowMs = 0
  const clock = { now: () => new Date(nowMs), monotonicMs: () => nowMs, after: () => () => undefined }
  const pace = createPace({ options: { clock } as unknown as LedgerOptions, limits })
  return {
    pace,
    pass(ms) { nowMs += ms },
    remove(count) {
      for (let each = 0; each < count; each++) pace.began('t')
      for (let each = 0; each < count; each++) pace.ended('t')
    }
  }
}

test('what runs takes of the room, and gives it back', () => {
  const { pace } = stage()
  assert.equal(pace.room(), {})
  for (let each = 0; each < 3; each++) pace.began('t')
  assert.equal([pace.room(), pace.load], [{ t: 1 }, 3])
  for (let each = 0; each < 3; each++) pace.began('t')
  assert.equal([pace.room(), pace.load], [{ t: 0 }, 6])
  for (let each = 0; each < 6; each++) pace.ended('t')
  assert.is(pace.load, 0)
})

test('a quick target gets as many as it took away in a second, up to the limit', () => {
  const { pace, pass, remove } = stage()
  remove(12)
  assert.equal(pace.room(), { t: 12 })
  pass(1100)
  assert.equal(pace.room(), { t: 12 }, 'in the second after that, too')
  remove(50)
  assert.equal(pace.room(), { t: 20 })
  pass(1000)
  pace.began('t')
  assert.equal(pace.room(), { t: 19 })
  // It hangs: what it once did is forgotten.
  pass(2500)
  assert.equal(pace.room(), { t: 3 })
  pace.ended('t')
  pass(5000)
  assert.equal(pace.room(), {})
})

test.run()
