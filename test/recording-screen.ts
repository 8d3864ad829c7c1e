// What a search finds of an SSH session: terminal text as it stood on the screen, whatever drew it; files;
// and how several channels are replayed and exported.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openRecording, search } from '../src/recording/catalog.ts'
import { exportAs } from '../src/recording/export.ts'
import type { ExportFormat } from '../src/recording/export.ts'
import type { RecordingFile } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { replay } from '../src/recording/replay.ts'
import { Screen } from '../src/recording/screen.ts'
import { TerminalFilter } from '../src/recording/terminal.ts'
import { StillClock, headOf, keyPair, openFolder, seeded, temporaryFolder } from './peers/recordings.ts'

const { signer } = keyPair()

/** The lines that a terminal of 20 by 4 handed out. */
function linesOf(...pieces: string[]): string[] {
  const lines: string[] = []
  const screen = new Screen(20, 4, text => lines.push(text))
  for (const piece of pieces) screen.write(piece, { atMs: 0, offset: 0 })
  screen.end()
  return lines
}

test('text is found as it stood: corrected, inserted, wrapped, scrolled, erased', () => {
  const cases: [shown: string, lines: string[]][] = [
    ['one\r\ntwo\r\n', ['one', 'two']],
    // What is left is part of what was found.
    ['$ sl -a\b\b\b\b\bs\x1b[K', ['$ sl -a']],
    ['$ sl\b\b\x1b[Kls', ['$ sl', '$ ls']],
    ['$ lx\b \bs', ['$ ls']],
    ['$ rm x\x1b[D\x1b[3@-f ', ['$ rm -f x']],
    ['abc\x1b[2D\x1b[P', ['ac']],
    ['0123456789012345678901234 wrapped', ['0123456789012345678901234 wrapped']],
    ['a\r\nb\r\nc\r\nd\r\ne', ['a', 'b', 'c', 'd', 'e']],
    ['secret\x1b[2J\x1b[Hnew', ['secret', 'new']],
    ['10%\r20%\r30%', ['10%', '20%', '30%']],
    ['\x1b[4;1Hstatus\x1b[1;1Htext', ['text', 'status']],
    ['before\x1b[?1049h\x1b[Hin vi\x1b[?1049l after', ['in vi', 'before after']],
    ['x\x1b[3b', ['xxxx']]
  ]
  for (const [shown, lines] of cases) assert.equal(linesOf(shown), lines, JSON.stringify(shown))
})

test('no output makes the screen throw or grow', () => {
  const random = seeded(7)
  const finals = '@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu78DEM'
  for (let round = 0; round < 300; round++) {
    const filter = new TerminalFilter()
    let told = 0
    const screen = new Screen(random(700), random(700), text => { told += text.length })
    for (let n = 0; n < 60; n++) {
      const numbers = ['', '?', '9', '5;', '1;1', '999', '?1049', '2;3'][random(8)]
      const sequence = `\x1b[${numbers}${finals[random(finals.length)]}`
      const text = ['plain ', '\r\n', '\b', '\t', 'x'.repeat(random(600)), sequence, '\x1bM', 'ü'][random(8)]!
      screen.write(filter.write(text), { atMs: n, offset: n })
      if (random(20) === 0) screen.resize(random(300), random(300))
    }
    screen.end()
    assert.ok(told < 2_000_000)
  }
})

/** A terminal on lane 2 in which a line is drawn in pieces, a command on lane 1, a file on lane 3. */
async function session(): Promise<{ dir: string, file: RecordingFile }> {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1', { protocol: 'ssh' }))
  const event = (lane: number, body: object): void =>
    recording.append(frameKind.event, lane, Buffer.from(JSON.stringify(body)))
  const output = (lane: number, text: string): void => {
    clock.advance(100)
    recording.append(frameKind.output, lane, Buffer.from(text))
  }
  event(1, { type: 'exec', command: 'make all', bytes: 8 })
  output(1, 'compiling\n')
  event(2, { type: 'pty', term: 'xterm', columns: 90, rows: 20, echo: true })
  output(2, '$ cat secretx')
  output(2, '\b \b.txt\r\n')
  output(1 + 32768, 'warning: unused\n')
  event(2, { type: 'resize', columns: 100, rows: 25 })
  event(3, { type: 'file', op: 'upload', path: '/tmp/\x1b[31mevil', bytes: 7, sha256: 'ab12', ok: true })
  event(3, { type: 'file', op: 'download', path: '/etc/shadow', ok: false, status: 'permission-denied',
    refused: true })
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  return { dir, file: openRecording(dir, 's1') }
}

test('search finds a line as it stood, the output of commands, errors, and files', async () => {
  const { dir, file } = await session()
  file.close()
  for (const [query, lane, kind] of [
    ['cat secret.txt', 2, 'output'], ['compiling', 1, 'output'], ['warning: unused', 1 + 32768, 'output'],
    ['/etc/shadow', 3, 'event'], ['make all', 1, 'event']
  ] as const) {
    const hits = await Array.fromAsync(search({ dir, query }))
    assert.equal(hits.map(hit => [hit.lane, hit.kind]), [[lane, kind]], query)
  }
  assert.equal(await Array.fromAsync(search({ dir, query: 'secretx' })), [])
})

test('channels replay interleaved, each with its name after another; files are one line', async () => {
  const { file } = await session()
  using _ = file
  let text = ''
  for await (const cue of replay(file)) text += cue.text
  assert.match(text, 'compiling\r\n\r\n[channel 2]\r\n$ cat secretx\b \b.txt\r\n')
  assert.match(text, '[channel 1]\r\nwarning: unused\r\n')
  assert.match(text, '[upload /tmp/\\x1b[31mevil, 7 bytes, sha256 ab12]')
  assert.match(text, '[download /etc/shadow, refused]')
})

async function exported(file: RecordingFile, format: ExportFormat): Promise<unknown[]> {
  let text = ''
  for await (const piece of exportAs(file, format)) text += piece
  return text.trimEnd().split('\n').map(line => JSON.parse(line) as unknown)
}

test('asciicasts are valid and show the first terminal; JSON lines have every channel', async () => {
  const { file } = await session()
  using _ = file
  for (const version of [2, 3] as const) {
    const [head, ...events] = await exported(file, `asciicast-v${version}`) as
      [Record<string, unknown>, ...[number, string, string][]]
    const size = version === 2 ? { width: head['width'], height: head['height'] } : head['term']
    assert.is(head['version'], version)
    assert.equal(size, version === 2
      ? { width: 90, height: 20 }
      : { cols: 90, rows: 20, type: 'xterm-256color' })
    assert.ok(Number.isInteger(head['timestamp']))
    let before = 0
    for (const [time, code, data, ...more] of events) {
      assert.ok(Number.isFinite(time) && time >= (version === 2 ? before : 0))
      before = time
      assert.ok(['o', 'i', 'm', 'r', 'x'].includes(code), code)
      assert.type(data, 'string')
      if (code === 'r') assert.match(data, /^\d+x\d+$/)
      assert.is(more.length, 0)
    }
    const shown = events.filter(([, code]) => code === 'o').map(([, , data]) => data).join('')
    assert.match(shown, '$ cat secretx')
    assert.not.match(shown, 'compiling')
  }
  const lanes = (await exported(file, 'jsonl') as { type: string, lane: number }[])
    .filter(line => line.type === 'output').map(line => line.lane)
  assert.equal(lanes, [1, 2, 2, 1 + 32768])
})

test.run()
