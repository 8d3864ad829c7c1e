// Auditors list and search recordings (D4): 200 of them, by who and when and by any text in statements and
// output, without a database. The index beside a recording only saves work: without it, with a wrong or a
// damaged one, the same is found.
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { listRecordings, openRecording, search } from '../src/recording/catalog.ts'
import type { Hit, SearchOptions } from '../src/recording/catalog.ts'
import { resolveBeneath } from '../src/recording/paths.ts'
import { RecordingFile, readFrames } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { buildIndex, indexOf, loadIndex, mayContain, seek } from '../src/recording/sidecar.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import { StillClock, answer, headOf, keyPair, openFolder, temporaryFolder } from './peers/recordings.ts'

const { signer } = keyPair()
const dir = temporaryFolder()
const recordings = openFolder(dir, signer)

/** 200 recordings over four days, half of them terminals; each has a word of its own. */
async function fill(): Promise<void> {
  for (let number = 0; number < 200; number++) {
    const terminal = number % 2 === 1
    const recording = await recordings.create(headOf(`s${String(number).padStart(3, '0')}`, {
      user: number % 10 === 0 ? 'bob' : 'alice', target: terminal ? 'web01' : 'orders',
      protocol: terminal ? 'ssh' : 'postgres', startedAt: `2026-11-2${1 + number % 4}T04:00:00.000Z`
    }))
    if (terminal) {
      const words = ['\x1b[01;32mroot@web01\x1b[0m:~# ', 'c', 'a', 't', ' wo', `rd-${number}-`, 'of-mine\r\n']
      for (const word of words) recording.append(frameKind.output, 1, Buffer.from(word))
      recording.append(frameKind.input, 1, Buffer.from('typed-password\r'))
      const event = { type: 'warning', text: `event-${number}` }
      recording.append(frameKind.event, 0, Buffer.from(JSON.stringify(event)))
    } else {
      const sql = `SELECT *\n  FROM customers\nWHERE code = 'Word-${number}-Of-Mine'`
      const change = wire.query("ALTER ROLE x PASSWORD 'Geheim-99'")
      const error = answer.error('42P01', `relation of ${number} is missing`)
      recording.append(frameKind.statement, 0, wire.query(sql), change)
      recording.append(frameKind.result, 0, error, answer.ready())
    }
    await recording.seal({ how: 'ended', reason: 'client-closed' })
  }
}

async function found(query: string, more: Partial<SearchOptions> = {}): Promise<Hit[]> {
  const hits: Hit[] = []
  for await (const hit of search({ dir, query, ...more })) hits.push(hit)
  return hits
}

function indexes(): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.spx'))
}

test('of 200 recordings the one with the text is found, in statements and output, without case', async () => {
  await fill()
  const [statement, ...none] = await found('WORD-42-of-mine')
  assert.equal(none, [])
  assert.is(statement?.session, 's042')
  assert.is(statement?.kind, 'statement')
  assert.is(statement?.at.slice(0, 19), '2026-11-23T04:00:00')
  assert.match(statement?.text ?? '', "code = 'Word-42-Of-Mine'")
  const [output] = await found('cat word-43-OF')
  assert.is(output?.session, 's043')
  assert.is(output?.lane, 1)
  assert.is(output?.text, 'root@web01:~# cat word-43-of-mine')
  assert.equal((await found('relation of 8 is missing')).map(hit => hit.session), ['s008'])
  assert.equal((await found('warning event-101')).map(hit => hit.session), ['s101'])
  assert.equal((await found('from customers where code')).length, 100, 'any white space is one blank')
  assert.is(indexes().length, 200)
})

test('an index lets a search skip nearly all recordings that do not hold the text', async () => {
  let opened = 0
  for (const listed of listRecordings(dir)) {
    using file = new RecordingFile(resolveBeneath(dir, listed.path))
    if (mayContain(await indexOf(file), 'word-42-of-mine')) opened++
  }
  assert.ok(opened >= 1 && opened < 10, `${opened} of 200`)
})

test('without indexes, and with damaged or foreign ones, the same is found', async () => {
  const expected = await found('word-12')
  assert.equal(expected.map(hit => hit.session).sort(),
    ['s012', ...Array.from({ length: 10 }, (_, n) => `s12${n}`)])
  const check = async (more: Partial<SearchOptions> = {}): Promise<void> => {
    assert.equal(await found('word-12', more), expected)
  }
  for (const name of indexes()) rmSync(join(dir, name))
  await check({ useIndex: false })
  assert.is(indexes().length, 0)
  await check()
  const names = indexes()
  const first = readFileSync(join(dir, names[0]!))
  for (const [number, name] of names.entries()) {
    const bytes = readFileSync(join(dir, name))
    const damaged = [bytes.subarray(0, 20), Buffer.from('SPX1'), Buffer.alloc(0), first,
      Buffer.alloc(9000, 0xff)]
    writeFileSync(join(dir, name), damaged[number % damaged.length]!)
  }
  await check()
  // Made again where they did not fit.
  for (const name of indexes()) {
    using file = new RecordingFile(join(dir, name.replace(/spx$/, 'spr')))
    assert.ok(await loadIndex(file) !== undefined, name)
  }
})

test('filters narrow a search and a list; the newest day comes first', async () => {
  assert.is((await found('customers', { filters: { user: 'bob' } })).length, 20)
  assert.is((await found('customers', { filters: { target: 'web01' } })).length, 0)
  assert.equal((await found('word', { filters: { session: 's043' } })).map(hit => hit.session), ['s043'])
  const listed = [...listRecordings(dir, { from: '2026-11-22T00:00:00Z', to: '2026-11-23T04:00:00Z' })]
  assert.is(listed.length, 50)
  assert.ok(listed.every(each => each.head.startedAt.startsWith('2026-11-22')))
  const all = [...listRecordings(dir)]
  assert.is(all.length, 200)
  assert.is(all[0]?.head.startedAt.slice(0, 10), '2026-11-24')
  assert.equal(all[0]?.close?.reason, 'client-closed')
  assert.is((await found('customers', { hitsMax: 7 })).length, 7)
  const filters = { session: 's001' }
  assert.ok((await found('e', { filters })).length > 1)
  const leaving = new AbortController()
  const early: Hit[] = []
  for await (const hit of search({ dir, query: 'e', filters, signal: leaving.signal })) {
    early.push(hit)
    leaving.abort()
  }
  assert.is(early.length, 1, 'whoever leaves ends it within a recording')
})

test('a password in SQL and what was typed are not found, not shown, and not in an index', async () => {
  for (const query of ['Geheim-99', 'typed-password']) assert.equal(await found(query), [], query)
  assert.is((await found('alter role x password')).length, 100)
  assert.match((await found('alter role x password'))[0]?.text ?? '', "PASSWORD '<secret>'")
  using file = openRecording(dir, 's002')
  assert.not.ok(mayContain(await buildIndex(file), 'geheim-99'))
})

test('a session that still runs is searched too', async () => {
  const recording = await recordings.create(headOf('live'))
  recording.append(frameKind.statement, 0, wire.query('SELECT only_here_and_now'))
  await recording.commit()
  assert.equal((await found('ONLY_here')).map(hit => hit.session), ['live'])
  assert.is([...listRecordings(dir, { session: 'live' })][0]?.close, undefined)
  assert.not.ok(indexes().some(name => name.includes('live')), 'an index of it would soon be wrong')
  await recording.seal({ how: 'ended', reason: 'client-closed' })
})

test('hits are inert, and files that are no recordings do not disturb', async () => {
  const recording = await recordings.create(headOf('hostile'))
  recording.append(frameKind.statement, 0, wire.query('SELECT needle_x \x1b]0;owned\x07 \u202e'))
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  writeFileSync(join(dir, '2026/11/21/nonsense.spr'), 'not a recording')
  writeFileSync(join(dir, '2026/11/21/..weird.spr'), '')
  const [hit] = await found('needle_x')
  assert.is(hit?.text, 'SELECT needle_x \\x1b]0;owned\\x07 \\u202e')
})

test('senseless questions are refused', async () => {
  const refused = async (act: () => Promise<unknown>): Promise<void> => {
    try {
      await act()
      assert.unreachable()
    } catch (thrown) {
      assert.ok(thrown instanceof SallyportError && ['invalid', 'not-found'].includes(thrown.code))
    }
  }
  await refused(() => found(''))
  await refused(() => found('   '))
  await refused(() => found('x'.repeat(1001)))
  await refused(() => found('x', { filters: { from: 'yesterday' } }))
  await refused(async () => openRecording(dir, 'nobody'))
})

test('a time is found in a long recording by its index, and reading goes on from there', async () => {
  const clock = new StillClock()
  const long = await openFolder(dir, signer, { clock }).create(headOf('long'))
  for (let second = 0; second < 400; second++) {
    clock.advance(1000)
    long.append(frameKind.output, 0, Buffer.from(`second ${second + 1} `.repeat(200)))
    await long.commit()
    if (second % 50 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  await long.seal({ how: 'ended', reason: 'client-closed' })
  using file = openRecording(dir, 'long')
  const index = await indexOf(file)
  assert.ok(index.marks.length > 5)
  assert.is(seek(index, 0), undefined)
  for (const second of [1, 100, 333, 400, 9999]) {
    const fromOffset = seek(index, second * 1000)
    for await (const frame of readFrames(file, { fromOffset })) {
      assert.ok(frame.atMicroseconds <= second * 1e6, 'not behind the moment that was asked for')
      assert.ok(frame.atMicroseconds > (Math.min(second, 400) - 60) * 1e6, 'and not far before it')
      break
    }
  }
})

test('an index is of the recording that it was made from', async () => {
  using file = openRecording(dir, 's001')
  const path = file.path.replace(/spr$/, 'spx')
  await indexOf(file)
  const before = readFileSync(path)
  using other = openRecording(dir, 's003')
  writeFileSync(other.path.replace(/spr$/, 'spx'), before)
  assert.is(await loadIndex(other), undefined)
  assert.ok((await indexOf(other)).id !== (await indexOf(file)).id)
})

test.run()
