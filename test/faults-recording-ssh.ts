// The recordings' disk under an SSH session of the whole product (R4, F16, F18): errors and delays are those
// of the kernel's call, put there by strace into the running product. Stock ssh hears why it ended, what it
// was given is in the recording, and a slow disk costs time and nothing else. And what a person hears while
// the account is made.
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../src/api/client-types.ts'
import { until } from './peers/house.ts'
import { jitCredential, startSshHouse } from './peers/ssh-house.ts'
import type { SshHouse } from './peers/ssh-house.ts'
import { threadOf, trace } from './peers/tracer.ts'

const writes = 'pwrite64,pwritev'
let house: SshHouse

const access = `${jitCredential('shell')}---
kind: grant
name: jit-for-alice
users: [alice]
credentials: [shell]
`

test.before(async () => {
  house = await startSshHouse({ access, environment: { UV_THREADPOOL_SIZE: '1' } })
})
test.after(async () => house.end())

/** Undefined before there was any. */
const latest = async (): Promise<SessionJson | undefined> =>
  (await house.json<SessionJson[]>('sessions', 'list'))[0]
const newest = async (): Promise<SessionJson> => (await latest())!

/** All output that is in the newest session's recording. */
async function recordedOutput(id: string): Promise<Buffer> {
  const text = await house.sallyport('sessions', 'export', id, '--format', 'jsonl')
  const frames = text.trim().split('\n').map(line => JSON.parse(line) as { type: string, bytes: string })
  return Buffer.concat(frames.filter(({ type }) => type === 'output')
    .map(({ bytes }) => Buffer.from(bytes, 'base64')))
}

async function traced(fault: string): Promise<() => Promise<void>> {
  const thread = threadOf(house.process.pid ?? 0, 'main')
  const tracer = await trace(thread, ['-e', `trace=${writes}`, '-e', `inject=${writes}:${fault}`])
  return () => tracer.detach()
}

test('a disk that fills up under a session: one coded line, and nothing that is not recorded', async () => {
  const child = house.spawnSsh(['read go; seq 1 3000000; sleep 60'])
  const [out, err]: [Buffer[], Buffer[]] = [[], []]
  child.stdout!.on('data', (data: Buffer) => out.push(data))
  child.stderr!.on('data', (data: Buffer) => err.push(data))
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  const { id } = (await until(latest, session => session?.status === 'live'))!
  const detach = await traced('error=ENOSPC:when=9+')
  child.stdin!.write('go\n')
  assert.is(await ended, 255)
  await detach()
  assert.match(Buffer.concat(err).toString(),
    /the session could not be recorded \[recorder-failed [0-9a-f]{6}\]/)
  const [given, recorded] = [Buffer.concat(out), await recordedOutput(id)]
  assert.ok(given.length > 0, 'it failed in the middle')
  assert.ok(recorded.subarray(0, given.length).equals(given), `${given.length} of ${recorded.length}`)
  assert.match((await until(newest, ({ status }) => status === 'ended')).reason ?? '', /^recorder-failed/)
})

test('a slow disk: the transfer takes longer, and everything arrives in order', async () => {
  const detach = await traced('delay_exit=10000')
  const { status, stdout, stderr } = await house.ssh(['seq 1 200000'])
  await detach()
  assert.is(status, 0, stderr)
  const sum = (bytes: string | Buffer): string => createHash('sha256').update(bytes).digest('hex')
  const wanted = Array.from({ length: 200_000 }, (_, n) => `${n + 1}\n`).join('')
  assert.is(sum(stdout), sum(wanted))
  const { id } = await until(newest, ({ recording }) => recording?.sealed === true)
  assert.is(sum(await recordedOutput(id)), sum(wanted))
})

test('while the account is made a line says so, before there is one', async () => {
  await house.box.run(`cat > /usr/local/sbin/waiting <<'END'
#!/bin/sh
while [ ! -e /run/go ]; do sleep 0.05; done
exec /usr/sbin/useradd.real "$@"
END
    chmod 755 /usr/local/sbin/waiting
    mv /usr/sbin/useradd /usr/sbin/useradd.real; cp /usr/local/sbin/waiting /usr/sbin/useradd`)
  const child = house.spawnSsh(['id -un'], 'alice+shell')
  const said = { out: '', err: '' }
  child.stdout!.on('data', (data: Buffer) => { said.out += String(data) })
  child.stderr!.on('data', (data: Buffer) => { said.err += String(data) })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  await until(async () => said.err, text => /sallyport: making account jit_\d{7} on web01/.test(text))
  const [name = ''] = /jit_\d{7}/.exec(said.err) ?? []
  assert.is((await house.box.attempt(`getent passwd ${name}`)).status, 2, 'it is not there yet')
  assert.is(said.out, '')
  await house.box.run('touch /run/go')
  assert.is(await ended, 0, said.err)
  assert.is(said.out, `${name}\n`)
})

test.run()
