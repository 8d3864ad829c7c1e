// Files whose pieces pass by in any order: the hash is that of the content, or there is none; and what waits
// is bounded for all files together.
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { EarlyBudget, Sequence } from '../src/wire/ssh/sequence.ts'

const content = Buffer.from(Array.from({ length: 1000 }, (_, n) => n & 255))
const sha256 = createHash('sha256').update(content).digest('hex')

test('pieces that come early wait for those before them', () => {
  const budget = new EarlyBudget()
  const all = budget.left
  const sequence = new Sequence(budget)
  sequence.begin(0)
  for (const at of [300, 0, 100, 900, 700, 800, 200, 400, 600, 500]) {
    sequence.add(at, content.subarray(at, at + 100))
  }
  assert.equal(sequence.facts(), { bytes: 1000, sha256 })
  assert.is(budget.left, all)
})

test('what is missing, doubled or begins in the middle is told as partial', () => {
  const facts = (...pieces: [at: number, end: number][]): unknown => {
    const sequence = new Sequence(new EarlyBudget())
    for (const [at, end] of pieces) sequence.add(at, content.subarray(at, end))
    return sequence.facts()
  }
  assert.equal(facts([0, 10], [20, 30]), { bytes: 20, partial: true })
  assert.equal(facts([0, 10], [5, 15]), { bytes: 20, partial: true })
  const rest = createHash('sha256').update(content.subarray(500)).digest('hex')
  assert.equal(facts([500, 1000]), { bytes: 500, sha256: rest, offset: 500, partial: true })
})

test('all files together keep no more than their budget, however small the pieces', () => {
  const budget = new EarlyBudget(100_000)
  const files = Array.from({ length: 50 }, () => new Sequence(budget))
  for (const file of files) {
    file.begin(0)
    for (let n = 1; n < 100; n++) file.add(n * 2, content.subarray(0, 1))
    assert.ok(budget.left >= 0)
  }
  for (const file of files) file.facts()
  assert.is(budget.left, 100_000)
})

test.run()
