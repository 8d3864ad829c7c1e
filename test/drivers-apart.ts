// A driver that spins, keeps too much, throws out of turn or ends is ended with its thread at a limit (F12);
// the driver of another target answers all the while, and the next connection of the same target gets a new
// thread. The threads are the real ones; only the driver is one that goes wrong at a word.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { connectApart } from '../plugins/apart/thread.ts'
import type { Client } from '../plugins/apart/words.ts'
import type { ConnectionLost } from '../src/wire/postgres/query.ts'

const driver = new URL('peers/driver-gone-wrong.ts', import.meta.url)
const connectMs = 10_000
const statementMs = 300
// The limit of the statement, the thread's grace of two seconds, and a busy machine.
const endMsMax = 10_000
// The heap's limit, and what it grows by between two looks.
const mebibytesMax = 512
// Its interval is far through by then.
const unaskedMs = 1500

const open = (target: string): Promise<Client> =>
  connectApart(driver, target, {}, connectMs, new AbortController().signal)

const outcome = async (client: Client, sql: string, limitMs: number): Promise<string> =>
  client.query(sql, limitMs).then(
    rows => rows.flat().join(), (lost: ConnectionLost) => `${lost.reason}: ${lost.message}`)

for (const [wrong, limitMs, said] of [
  ['spin', statementMs, /^timeout: the driver gave up: it does not answer/],
  ['leak', endMsMax, /^violation: the driver gave up: it keeps too much memory/],
  ['throw out of turn', endMsMax, /^violation: the driver gave up: out of turn/],
  ['end', endMsMax, /^violation: the driver gave up: it ended/]
] as const) {
  test(`a driver that does this is ended, and no other: ${wrong}`, async () => {
    const [client, other] = await Promise.all([open('wrong'), open('other')])
    const startedMs = performance.now()
    const residentBefore = process.memoryUsage().rss
    const ended = outcome(client, wrong, limitMs)
    assert.is(await outcome(other, 'answer', endMsMax), 'an answer')
    assert.match(await ended, said)
    assert.ok(performance.now() - startedMs < endMsMax, `${performance.now() - startedMs} ms`)
    assert.ok(process.memoryUsage().rss - residentBefore < mebibytesMax * 2 ** 20)
    assert.match(await outcome(client, 'answer', statementMs), /gave up/)
    assert.is(await outcome(other, 'answer', endMsMax), 'an answer')
    const again = await open('wrong')
    assert.is(await outcome(again, 'answer', endMsMax), 'an answer')
    for (const each of [client, other, again]) each.close()
  })
}

test('what a driver keeps while nobody asks it anything is looked at as well', async () => {
  const client = await open('wrong')
  assert.is(await outcome(client, 'answer and leak', endMsMax), 'an answer')
  await new Promise(resolve => setTimeout(resolve, unaskedMs))
  assert.match(await outcome(client, 'answer', endMsMax), /keeps too much memory/)
  client.close()
})

test.run()
