// Killed at a durable write: a process that issues and releases leases is ended by SIGKILL exactly when it
// syncs its store for the n-th time (strace, no help from the product), for n over its whole life; another
// process starts on what is left. However far the first one came: no account that could be used remains, and
// the ledger has proved each gone. The short form takes every third write; SALLYPORT_SWEEP=all takes every
// one.
// deadline: 300 s
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDatabase } from '../src/store/database.ts'
import { programOf } from '../tool/services.ts'
import { fileShelf } from './peers/lease-files.ts'
import { LeaseTarget } from './peers/lease-target.ts'
import { openWorld, shortLimits, until } from './peers/lease-world.ts'

const victim = join(import.meta.dirname, 'peers/lease-victim.ts')
// (Not with --seccomp-bpf: it kills nothing after the first write of another thread.)
const step = process.env.SALLYPORT_SWEEP === 'all' ? 1 : 3
// A life has some 60 durable writes; a sweep that never ends has lost its count.
const pointsMax = 400
// R2: from the restart to a target without a trace; the looks afterwards take `lateCheckMs` more.
const recoveryMsMax = 30_000

interface Life {
  output: string
  killed: boolean
}

async function live(dataDir: string, targetDir: string, killAt: number): Promise<Life> {
  const tracer = [
    '-f', '-qq', '-o', '/dev/null', '-e', 'trace=fsync,fdatasync',
    '-e', `inject=fsync,fdatasync:signal=SIGKILL:when=${killAt}`
  ]
  const child = spawn(programOf('strace'), [...tracer, process.execPath, victim, dataDir, targetDir], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
  const [, signal] = await once(child, 'close') as [number | null, string | null]
  return { output, killed: signal === 'SIGKILL' }
}

/** A new process's start on what is left: how long until the target had nothing that could be used. */
async function recover(dataDir: string, target: LeaseTarget): Promise<number> {
  const startedMs = performance.now()
  const database = await openDatabase({ store: 'pglite', dataDir })
  try {
    await using world = await openWorld(database, { target, keep: true })
    const { ledger } = await world.node('one', { limits: { ...shortLimits, lateCheckMs: 200 } })
    await until('nothing can be used', () => target.usable().length === 0, recoveryMsMax)
    const tookMs = performance.now() - startedMs
    await until('everything is proved gone', async () =>
      (await world.rows(`select id from account where state <> 'proved-gone'`)).length === 0)
    await ledger.idle()
    assert.equal(await world.rows(`select id from hold where state in ('pending', 'active')`), [])
    const known = new Set((await world.rows('select name from account')).map(row => row.name))
    assert.equal(
      target.accounts.names().filter(name => !known.has(name)), [], 'on the target, but not on the books'
    )
    return tookMs
  } finally {
    await database.close()
  }
}

test('killed at any durable write, a process leaves nothing that the next does not prove gone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-crash-'))
  const [dataDir, targetDir] = [join(folder, 'store'), join(folder, 'target')]
  mkdirSync(targetDir)
  const target = new LeaseTarget(fileShelf(targetDir))
  try {
    // A whole life first: making the store has its own durable writes, which are not what is swept.
    assert.match((await live(dataDir, targetDir, 65_535)).output, /ready\nthrough\n/)
    await recover(dataDir, target)
    let kills = 0
    let midway = 0
    let withAccounts = 0
    let slowestMs = 0
    for (let point = 1; point < pointsMax; point += step) {
      const { output, killed } = await live(dataDir, targetDir, point)
      if (killed) kills++
      if (killed && output === 'ready\n') midway++
      if (killed && target.usable().length > 0) withAccounts++
      slowestMs = Math.max(slowestMs, await recover(dataDir, target))
      assert.equal(target.accounts.names().filter(name => name !== 'deploy'), [], `killed at write ${point}`)
      assert.equal(target.usable(), [], `killed at write ${point}`)
      if (!killed) {
        assert.is(output, 'ready\nthrough\n')
        break
      }
    }
    process.stdout.write(`${kills} kills, ${midway} between ready and the end, ${withAccounts} with ` +
      `accounts that were on; slowest recovery ${Math.round(slowestMs)} ms\n`)
    // Otherwise nothing was tried: the count is wrong, or the tracer kills nothing.
    assert.ok(kills >= 15 && midway >= 5 && withAccounts >= 2, `${kills} ${midway} ${withAccounts}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test.run()
