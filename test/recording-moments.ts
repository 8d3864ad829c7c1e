// A recording from any moment on: a jump shows the screen of that moment, whatever had been drawn, reads a
// piece and not the whole, and the pieces one after the other are the recording.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openRecording } from '../src/recording/catalog.ts'
import { linesFrom } from '../src/recording/export.ts'
import { createMoments } from '../src/recording/moments.ts'
import { pictureOf } from '../src/recording/picture.ts'
import type { RecordingFile } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { Screen } from '../src/recording/screen.ts'
import { scenes } from '../src/recording/screenplay.ts'
import type { Scene } from '../src/recording/screenplay.ts'
import { TerminalFilter } from '../src/recording/terminal.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import {
  StillClock, answer, headOf, keyPair, openFolder, seeded, temporaryFolder
} from './peers/recordings.ts'

const { signer } = keyPair()
const nowhere = { atMs: 0, offset: 0 }

function styled(columns: number, rows: number): Screen {
  return new Screen(columns, rows, () => undefined, { styled: true })
}

/** What can be told apart on a screen: cells without what is blank at the end, and all that counts later. */
function looks(screen: Screen): unknown {
  const { lines, main, ...rest } = screen.state()
  const shown = (of: readonly (readonly string[])[]): string[] =>
    of.map(cells => Array.from(cells, cell => cell ?? ' ').join('|').replace(/(\|? )+$/, ''))
  return { ...rest, lines: shown(lines), main: main && { ...main, lines: shown(main.lines) } }
}

function drawnAgain(screen: Screen): Screen {
  const { columns, rows } = screen.state()
  const again = styled(columns, rows)
  again.write(pictureOf(screen.state()), nowhere)
  return again
}

test('a picture is the screen: colours, cursor, wide characters, lines, editors, erased backgrounds', () => {
  const cases = [
    'plain', '\x1b[1;31mred\x1b[0m and \x1b[38;5;200mpink\x1b[48;2;1;2;3m on\x1b[K', 'ab\x1b[4:3mc\x1b[24md',
    '漢字 and e\u0301', '\x1b(0lqqk\x1b(B', 'shell\x1b[?1049h\x1b[Hvi\x1b[31m\x1b[?25l', '0123456789',
    '\x1b[2;3rin\x1b[5Bregion', '\x1b[44m\x1b[2J\x1b[3;4Hblue', 'x\x1b[3b', '\x1b[7msaved\x1b7\x1b[H'
  ]
  for (const text of cases) {
    const screen = styled(10, 4)
    screen.write(text, nowhere)
    assert.equal(looks(drawnAgain(screen)), looks(screen), JSON.stringify(text))
  }
  const screen = styled(10, 2)
  screen.write('\x1b[31mr\x1b[0m漢\x1b(0q', nowhere)
  assert.equal(screen.state().lines[0], ['\x1b[31mr', '漢', '', '─'])
})

test('whatever was drawn, the picture goes on as the screen would have', () => {
  const random = seeded(11)
  const finals = '@ABCDEFGHJKLMPSTX`adefglmrsu'
  const some = (): string => {
    const numbers = ['', '9', '5;3', '1;1', '31', '48;5;7', '0', '2;3', '?1049', '?25'][random(10)]
    const sequence = `\x1b[${numbers}${finals[random(finals.length)]}`
    return ['plain ', '\r\n', '\b', '\t', 'x'.repeat(random(30)), sequence, '\x1bM', '漢', '\x1b(0', '\x1b(B',
      '\x1b[?1049h', '\x1b[?1049l', '\x1b7', '\x1b8'][random(14)]!
  }
  for (let round = 0; round < 150; round++) {
    const filter = new TerminalFilter()
    const screen = styled(5 + random(20), 2 + random(8))
    for (let n = 0; n < 40; n++) screen.write(filter.write(some()), nowhere)
    const again = drawnAgain(screen)
    assert.equal(looks(again), looks(screen), `round ${round}`)
    const more = Array.from({ length: 20 }, some).join('')
    screen.write(filter.write(more), nowhere)
    const other = new TerminalFilter()
    again.write(other.write(more), nowhere)
    assert.equal(looks(again), looks(screen), `round ${round}, later`)
  }
})

/** From mark to mark of two hours. */
const markMs = 16_000
const marks = 450

/** Two hours of a terminal that draws without end, some 5 MB. */
async function twoHours(): Promise<RecordingFile> {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1', { protocol: 'ssh' }))
  const event = (lane: number, body: object): void =>
    recording.append(frameKind.event, lane, Buffer.from(JSON.stringify(body)))
  event(2, { type: 'pty', term: 'xterm', columns: 90, rows: 20, echo: true })
  const filler = Buffer.from('\x1b[32m漢字 filler\x1b[0m\r\n'.repeat(400))
  for (let n = 1; n <= marks; n++) {
    clock.advance(markMs)
    // In two frames, cut in the middle of a character and of a sequence.
    recording.append(frameKind.output, 2, filler.subarray(0, 8))
    recording.append(frameKind.output, 2, filler.subarray(8))
    const mark = `\x1b[1;1H\x1b[7mmark ${n}\x1b[0m\x1b[K\x1b[20;1H`
    recording.append(frameKind.output, 2, Buffer.from(mark))
    const written = recording.commit()
    if (written !== true) await written
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  return openRecording(dir, 's1')
}

let recorded: Promise<RecordingFile>
test.before(() => {
  recorded = twoHours()
})
test.after(async () => (await recorded).close())

/** Counts what is read of it through the pool. */
function counted(file: RecordingFile): { bytes: number } {
  const count = { bytes: 0 }
  const read = file.read.bind(file)
  file.read = async (target, position) => {
    const got = await read(target, position)
    count.bytes += got
    return got
  }
  return count
}

test('a jump into two hours shows its moment, and neither reads nor sends the whole', async () => {
  const file = await recorded
  const moments = createMoments()
  const last = await moments.piece(file, (marks - 1) * markMs + 500)
  assert.equal([last.last, last.durationMs], [true, marks * markMs])
  const reads = counted(file)
  for (const mark of [440, 1, 225, 224, 388]) {
    reads.bytes = 0
    const piece = await moments.piece(file, mark * markMs + 400)
    const screen = styled(piece.columns, piece.rows)
    screen.write(piece.picture, nowhere)
    const [cells = []] = screen.state().lines
    const top = cells.map(cell => cell.replace(/^\x1b\[[\d;]*m/, '')).join('').trimEnd()
    assert.is(top, `mark ${mark}`)
    assert.ok(piece.scenes.every(({ atMs }) => atMs > mark * markMs + 400))
    assert.ok(reads.bytes < file.bytes / 3, `${reads.bytes} of ${file.bytes} bytes read`)
    assert.ok(JSON.stringify(piece).length < 512 * 1024, 'a piece is a piece')
  }
  assert.ok(moments.kept < 1024 * 1024, `${moments.kept} characters of pictures`)
})

test('the pieces one after the other are the recording, and no jump finds another screen', async () => {
  const file = await recorded
  const all: Scene[] = []
  for await (const scene of scenes(file, { lane: 2 })) if (scene.atMs > 0) all.push(scene)
  const moments = createMoments()
  const got: Scene[] = []
  let pieces = 0
  for (let fromMs = 0, last = false; !last; pieces++) {
    const piece = await moments.piece(file, fromMs)
    got.push(...piece.scenes)
    fromMs = piece.untilMs
    last = piece.last
  }
  assert.ok(pieces > 10, `${pieces} pieces`)
  assert.is(got.length, all.length)
  assert.equal(got.at(-1), all.at(-1))
  assert.is(got.map(scene => scene.kind === 'text' ? scene.text : '').join(''),
    all.map(scene => scene.kind === 'text' ? scene.text : '').join(''))
  const at = (marks - 10) * markMs
  const [warm, cold] = [await moments.piece(file, at), await createMoments().piece(file, at)]
  assert.is(warm.picture, cold.picture)
  const left = new AbortController()
  left.abort()
  await moments.piece(file, at, left.signal).then(() => assert.unreachable(), () => undefined)
})

test('who comes late gets the screen of now, and little is read for the second one', async () => {
  const file = await recorded
  const moments = createMoments()
  const all: Scene[] = []
  for await (const scene of scenes(file)) all.push(scene)
  const now = await moments.now(file, { after: 0 })
  const { screen: drawn, count, lately, lanes } = now.beginning
  assert.equal([count, drawn?.lane, lanes], [all.length, 2, [2]])
  const whole = styled(drawn!.columns, drawn!.rows)
  for (const scene of all) if (scene.kind === 'text') whole.write(scene.text, nowhere)
  const shown = styled(drawn!.columns, drawn!.rows)
  shown.write(drawn!.picture, nowhere)
  assert.equal(looks(shown), looks(whole))
  assert.equal(lately.map(({ number }) => all[number - 1]), lately.map(({ scene }) => scene))
  const reads = counted(file)
  const again = await moments.now(file, { after: 0 })
  assert.equal(again.beginning.screen, drawn)
  assert.is(again.beginning.count, count)
  assert.ok(reads.bytes < file.bytes / 3, `${reads.bytes} of ${file.bytes} bytes read`)
  // Whoever comes again hears of nothing twice.
  assert.equal((await moments.now(file, { after: count })).beginning.lately, [])
})

test('of statements the last ones are told, with their numbers, within a limit', async () => {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1'))
  const written = 400
  for (let n = 1; n <= written; n++) {
    clock.advance(10)
    const sql = `SELECT ${n}${n === written ? 'x'.repeat(200_000) : ''}`
    recording.append(frameKind.statement, 0, wire.query(sql))
    recording.append(frameKind.result, 0, Buffer.concat([answer.complete('SELECT 1', 1, 10), answer.ready()]))
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  using file = openRecording(dir, 's1')
  const all = await Array.fromAsync(scenes(file))
  const { beginning, offset } = await createMoments().now(file, { after: 0 })
  assert.equal([beginning.count, beginning.screen], [all.length, undefined])
  assert.equal(beginning.lately.map(({ number }) => number),
    Array.from({ length: 200 }, (_, index) => all.length - 199 + index))
  assert.equal(beginning.lately.at(-1)!.scene, all.at(-1))
  assert.is(offset, file.bytes)
  const { lately } = (await createMoments().now(file, { after: all.length - 3 })).beginning
  assert.equal(lately.map(({ scene }) => scene), all.slice(-3))
})

test('statements come from a moment on, with the last few before it', async () => {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1'))
  for (let n = 1; n <= 20; n++) {
    clock.advance(100)
    recording.append(frameKind.statement, 0, wire.query(`SELECT ${n}`))
    recording.append(frameKind.result, 0, Buffer.concat([answer.complete('SELECT 1', 1, 10), answer.ready()]))
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  using file = openRecording(dir, 's1')
  const lines = async (fromMs: number, before: number): Promise<Record<string, unknown>[]> =>
    (await Array.fromAsync(linesFrom(file, fromMs, before))).join('').trimEnd().split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>)
  const [first, ...all] = await lines(0, 0)
  assert.equal(first, { type: 'skipped', count: 0 })
  const later = Number(all.at(-1)!['atMs'])
  const [skipped, ...rest] = await lines(later, 1)
  const early = all.filter(({ atMs }) => Number(atMs) < later).length
  assert.equal(skipped, { type: 'skipped', count: Math.max(0, early - 1) })
  assert.equal(rest, all.slice(Math.max(0, early - 1)))
  assert.equal((await lines(1e9, 2)).slice(1), all.slice(-2), 'beyond the end: the last of it')
})

test.run()
