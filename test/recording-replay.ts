// Replay with its timing, live watch, and the exports: asciicast v2 and v3, SQL, JSON lines. What comes out
// is what was recorded, at its time, and safe to print.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { openRecording } from '../src/recording/catalog.ts'
import { exportAs } from '../src/recording/export.ts'
import type { ExportFormat, ExportOptions } from '../src/recording/export.ts'
import type { RecordingFile } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { RecordingHead } from '../src/recording/recording.ts'
import { play, replay, watch } from '../src/recording/replay.ts'
import type { Cue, ReplayOptions } from '../src/recording/replay.ts'
import { terminalReset } from '../src/recording/terminal.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import {
  StillClock, answer, headOf, keyPair, openFolder, temporaryFolder, until
} from './peers/recordings.ts'

const { signer } = keyPair()
const ended = { how: 'ended', reason: 'client-closed' } as const

/** A PostgreSQL session: a statement with a pause, an error, a password, a hostile comment. */
async function session(more: Partial<RecordingHead> = {}): Promise<RecordingFile> {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1', more))
  const step = (ms: number, kind: 5 | 6, ...parts: Buffer[]): void => {
    clock.advance(ms)
    recording.append(kind, 0, ...parts)
  }
  step(500, 5, wire.query('SELECT id\nFROM orders'))
  step(20, 6, answer.complete('SELECT 2', 2, 64), answer.ready())
  step(60_000, 5, wire.parse('', 'UPDATE t SET a = $1'), wire.bind('', '', ["it's"]), wire.execute(''),
    wire.sync())
  step(5, 6, answer.complete('UPDATE 7'), answer.ready())
  step(1000, 5, wire.query("ALTER ROLE a PASSWORD 'hidden'"))
  step(5, 6, answer.complete('ALTER ROLE'), answer.ready())
  step(1000, 5, wire.query('SELECT nonsense /* \x1b]0;owned\x07 */'))
  step(5, 6, answer.error('42703', 'column "nonsense" does not exist'), answer.ready())
  recording.append(frameKind.event, 0, Buffer.from(JSON.stringify({ type: 'killed', by: 'root\x1b[5n' })))
  await recording.seal({ how: 'cut', reason: 'session-killed' })
  return openRecording(dir, 's1')
}

/** A terminal: colours, a resize, a title that must not be set. */
async function terminal(): Promise<RecordingFile> {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const head = headOf('s1', { protocol: 'ssh', terminal: { columns: 100, rows: 30 } })
  const recording = await openFolder(dir, signer, { clock }).create(head)
  recording.append(frameKind.output, 1, Buffer.from('\x1b[1mred'))
  clock.advance(1500)
  recording.append(frameKind.output, 1, Buffer.from([0x1b, 0x5d, 0x30]))
  recording.append(frameKind.output, 1, Buffer.from(';owned\x07\x1b[0m ü'.slice(0, -1)), Buffer.from([0xc3]))
  recording.append(frameKind.input, 1, Buffer.from('secret\r'))
  clock.advance(500)
  recording.append(frameKind.output, 1, Buffer.from([0xbc, 0x0d, 0x0a]))
  recording.append(frameKind.event, 0, Buffer.from('{"type":"resize","columns":120,"rows":40}'))
  await recording.seal(ended)
  return openRecording(dir, 's1')
}

async function cues(file: RecordingFile, options: ReplayOptions = {}): Promise<Cue[]> {
  const all: Cue[] = []
  for await (const cue of replay(file, options)) all.push(cue)
  return all
}

async function exported(
  file: RecordingFile, format: ExportFormat, options: ExportOptions = {}
): Promise<string> {
  let text = ''
  for await (const piece of exportAs(file, format, options)) text += piece
  return text
}

test('a PostgreSQL session replays as it was seen, statement by statement, at its times', async () => {
  using file = await session()
  const played = await cues(file)
  assert.equal(played.map(cue => [Math.round(cue.delayMs), cue.text]), [
    [500, 'shop=> SELECT id\r\nFROM orders\r\n'], [20, '-- SELECT 2, 2 rows, 64 bytes, 20.0 ms\r\n'],
    [60_000, "shop=> UPDATE t SET a = $1\r\n-- $1 = 'it''s'\r\n"], [5, '-- UPDATE 7, 5.0 ms\r\n'],
    [1000, "shop=> ALTER ROLE a PASSWORD '<secret>'\r\n"],
    [5, '-- ALTER ROLE\r\n-- ALARM: a password is set, 5.0 ms\r\n'],
    [1000, 'shop=> SELECT nonsense /* \\x1b]0;owned\\x07 */\r\n'],
    [5, '-- ERROR 42703: column "nonsense" does not exist, 5.0 ms\r\n'],
    [0, '\r\n[killed root\\x1b[5n]\r\n'], [0, '\r\n[cut: session-killed]\r\n']
  ])
})

test('speed, a longest pause and a start change the waiting and nothing else', async () => {
  using file = await session()
  const normal = await cues(file)
  const total = (played: readonly { delayMs: number }[]): number =>
    Math.round(played.reduce((sum, cue) => sum + cue.delayMs, 0))
  assert.is(total(normal), 62_535)
  assert.is(total(await cues(file, { speed: 10 })), 6254)
  assert.is(total(await cues(file, { maxIdleSeconds: 2 })), 4535)
  assert.is(total(await cues(file, { maxIdleSeconds: 2, speed: 2 })), 2268)
  const late = await cues(file, { fromSeconds: 60 })
  assert.is(total(late), 2535)
  for (const options of [{ speed: 3 }, { maxIdleSeconds: 1 }, { fromSeconds: 60 }]) {
    assert.equal((await cues(file, options)).map(cue => cue.text).join(''),
      normal.map(cue => cue.text).join(''))
  }
})

test('a terminal replays with its colours, without what it must not do, and is left in order', async () => {
  using file = await terminal()
  const played = await cues(file)
  const shown = `\x1b[1mred\x1b[0m ü\r\n${terminalReset}\r\n[ended: client-closed]\r\n`
  assert.is(played.map(cue => cue.text).join(''), shown)
  assert.equal(played.map(cue => cue.delayMs).filter(ms => ms > 0), [1500, 500])
})

test('play waits by the clock and stops when it is told', async () => {
  using file = await session()
  const clock = new StillClock()
  let shown = ''
  const playing = play(file, text => { shown += text }, clock, { speed: 1 })
  await until(() => clock.timers > 0)
  assert.is(shown, '')
  clock.advance(500)
  await until(() => clock.timers > 0)
  assert.match(shown, 'FROM orders')
  assert.not.match(shown, 'SELECT 2')
  while (!shown.includes('session-killed')) {
    clock.advance(1000)
    await new Promise(resolve => setImmediate(resolve))
  }
  await playing
  const stopping = new AbortController()
  const stopped = play(file, () => undefined, clock, { signal: stopping.signal })
    .then(() => 'end', () => 'stopped')
  stopping.abort(new Error('enough'))
  assert.is(await stopped, 'stopped')
})

test('a watcher sees a live session to its end', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  using file = openRecording(dir, 's1')
  const clock = { ...systemClock, after: (_: number, act: () => void) => {
    const handle = setImmediate(act)
    return () => clearImmediate(handle)
  } }
  let shown = ''
  const watching = (async () => {
    for await (const text of watch(file, { clock })) shown += text
  })()
  recording.append(frameKind.statement, 0, wire.query('SELECT live'))
  recording.append(frameKind.result, 0, answer.complete('SELECT 1', 1, 4), answer.ready())
  await recording.commit()
  await until(() => shown.includes('SELECT live'))
  await recording.seal(ended)
  await watching
  assert.match(shown, '[ended: client-closed]')
})

test('asciicast v2 counts from the start, v3 from the event before', async () => {
  using file = await terminal()
  const read = (text: string): unknown[] =>
    text.trimEnd().split('\n').map(line => JSON.parse(line) as unknown)
  const [head2, ...events2] = read(await exported(file, 'asciicast-v2'))
  assert.equal(head2, {
    version: 2, width: 100, height: 30, timestamp: 1795233600,
    title: 'alice as orders-rw on orders, session s1', env: { TERM: 'xterm-256color' }
  })
  const end = terminalReset
  assert.equal(events2, [
    [0, 'o', '\x1b[1mred'], [1.5, 'o', '\x1b[0m '], [2, 'o', 'ü\r\n'], [2, 'r', '120x40'], [2, 'o', end],
    [2, 'm', 'ended: client-closed']
  ])
  const [head3, ...events3] = read(await exported(file, 'asciicast-v3'))
  assert.equal(head3, {
    version: 3, term: { cols: 100, rows: 30, type: 'xterm-256color' }, timestamp: 1795233600,
    title: 'alice as orders-rw on orders, session s1'
  })
  assert.equal(events3, [
    [0, 'o', '\x1b[1mred'], [1.5, 'o', '\x1b[0m '], [0.5, 'o', 'ü\r\n'], [0, 'r', '120x40'], [0, 'o', end],
    [0, 'm', 'ended: client-closed']
  ])
  using statements = await session()
  const events = read(await exported(statements, 'asciicast-v2')) as [number, string, string][]
  assert.equal(events[3], [60.52, 'o', "shop=> UPDATE t SET a = $1\r\n-- $1 = 'it''s'\r\n"])
})

test('the SQL file holds what ran, with times and parameters, and comments out what did not', async () => {
  using file = await session()
  const text = await exported(file, 'sql')
  const [key] = /(?<=\\restrict )[0-9a-f]{48}/.exec(text) ?? ['none']
  assert.is(text.replaceAll(key, 'KEY'), [
    '-- Sallyport session s1, started 2026-11-21T04:00:00.000Z',
    '-- alice as orders-rw on orders, from 192.0.2.7',
    '\\restrict KEY', '',
    '-- 2026-11-21T04:00:00.500Z +0.500 s, query', 'SELECT id', 'FROM orders', ';',
    '-- SELECT 2, 2 rows, 64 bytes, 20.0 ms',
    '', '-- 2026-11-21T04:01:00.520Z +60.520 s, execute', "--   $1 = 'it''s'", 'UPDATE t SET a = $1', ';',
    '-- UPDATE 7, 5.0 ms',
    '', '-- 2026-11-21T04:01:01.525Z +61.525 s, query', "ALTER ROLE a PASSWORD '<secret>'", ';',
    '-- ALTER ROLE', '-- ALARM: a password is set, 5.0 ms',
    '', '-- 2026-11-21T04:01:02.530Z +62.530 s, query', '-- SELECT nonsense /* \\x1b]0;owned\\x07 */',
    '-- ERROR 42703: column "nonsense" does not exist, 5.0 ms', '', '\\unrestrict KEY', ''
  ].join('\n'))
})

test('JSON lines hold everything, and typed input only when it is asked for', async () => {
  using file = await session({ user: 'al\u202eice' })
  const text = await exported(file, 'jsonl')
  assert.not.match(text.replaceAll('\n', ''), /[\0-\x1f\x7f-\x9f\u202e]/)
  const lines = text.trimEnd().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
  const types = ['open', 'statement', 'statement', 'statement', 'statement', 'event', 'close']
  assert.equal(lines.map(line => line['type']), types)
  assert.is(lines[0]?.['user'], 'al\u202eice')
  assert.is(lines[2]?.['at'], '2026-11-21T04:01:00.520Z')
  assert.equal(lines[2]?.['parameters'], ["it's"])
  assert.is(lines[3]?.['alarm'], 'password-change')
  assert.is(lines[5]?.['event'], 'killed')
  assert.not.match(text, 'hidden')
  using shell = await terminal()
  assert.not.match(await exported(shell, 'jsonl'), '"input"')
  const all = await exported(shell, 'jsonl', { withInput: true })
  assert.match(all, Buffer.from('secret\r').toString('base64'))
})

test.run()
