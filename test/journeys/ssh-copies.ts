// Copies of what people transfer, where their grant asks for them: stock sftp and scp through the product.
// The bytes of a copy are those of the file, and where a limit cut it short the recording says so and keeps
// the hash of the whole.
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { programOf } from '../../tool/services.ts'
import { ran, until } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

const KiB = 1024
let house: SshHouse

interface Event {
  type: string
  event: string
  op: string
  path: string
  bytes: number
  sha256: string
  copy?: number
  copyBytes?: number
  limit?: string
  at: unknown
}

// A second credential of the same account, whose grant says nothing of copies.
const config = 'recordings: { fileCopyMax: 300KiB, fileCopiesMax: 800KiB, outputMax: 100KiB }'

const access = `---
kind: credential
name: plain
target: web01
username: deploy
privateKey: { env: DEPLOY_KEY }
---
kind: grant
name: plain
users: [alice]
credentials: [plain]
`

test.before(async () => {
  house = await startSshHouse({ access, grant: 'copyFiles: true', config })
})
test.after(async () => house.end())

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const local = (name: string): string => join(house.home, name)

function place(name: string, bytes: Buffer): Buffer {
  writeFileSync(local(name), bytes)
  return bytes
}

function sftp(commands: string[], login = 'alice+deploy'): Promise<Ran> {
  const words = [...house.options, '-P', String(house.sshPort), '-b', '-', `${login}@127.0.0.1`]
  return ran(programOf('sftp'), words, {}, commands.join('\n'))
}

const scp = (words: string[]): Promise<Ran> =>
  ran(programOf('scp'), [...house.options, '-P', String(house.sshPort), ...words])

/** The newest session, sealed, and what happened in it. */
async function recorded(): Promise<Record<'files' | 'limits' | 'gaps', Event[]> & { id: string }> {
  const { id } = await until(
    async () => (await house.json<SessionJson[]>('sessions', 'list'))[0]!,
    ({ recording }) => recording?.sealed === true)
  const lines = (await house.sallyport('sessions', 'export', id, '--format', 'jsonl')).trim().split('\n')
  const events = lines.map(line => JSON.parse(line) as Event).filter(({ type }) => type === 'event')
  return {
    id, files: events.filter(({ event, op }) => event === 'file' && /load$/.test(op)),
    limits: events.filter(({ event }) => event === 'copy-limit'),
    gaps: events.filter(({ event }) => event === 'output-not-kept')
  }
}

async function copyOf(id: string, number: number): Promise<Buffer> {
  const file = local(`copy-${number}`)
  await house.sallyport('sessions', 'export', id, '--copy', String(number), '-o', file)
  assert.is(statSync(file).mode & 0o777, 0o600)
  return readFileSync(file)
}

test('what sftp put and got is in the recording, byte for byte', async () => {
  const [one, two] = [place('one', randomBytes(200 * KiB + 7)), place('two', Buffer.from('key = value\n'))]
  place('none', Buffer.alloc(0))
  const { status, stderr } = await sftp([
    `put ${local('one')} one`, `put ${local('two')} two`, `put ${local('none')} none`,
    `get one ${local('back')}`
  ])
  assert.is(status, 0, stderr)
  const { id, files, limits } = await recorded()
  assert.equal(files.map(({ op, copy, copyBytes, sha256: hash }) => [op, copy, copyBytes, hash]), [
    ['upload', 1, one.length, sha256(one)], ['upload', 2, two.length, sha256(two)],
    ['upload', undefined, undefined, sha256(Buffer.alloc(0))], ['download', 3, one.length, sha256(one)]
  ])
  assert.equal(limits, [])
  for (const [number, bytes] of [[1, one], [2, two], [3, one]] as const) {
    assert.ok((await copyOf(id, number)).equals(bytes), `copy ${number}`)
  }
  assert.match(await house.sallyport('sessions', 'verify', id), /sealed/)
  const { status: refused, stderr: why } = await ran(process.execPath, [
    join(import.meta.dirname, '../../src/cli/sallyport.ts'), 'sessions', 'export', id, '--copy', '4', '-o',
    local('nothing'), '--config', join(house.folder, 'sallyport.yaml')
  ], house.environment)
  assert.is(refused, 1)
  assert.match(why, /not-found/)
})

test('beyond a limit a copy ends, the recording says where, and the hash is that of the file', async () => {
  const big = place('big', randomBytes(400 * KiB))
  const { status, stderr } = await scp(['-O', local('big'), 'alice+deploy@127.0.0.1:'])
  assert.is(status, 0, stderr)
  const first = await recorded()
  assert.equal(first.files.map(({ copy, copyBytes, bytes, sha256: hash }) => [copy, copyBytes, bytes, hash]),
    [[1, 300 * KiB, big.length, sha256(big)]])
  assert.equal(first.limits.map(({ copy, limit }) => [copy, limit]), [[1, 'file']])
  assert.ok((await copyOf(first.id, 1)).equals(big.subarray(0, 300 * KiB)))
  assert.is((await sftp([1, 2, 3, 4].map(n => `put ${local('big')} big-${n}`))).status, 0)
  const second = await recorded()
  assert.equal(second.files.map(({ copy, copyBytes }) => [copy, copyBytes]),
    [[1, 300 * KiB], [2, 300 * KiB], [3, 200 * KiB], [undefined, 0]])
  assert.equal(second.limits.map(({ limit }) => limit), ['file', 'file', 'session', 'session'])
  assert.ok(second.files.every(({ sha256: hash }) => hash === sha256(big)))
  assert.ok((await copyOf(second.id, 3)).equals(big.subarray(0, 200 * KiB)))
})

test('so much of a command’s output is kept at once as the configuration says', async () => {
  const { status, stdout } = await house.ssh(['head -c 500000 /dev/zero'])
  assert.equal([status, stdout.length], [0, 500_000])
  const { gaps } = await recorded()
  assert.ok(Number(gaps[0]?.bytes) > 200_000, JSON.stringify(gaps))
})

test('without the grant’s word nothing is kept but the hash', async () => {
  const one = readFileSync(local('one'))
  assert.is((await sftp([`put ${local('one')} one`], 'alice+plain')).status, 0)
  const { files } = await recorded()
  assert.equal(files.map(({ copy, sha256: hash }) => [copy, hash]), [[undefined, sha256(one)]])
})

test.run()
