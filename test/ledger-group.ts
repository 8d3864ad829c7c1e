// Moves of the ledger in groups, where the store does what a real one cannot be made to do quickly: it hangs.
// Nobody waits for more than one group's time, and not more moves wait than memory should hold.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import type { Database, Handle } from '../src/store/database.ts'
import { createMoveWriter, movesWaitingMax } from '../src/store/ledger-group.ts'
import type { Move } from '../src/store/ledger-group.ts'
import { MovableClock, codeOf } from './peers/lease-world.ts'

const move: Move<string, string> = {
  keyOf: item => item,
  act: (_tx, items) => Promise.resolve(items.map(item => `${item} done`))
}

/** A store that gives up its first call after so long, by a clock that stands otherwise. */
function writerOver(firstTakesMs: number) {
  const clock = new MovableClock()
  let calls = 0
  const run: Database['run'] = async act => {
    if (++calls > 1) return act({} as Handle)
    await Promise.resolve()
    clock.forwardMs += firstTakesMs
    throw new SallyportError('store-unavailable')
  }
  const database: Pick<Database, 'run' | 'inTransaction' | 'detached'> = {
    run, inTransaction: () => false, detached: act => act()
  }
  return createMoveWriter(database as Database, { appendIn: () => undefined }, clock)
}

const codesOf = async (writer: ReturnType<typeof writerOver>, count: number): Promise<string[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => codeOf(writer.write(move, `a${index}`))))

test('of a store that hangs all hear at once; one whose connection broke is asked again', async () => {
  const hung = writerOver(5000)
  assert.equal(new Set(await codesOf(hung, 200)), new Set(['store-unavailable']))
  assert.is(await hung.write(move, 'later'), 'later done')
  const broken = await codesOf(writerOver(10), 200)
  assert.is(broken.filter(code => code === 'store-unavailable').length, 64)
})

test('more moves than can be held are refused', async () => {
  const codes = await codesOf(writerOver(10), movesWaitingMax + 5)
  assert.equal(codes.slice(-5), Array.from({ length: 5 }, () => 'store-unavailable'))
  assert.is(codes.at(-6), 'no error')
})

test.run()
