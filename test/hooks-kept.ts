// Connections that are kept between hooks: few, not for long, a bounded number of uses, and none of another
// login. The connections are pretended and the clock is the test's; the real ones are in
// plugin-postgres-together.ts.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Keeper } from '../src/jit/kept.ts'

const limits = { keptMax: 2, keptIdleMs: 100, keptLifeMs: 1000, keptUsesMax: 3 }

class Pretended {
  closed = false
  broken = false

  isBroken(): boolean {
    return this.broken
  }

  close(): Promise<void> {
    this.closed = true
    return Promise.resolve()
  }
}

function stage(): { keeper: Keeper, pass(ms: number): void } {
  let nowMs = 0
  let timers: { dueMs: number, act: () => void }[] = []
  const keeper = new Keeper(limits, {
    now: () => new Date(nowMs), monotonicMs: () => nowMs,
    after(delayMs, act) {
      const timer = { dueMs: nowMs + delayMs, act }
      timers.push(timer)
      return () => { timers = timers.filter(other => other !== timer) }
    }
  })
  return {
    keeper,
    pass(ms) {
      nowMs += ms
      for (const { act } of timers.filter(({ dueMs }) => dueMs <= nowMs)) act()
    }
  }
}

test('what is given is taken once, by its own slot and login only', () => {
  const { keeper } = stage()
  const one = new Pretended()
  keeper.give('slot', 'login', one)
  assert.is(keeper.take('another slot', 'login'), undefined)
  assert.is(keeper.take('slot', 'login'), one)
  assert.is(keeper.take('slot', 'login'), undefined)
  assert.is(one.closed, false)
})

test('another login of the slot closes those of the one before', () => {
  const { keeper } = stage()
  const [old, aside] = [new Pretended(), new Pretended()]
  keeper.give('slot', 'old', old)
  keeper.give('aside', 'old', aside)
  assert.is(keeper.take('slot', 'new'), undefined)
  assert.equal([old.closed, aside.closed], [true, false])
})

test('there are at most so many; the one that waits longest goes', () => {
  const { keeper } = stage()
  const all = [new Pretended(), new Pretended(), new Pretended()]
  for (const each of all) keeper.give('slot', 'login', each)
  assert.equal(all.map(({ closed }) => closed), [true, false, false])
  assert.is(keeper.take('slot', 'login'), all[2])
})

test('one that is idle, old, used up or broken is closed', () => {
  const idle = stage()
  const one = new Pretended()
  idle.keeper.give('slot', 'login', one)
  idle.pass(99)
  assert.is(one.closed, false)
  idle.pass(1)
  assert.is(one.closed, true)

  const old = stage()
  const two = new Pretended()
  for (let turn = 0; turn < 20 && !two.closed; turn++) {
    old.keeper.give('slot', 'login', two)
    old.pass(90)
    old.keeper.take('slot', 'login')
  }
  assert.is(two.closed, true)

  const used = stage()
  const three = new Pretended()
  for (let turn = 0; turn < limits.keptUsesMax; turn++) {
    assert.is(three.closed, false)
    used.keeper.give('slot', 'login', three)
    used.keeper.take('slot', 'login')
  }
  assert.is(three.closed, true)

  const broken = stage()
  const four = new Pretended()
  broken.keeper.give('slot', 'login', four)
  four.broken = true
  assert.is(broken.keeper.take('slot', 'login'), undefined)
  assert.is(four.closed, true)
})

test('after the end nothing is kept', async () => {
  const { keeper } = stage()
  const [one, two] = [new Pretended(), new Pretended()]
  keeper.give('slot', 'login', one)
  assert.is(keeper.isEmpty, false)
  assert.is(await keeper.clear(), true)
  assert.is(keeper.isEmpty, true)
  assert.is(await keeper.clear(), false)
  keeper.close()
  keeper.give('slot', 'login', two)
  assert.equal([one.closed, two.closed], [true, true])
})

test.run()
