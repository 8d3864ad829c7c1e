// The servers on which the tests of plugins stand (tool/throwaway.ts): they come back after a halt with what
// they had, and leave nothing, not even when whoever started them is killed.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { startRedis } from '../tool/redis.ts'
import { startThrowaway } from '../tool/throwaway.ts'

const tool = resolve(import.meta.dirname, '../tool/redis.ts')
// Generous: how long a shell may take to end a server after its starter died.
const goneLimitMs = 20_000

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  const open = await once(socket, 'connect').then(() => true, () => false)
  socket.destroy()
  return open
}

async function expectGone(folder: string, port: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < goneLimitMs && existsSync(folder); waitedMs += 20) await wait(20)
  assert.not(existsSync(folder), `${folder} is still there`)
  assert.not(await isOpen(port), `${port} still answers`)
}

test('a halted server is away, comes back on its port, and is deleted when it is stopped', async () => {
  const server = await startRedis()
  await server.halt()
  assert.not(await isOpen(server.port))
  assert.ok(existsSync(server.aclFile))
  await server.resume()
  assert.is(server.cli(['PING']), 'PONG')
  await server.stop()
  await expectGone(server.base, server.port)
})

test('a server whose starter is killed is ended and deleted', async () => {
  const text = `import { startRedis } from ${JSON.stringify(tool)}
    const { base, port } = await startRedis()
    console.log(JSON.stringify({ base, port }))
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', text],
    { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(createInterface(child.stdout), 'line') as [string]
  const { base, port } = JSON.parse(line) as { base: string, port: number }
  assert.ok(await isOpen(port))
  child.kill('SIGKILL')
  await expectGone(base, port)
})

test('a server that does not start says why', async () => {
  const words = ['/bin/sh', '-c', 'echo no such thing >&2; exit 3']
  const failed = await startThrowaway({ prepare: () => undefined, command: () => words }).catch(String)
  assert.match(String(failed), /did not start[^]*no such thing/)
})

test.run()
