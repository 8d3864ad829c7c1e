// The evidence of an SSH session: what each kind of channel leaves in the recording, which typed lines are
// kept, what was refused, and that nothing can be put on record under the wrong channel.
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { stderrLane } from '../src/proxy/ssh/channels.ts'
import { commandOf } from '../src/proxy/ssh/command.ts'
import { WireError } from '../src/wire/error.ts'
import * as wire from '../src/wire/ssh/connection.ts'
import { encodeTerminalModes } from '../src/wire/ssh/request.ts'
import { TypedLines } from '../src/wire/ssh/typed-lines.ts'
import { StillClock } from './peers/recordings.ts'
import { TapeWorld } from './peers/ssh-tape.ts'

const { sshMessage } = wire
const isWireError = (thrown: unknown): boolean => thrown instanceof WireError
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

test('a flood of output is counted and hashed beyond a limit, and what comes after it is on record', () => {
  const clock = new StillClock()
  const world = new TapeWorld({ outputKeptBytesMax: 10, clock })
  world.exec('cat /dev/zero')
  world.hear('12345678')
  world.hear('lost')
  world.hear('lost too')
  assert.is(world.recording.text('output'), '12345678')
  assert.equal(world.recording.events('output-limit'), [{ lane: 1, type: 'output-limit', at: 8 }])
  clock.advance(1000)
  world.hear('found')
  world.hear('lost again')
  world.close()
  const { recording } = world
  assert.is(recording.text('output'), '12345678found')
  assert.equal(recording.events('output-not-kept'), [
    { lane: 1, type: 'output-not-kept', at: 8, bytes: 12, sha256: sha256('lostlost too') },
    { lane: 1, type: 'output-not-kept', at: 25, bytes: 10, sha256: sha256('lost again') }
  ])
  const [closed] = recording.events('channel-close')
  assert.equal([closed?.['outputBytes'], closed?.['outputNotKept']], [35, 22])
})

test('the output of a shell and of a terminal is kept whole, whatever the limit for commands', () => {
  const world = new TapeWorld({ outputKeptBytesMax: 1 })
  world.shell(1)
  world.hear('terminal', 1)
  world.open(2)
  world.request('shell', [], true, 2)
  world.hear('shell', 2)
  assert.is(world.recording.text('output', 1), 'terminal')
  assert.is(world.recording.text('output', 2), 'shell')
})

test('a command leaves its output, its errors on a lane of their own, its input as a hash, its exit', () => {
  const world = new TapeWorld()
  world.exec('sort -u')
  world.say('b\na\n')
  world.hear('a\nb\n')
  world.target(wire.channelStderr(0, Buffer.from('sort: warning\n')))
  world.target(wire.channelRequest(0, 'exit-status', false, 3))
  world.close()
  const { recording } = world
  assert.is(recording.text('output'), 'a\nb\n')
  assert.is(recording.text('output', 1 | stderrLane), 'sort: warning\n')
  assert.is(recording.text('input'), '')
  assert.equal(recording.events(), [
    { lane: 1, type: 'channel-open', channel: 'session', by: 'client' },
    { lane: 1, type: 'exec', command: 'sort -u', bytes: 7 },
    { lane: 1, type: 'exit', status: 3 },
    { lane: 1, type: 'stdin', bytes: 4, sha256: sha256('b\na\n') },
    { lane: 1, type: 'channel-close', content: 'exec', by: 'target', inputBytes: 4, inputNotKept: 4,
      outputBytes: 4 }
  ])
})

test('a terminal leaves its sizes, its output, and the lines that came back', () => {
  const world = new TapeWorld()
  world.open()
  world.request('pty-req', ['xterm', 100, 30, 0, 0, encodeTerminalModes(new Map([[53, 1]]))])
  world.request('env', ['LANG', 'C'])
  world.request('shell')
  world.hear('$ ')
  for (const key of ['s', 'u', 'd', 'o', ' ', 'i', 'd']) {
    world.say(key)
    world.hear(key)
  }
  world.say('\r')
  world.hear('\r\n[sudo] password for alice: ')
  for (const key of 'hunter2') world.say(key)
  world.say('\r')
  world.hear('\r\nuid=0(root)\r\n$ ')
  world.client(wire.channelRequest(100, 'window-change', false, 120, 40, 0, 0))
  world.client(wire.channelRequest(100, 'signal', false, 'INT'))
  world.close()
  const { recording } = world
  assert.is(recording.text('input'), 'sudo id\r')
  assert.match(recording.text('output'), 'uid=0(root)')
  assert.not.ok(recording.frames.some(frame => frame.body.includes('hunter2')))
  assert.equal(recording.events().slice(1), [
    { lane: 1, type: 'pty', term: 'xterm', columns: 100, rows: 30, echo: true },
    { lane: 1, type: 'env', name: 'LANG', value: 'C' }, { lane: 1, type: 'shell' },
    { lane: 1, type: 'resize', columns: 120, rows: 40 }, { lane: 1, type: 'signal', signal: 'INT' },
    { lane: 1, type: 'channel-close', content: 'terminal', by: 'target', inputBytes: 16, inputNotKept: 8,
      outputBytes: recording.text('output').length }
  ])
})

test('what is typed is kept as the policy says', () => {
  const typed = (input: 'none' | 'echoed' | 'all'): string => {
    const world = new TapeWorld({ input })
    world.shell()
    world.say('ls\r')
    world.hear('ls\r\n')
    world.say('secret\r')
    world.hear('\r\n')
    world.close()
    return world.recording.text('input')
  }
  assert.equal([typed('none'), typed('echoed'), typed('all')], ['', 'ls\r', 'ls\rsecret\r'])
})

test('lines that an editor draws again, corrects or completes are kept; other lines are not', () => {
  const kept = (...steps: [typed: string, shown: string][]): string => {
    const world = new TapeWorld()
    world.shell()
    for (const [typed, shown] of steps) {
      if (typed !== '') world.say(typed)
      if (shown !== '') world.hear(shown)
    }
    world.close()
    return world.recording.text('input')
  }
  assert.is(kept(['l', 'l'], ['s', '\b\x1b[32mls\x1b[0m'], ['\r', '\r\n']), 'ls\r')
  assert.is(kept(['l', 'l'], ['x', 'x'], ['\x7f', '\b \b'], ['s', 's'], ['\r', '\r\n']), 'lx\x7fs\r')
  assert.is(kept(['cd /e', 'cd /e'], ['\t', 'tc/'], ['\r', '\r\n']), 'cd /e\t\r')
  assert.is(kept(['\x1b[A', 'ls -la'], ['\r', '\r\n']), '\x1b[A\r')
  assert.is(kept(['one\rtwo\r', 'one\r\ntwo\r\n']), 'one\rtwo\r')
  assert.is(kept(['p', '*'], ['w', '*'], ['\r', '\r\n']), '')
  const password: [string, string][] = [['Pa5s\r', ''], ['', '\r\nPa5t the gate\r\n']]
  assert.is(kept(['su\r', 'su\r\n'], ['', 'Password: '], ...password), 'su\r')
  assert.is(kept(['x'.repeat(5000), 'x'.repeat(5000)], ['\r', '\r\n']), '\r')
})

test('a line that is judged is what its keys leave, in time', () => {
  const lines = (text: string): string[] => new TypedLines().feed(Buffer.from(text))
  assert.equal(lines('rm  -rf  \x17ls\r\x17\x17é a\x7fb\x17c\r'), ['rm  ls', 'é c'])
  const startedMs = performance.now()
  assert.equal(lines(`${'a'.repeat(60_000)}${'b \x17'.repeat(2000)}\x17c\n`), ['c'])
  assert.ok(performance.now() - startedMs < 1000)
})

test('a shell without a terminal is fed with commands, which are kept', () => {
  const world = new TapeWorld()
  world.open()
  world.request('shell')
  world.say('id\n')
  world.hear('uid=0\n')
  world.close()
  assert.equal([world.recording.text('input'), world.recording.text('output')], ['id\n', 'uid=0\n'])
})

test('a forwarded connection is counted, hashed when asked, and never copied', () => {
  for (const hashForwards of [false, true]) {
    const world = new TapeWorld({ hashForwards })
    world.open(0, 'direct-tcpip', 'db', 5432, '127.0.0.1', 4000)
    world.say('SSH-2.0-x\r\n')
    world.hear('answer')
    world.close()
    const [open, inside, close] = world.recording.events()
    assert.equal(open, { lane: 1, type: 'channel-open', channel: 'direct-tcpip', by: 'client', host: 'db',
      port: 5432, from: '127.0.0.1', fromPort: 4000 })
    assert.equal(inside, { lane: 1, type: 'ssh-inside', from: 'client' })
    assert.equal([close?.['inputBytes'], close?.['outputBytes']], [11, 6])
    assert.is(close?.['outputSha256'], hashForwards ? sha256('answer') : undefined)
    assert.is(world.recording.text('output'), '')
  }
})

test('refusals are on record, whoever refuses', () => {
  const world = new TapeWorld()
  world.tape.fromClient(wire.channelOpen('direct-tcpip', 5, 1, 1, 'db', 22, '::1', 1), 'no forwards')
  world.client(wire.channelOpen('x11', 6, 1, 1, '::1', 1))
  world.target(wire.openFailure(6, 1, 'not here'))
  world.open()
  world.tape.fromClient(wire.channelRequest(100, 'auth-agent-req@openssh.com', true), 'no agents')
  world.target(wire.channelSignal(sshMessage.channelFailure, 0))
  world.request('pty-req', ['xterm', 80, 24, 0, 0, ''], false)
  world.client(wire.globalRequest('tcpip-forward', true, '', 8080))
  world.client(wire.globalRequest('keepalive@openssh.com', true))
  world.target(Buffer.of(sshMessage.requestFailure))
  world.target(Buffer.of(sshMessage.requestFailure))
  const refusals = world.recording.events().filter(event => /refused|failed/.test(String(event['type'])))
  assert.equal(refusals, [
    { lane: 0, type: 'channel-refused', channel: 'direct-tcpip', by: 'client', host: 'db', port: 22,
      from: '::1', fromPort: 1, reason: 'no forwards' },
    { lane: 1, type: 'channel-failed', channel: 'x11', by: 'target', reason: 1, description: 'not here' },
    { lane: 2, type: 'request-refused', request: 'auth-agent-req@openssh.com', by: 'policy',
      reason: 'no agents' },
    { lane: 2, type: 'request-refused', request: 'pty-req', by: 'target' },
    { lane: 0, type: 'request-refused', request: 'tcpip-forward', by: 'target' }
  ])
})

test('a command that only looks like a transfer is kept whole', () => {
  const kinds = (text: string): string => commandOf(Buffer.from(text)).kind
  for (const text of ['scp -t /tmp', "scp -r -f -- '/a b'", 'scp -v -p -d -t .', '/usr/bin/scp -f ~/x*']) {
    assert.is(kinds(text), 'scp', text)
  }
  for (const text of ['rsync --server -e.LsfxCIvu . /x', "git-upload-pack '/srv/a.git'"]) {
    assert.is(kinds(text), 'bulk', text)
  }
  assert.is(kinds('/usr/lib/openssh/sftp-server'), 'sftp')
  for (const text of [
    'scp -t /tmp; bash', 'scp -t $(id)', 'scp -t a\nid', 'scp -t -f x', 'scp x y', 'scp -S bash -t x',
    'scp -t', 'rsync --server . x|sh',
    'git-upload-pack `id`', 'bash', '', 'rsync -a x y', "scp -t 'a", 'scp -t a&'
  ]) assert.is(kinds(text), 'other', text)
})

test('an scp of several sources is judged like one whose files are not known', () => {
  for (const [text, allowed] of [['scp -f /ok', true], ['scp -f /ok /etc/shadow', false]] as const) {
    const world = new TapeWorld({ allowFile: (_, path) => path === '/ok' })
    world.open()
    world.request('exec', [text], allowed)
    assert.is(world.recording.events('request-refused').length, allowed ? 0 : 1, text)
  }
})

test('a shell that starts on a channel whose transfer was never begun is kept whole', () => {
  const world = new TapeWorld()
  world.open()
  world.client(wire.channelRequest(100, 'exec', false, 'rsync --server . x'))
  world.client(wire.channelRequest(100, 'shell', false))
  world.hear('x'.repeat(100_000))
  assert.is(world.recording.text('output').length, 100_000)
  assert.is(world.recording.events('restart').length, 1)
})

test('a message for a channel that is not open, or opened twice, ends the session', () => {
  const hostile: ((world: TapeWorld) => void)[] = [
    world => world.say('x', 7), world => world.hear('x', 7), world => world.open(0),
    world => world.target(wire.openConfirmation(0, 9, 1, 1)),
    world => world.target(wire.openFailure(0, 1, '')),
    world => { world.close(); world.say('x') },
    world => { world.client(wire.channelSignal(sshMessage.close, 100)); world.say('x') },
    world => { world.client(wire.channelOpen('session', 1, 1, 1)); world.say('x', 1) },
    world => {
      world.client(wire.channelOpen('session', 1, 1, 1))
      world.client(wire.openConfirmation(1, 2, 1, 1))
    },
    world => world.client(wire.channelStderr(100, Buffer.from('x'))),
    world => world.client(Buffer.of(94)), world => world.client(Buffer.of(101, 0, 0, 0, 0)),
    world => world.client(Buffer.alloc(0))
  ]
  hostile.forEach((act, index) => {
    const world = new TapeWorld()
    world.open()
    assert.throws(() => act(world), isWireError, `case ${index}`)
  })
})

test('channels and requests are bounded, and a lane is used again as late as possible', () => {
  const world = new TapeWorld({ channelsMax: 2 })
  world.open(0)
  world.open(1)
  assert.ok(world.tape.full)
  assert.throws(() => world.open(2), isWireError)
  for (let round = 0; round < 0x7fff; round++) {
    world.close(0)
    world.open(0)
  }
  const opened = world.recording.events('channel-open')
  assert.equal([0, 1, 2].map(at => opened[at]?.['lane']), [1, 2, 3])
  // Lane 2 is still in use.
  assert.equal([-3, -2, -1].map(at => opened.at(at)?.['lane']), [0x7fff, 1, 3])
  assert.equal([-3, -2, -1].map(at => opened.at(at)?.['reused']), [undefined, true, true])
  assert.throws(() => {
    for (let n = 0; n < 2000; n++) world.client(wire.channelRequest(101, 'env', true, 'A', 'b'))
  }, isWireError)
})

test('what is open at the end of the session is closed on record', () => {
  const world = new TapeWorld()
  world.exec('cat')
  world.say('abc')
  world.tape.end()
  assert.equal(world.recording.events().slice(-2).map(event => event['type']), ['stdin', 'channel-close'])
})

test('with hashes off nothing is hashed, and everything is still counted', () => {
  const world = new TapeWorld({ hashes: false, outputKeptBytesMax: 10 })
  world.exec('tar xf -')
  world.say('an archive')
  world.hear('x'.repeat(11))
  world.close()
  world.exec('git-upload-pack repo')
  world.say('0000')
  world.close()
  world.exec('scp -t /tmp')
  world.hear('\0')
  world.say('C0644 3 a\n')
  world.hear('\0')
  world.say('abc\0')
  world.hear('\0')
  world.close()
  const events = world.recording.events()
  assert.not.match(JSON.stringify(events), /sha256/i)
  const bytes = (type: string): unknown => events.find(event => event['type'] === type)?.['bytes']
  assert.equal([bytes('stdin'), bytes('output-not-kept'), bytes('file')], [10, 11, 3])
})

test.run()
