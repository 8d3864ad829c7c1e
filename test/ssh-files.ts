// File transfers with OpenSSH's own programs, every byte through the recorder: what was done to which file is
// on record with length and hash, the files arrive as they are, and what policy refuses does not happen.
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { programOf } from '../tool/services.ts'
import { channelRequest, dataHeadBytes } from '../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import type { SshField } from '../src/wire/ssh/data.ts'
import { TapeWorld } from './peers/ssh-tape.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-transfer-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const wrapper = join(folder, 'wrapper')
writeFileSync(wrapper, `#!/bin/sh\nexec '${process.execPath}' ` +
  `'${join(import.meta.dirname, 'peers/ssh-transfer.ts')}' "$@"\n`)
chmodSync(wrapper, 0o755)

interface Told {
  code: number
  said: string
  files: Record<string, unknown>[]
  events: Record<string, unknown>[]
  bytes: number
}

/** Runs a stock client with the recorder in place of ssh. */
async function transfer(
  need: 'scp' | 'sftp', words: string[], input = '', environment: Record<string, string> = {}
): Promise<Told> {
  const log = join(folder, `log-${randomBytes(4).toString('hex')}`)
  const child = spawn(programOf(need), words, { env: { ...process.env, TRANSFER_LOG: log, ...environment } })
  let said = ''
  child.stdout.on('data', (data: Buffer) => { said += data.toString() })
  child.stderr.on('data', (data: Buffer) => { said += data.toString() })
  child.stdin.end(input)
  const code = await new Promise<number>(resolve => child.on('close', status => resolve(status ?? -1)))
  const { events, bytes } = JSON.parse(readFileSync(log, 'utf8')) as Pick<Told, 'events' | 'bytes'>
  const files = events.filter(event => event['type'] === 'file')
    .map(({ type: _, lane: __, ...event }) => event)
  return { code, said, files, events, bytes }
}

function place(name: string, bytes?: Uint8Array): string {
  const path = join(folder, name)
  if (bytes !== undefined) writeFileSync(path, bytes)
  return path
}

const big = randomBytes(20 * 1024 * 1024 + 77)
const bigPath = place('big', big)
const small = place('small', Buffer.from('hello\n'))
const away = (op: string): RegExp => new RegExp(op)

test('sftp: each thing that was done is told, uploads and downloads with their hash', async () => {
  const target = (name: string): string => place(`t-${name}`)
  const told = await transfer('sftp', ['-b', '-', '-D', wrapper], [
    `put ${bigPath} ${target('big')}`, `get ${target('big')} ${place('back')}`, `mkdir ${target('dir')}`,
    `put ${small} ${target('dir')}/a`, `rename ${target('dir')}/a ${target('dir')}/b`,
    `ln -s ${target('big')} ${target('link')}`, `chmod 600 ${target('dir')}/b`, `ls ${target('dir')}`,
    `rm ${target('dir')}/b`, `rmdir ${target('dir')}`, `-get ${target('none')} ${place('none')}`
  ].join('\n'))
  assert.is(told.code, 0, told.said)
  assert.is(sha256(readFileSync(place('back'))), sha256(big))
  const content = { bytes: big.length, sha256: sha256(big) }
  const find = (op: string): Record<string, unknown>[] => told.files.filter(event => event['op'] === op)
  assert.equal(find('upload')[0], { op: 'upload', path: target('big'), ...content, ok: true })
  assert.equal(find('upload')[1], {
    op: 'upload', path: `${target('dir')}/a`, bytes: 6, sha256: sha256(Buffer.from('hello\n')), ok: true
  })
  assert.equal(find('download'), [{ op: 'download', path: target('big'), ...content, ok: true }])
  assert.equal(find('rename'), [
    { op: 'rename', path: `${target('dir')}/a`, to: `${target('dir')}/b`, ok: true }])
  assert.equal(find('symlink'), [{ op: 'symlink', path: target('link'), to: target('big'), ok: true }])
  assert.is(find('list')[0]?.['entries'], 3)
  for (const op of ['mkdir', 'remove', 'rmdir']) assert.is(find(op)[0]?.['ok'], true, op)
  assert.ok(find('setstat').some(({ attributes }) => (attributes as { mode?: number }).mode === 0o600))
  // Of 40 MiB nothing is in the recording.
  assert.ok(told.bytes < 10_000, `${told.bytes} bytes`)
})

test('sftp: large and many requests at once, and a client whose messages are cut anywhere', async () => {
  for (const [words, cut] of [[['-B', '261120', '-R', '128'], 32768], [['-B', '4000'], 999]] as const) {
    const upload = await transfer('sftp', ['-b', '-', ...words, '-D', wrapper],
      `put ${bigPath} ${place('again')}\nget ${place('again')} ${place('back')}`,
      { TRANSFER_CUT: String(cut) })
    assert.is(upload.code, 0, upload.said)
    const hashes = upload.files.map(event => [event['op'], event['sha256']])
    assert.equal(hashes.filter(([op]) => op !== 'setstat'),
      [['upload', sha256(big)], ['download', sha256(big)]])
  }
})

test('scp in both of its protocols and directions, and with directories', async () => {
  mkdirSync(join(folder, 'tree/deep'), { recursive: true })
  place('tree/one', Buffer.from('1'))
  place('tree/deep/two', Buffer.alloc(70_000, 2))
  place('tree/empty', Buffer.alloc(0))
  const modern = await transfer('scp', ['-D', wrapper, bigPath, 'host:' + place('s-big')])
  assert.is(modern.code, 0, modern.said)
  assert.is(modern.files.find(event => event['op'] === 'upload')?.['sha256'], sha256(big))
  const up = await transfer('scp', ['-O', '-p', '-S', wrapper, bigPath, `host:${place('o-big')}`])
  assert.is(up.code, 0, up.said)
  const content = { bytes: big.length, sha256: sha256(big) }
  assert.equal(up.files, [
    { op: 'upload', path: `${place('o-big')}/big`, ...content, attributes: { mode: 0o644 }, ok: true }])
  const down = await transfer('scp', ['-O', '-r', '-S', wrapper, `host:${place('tree')}`, place('tree-back')])
  assert.is(down.code, 0, down.said)
  const rows = down.files.map(({ op, path, bytes }) => [op, String(path).slice(folder.length), bytes])
  assert.equal(rows.sort(), [
    ['download', '/tree/tree/deep/two', 70_000], ['download', '/tree/tree/empty', 0],
    ['download', '/tree/tree/one', 1]
  ])
  assert.is(readFileSync(place('tree-back/deep/two')).length, 70_000)
  const none = await transfer('scp', ['-O', '-S', wrapper, `host:${place('none')}`, place('x')])
  assert.is.not(none.code, 0)
  assert.match(String(none.files[0]?.['status']), away('No such file'))
  for (const { bytes } of [modern, up, down]) assert.ok(bytes < 10_000)
})

test('what policy refuses does not happen, the client hears why, and the rest goes on', async () => {
  for (const cut of ['32768', '11']) {
    const told = await transfer('sftp', ['-b', '-', '-D', wrapper], [
      `-get ${small} ${place('leaked')}`, `-rm ${small}`, `put ${small} ${place(`put-${cut}`)}`
    ].join('\n'), { TRANSFER_REFUSE: 'download remove', TRANSFER_CUT: cut })
    assert.is(told.code, 0, told.said)
    assert.match(told.said, away('[Pp]ermission denied'))
    assert.ok(!existsSync(place('leaked')) || readFileSync(place('leaked')).length === 0)
    assert.is(readFileSync(small, 'utf8'), 'hello\n')
    assert.is(readFileSync(place(`put-${cut}`), 'utf8'), 'hello\n')
    const refusals = told.files.filter(event => event['refused'] === true)
    assert.equal(refusals.map(event => [event['op'], event['status']]), [
      ['download', 'permission-denied'], ['remove', 'permission-denied']])
  }
})

test('a shell that calls itself a transfer is told of and kept', () => {
  for (const command of ['scp -t /tmp', 'scp -f /tmp', '/usr/lib/openssh/sftp-server']) {
    const world = new TapeWorld()
    world.exec(command)
    world.hear('\0')
    world.say('id; cat /etc/shadow\n')
    world.hear('uid=0(root) gid=0(root) groups=0(root)\n')
    world.hear('root:*:19000:0:99999:7:::\n')
    world.close()
    assert.is(world.recording.events('undecodable').length, 1, command)
    assert.match(world.recording.text('output'), away('root:'))
  }
})

test('with a judge nothing passes that cannot be judged', () => {
  const strict = (): TapeWorld => new TapeWorld({ allowFile: () => false })
  const early = strict()
  early.open()
  assert.throws(() => early.say('x'))
  const broken = strict()
  broken.open()
  broken.request('subsystem', ['sftp'])
  assert.throws(() => broken.say(Buffer.from([255, 255, 255, 255, 3])))
  assert.throws(() => broken.say('anything'))
  const terminal = strict()
  terminal.open()
  terminal.request('pty-req', ['xterm', 80, 24, 0, 0, ''])
  terminal.request('subsystem', ['sftp'], false)
  const copy = strict()
  copy.open()
  copy.request('exec', ['scp -t /tmp'], false)
  // Whether the first is begun nobody knows yet: a second one would take its files out of sight.
  const second = strict()
  second.open()
  second.client(channelRequest(100, 'subsystem', true, 'sftp'))
  second.client(channelRequest(100, 'exec', true, 'cat'))
  for (const world of [terminal, copy, second]) {
    assert.is(world.recording.events('request-refused')[0]?.['by'], 'policy')
  }
  assert.throws(() => second.say(Buffer.from([255, 255, 255, 255, 3])))
})

test('with a judge only requests that are known go on, and a rename gives its source away', () => {
  const request = (type: number, id: number, ...fields: SshField[]): Buffer => {
    const body = Buffer.concat([Buffer.of(type), sshUint32(id), sshFields(...fields)])
    return Buffer.concat([sshUint32(body.length), body])
  }
  const asked: string[] = []
  const world = new TapeWorld({
    allowFile: (op, path, how) => {
      asked.push([op, path, ...Object.keys(how ?? {})].join(' '))
      return true
    }
  })
  world.open()
  world.request('subsystem', ['sftp'])
  const goesOn = (packet: Buffer): boolean => {
    const out = world.say(packet)
    return out === undefined || Buffer.concat(out.map(piece => piece.subarray(dataHeadBytes))).equals(packet)
  }
  const [stat, fsetstat, rename, symlink, block, extended] = [17, 10, 18, 20, 22, 200]
  assert.ok(goesOn(request(stat, 1, '/a')))
  assert.not.ok(goesOn(request(fsetstat, 2, 'guessed', 0)))
  assert.not.ok(goesOn(request(block, 3, 'handle')))
  assert.not.ok(goesOn(request(extended, 4, 'new@example.org', '/a')))
  assert.ok(goesOn(request(extended, 5, 'fsync@openssh.com', 'handle')))
  assert.ok(goesOn(request(rename, 6, '/a', '/b')))
  assert.ok(goesOn(request(symlink, 7, '../etc', 'sub/link')))
  assert.ok(goesOn(request(extended, 8, 'hardlink@openssh.com', 'c', 'd')))
  assert.equal(asked, [
    'rename /a isSource isTree', 'rename /b isTree', 'symlink sub/link', 'symlink sub/../etc isSource isTree',
    'link c isSource', 'link d'
  ])
  // What does not say that it writes, OpenSSH opens for reading; a zero byte at the end it takes away.
  asked.length = 0
  const [open, create] = [3, 8]
  assert.ok(goesOn(request(open, 9, '/e', 0, 0)))
  assert.ok(goesOn(request(open, 10, '/f', create, 0)))
  assert.ok(goesOn(request(open, 11, '/g\0', 1, 0)))
  assert.ok(goesOn(request(open, 12, '/h', 2, 0)))
  assert.ok(goesOn(request(extended, 13, 'posix-rename@openssh.com\0', '/i', '/j\0')))
  assert.equal(asked, [
    'download /e', 'upload /e', 'download /f', 'upload /f', 'download /g', 'upload /h',
    'rename /i isSource isTree', 'rename /j isTree'
  ])
  assert.throws(() => world.say(Buffer.concat([sshUint32(5), Buffer.of(block), sshUint32(7)])))
})

test.run()
