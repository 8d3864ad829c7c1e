// Simulates power cuts under the embedded store: `node tool/power-loss.ts [ROUNDS]`, as root, on a machine
// with loop devices. Each round a writer works on an ext4 file system in a file; at a random moment the
// file system is shut down without flushing anything (EXT4_IOC_SHUTDOWN), mounted again, and the store is
// opened and held against what the writer had acknowledged. `--unsynced` runs PGlite as shipped instead, to
// see that the method finds losses. Prints a line for each round and exits 1 when something was lost.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { randomInt } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { openDatabase } from '../src/store/database.ts'
import { acknowledged, writtenNumbers } from '../test/peers/store-writer.ts'

const imageMegabytes = 512
const cutAfterMs = { min: 800, max: 6_000 }
// _IOR('X', 125, __u32) and EXT4_GOING_FLAGS_NOLOGFLUSH of fs/ext4/ext4.h; Node has no ioctl(2).
const shutDownScript = `
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
`
const writer = fileURLToPath(new URL('../test/peers/store-writer.ts', import.meta.url))

interface Round {
  acknowledged: number
  lost: number[]
  failure: string | undefined
}

function run(program: string, ...words: string[]): void {
  execFileSync(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
}

async function cutPower(mountPoint: string, image: string, round: number): Promise<Round> {
  const dataDir = join(mountPoint, 'data')
  const words = process.argv.includes('--unsynced') ? ['--unsynced'] : []
  const child = spawn(process.execPath, [writer, dataDir, '1000000', String(round * 1_000_000), ...words],
    { stdio: ['ignore', 'pipe', 'ignore'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
  const ended = once(child, 'close')
  while (!output.includes('ready') && child.exitCode === null) await wait(10)
  await wait(randomInt(cutAfterMs.min, cutAfterMs.max))
  run('python3', '-c', shutDownScript, mountPoint)
  child.kill('SIGKILL')
  await ended
  run('umount', mountPoint)
  run('mount', '-o', 'loop', image, mountPoint)
  const numbers = acknowledged(output)
  try {
    const database = await openDatabase({ store: 'pglite', dataDir })
    try {
      const written = await writtenNumbers(database)
      const lost = numbers.filter(number => !written.has(number))
      return { acknowledged: numbers.length, lost, failure: undefined }
    } finally {
      await database.close()
    }
  } catch (thrown) {
    return { acknowledged: numbers.length, lost: numbers, failure: String(thrown) }
  }
}

const rounds = Number(process.argv.slice(2).find(word => /^\d+$/.test(word)) ?? 5)
const folder = mkdtempSync(join(tmpdir(), 'power-loss-'))
const image = join(folder, 'disk.img')
const mountPoint = join(folder, 'disk')
mkdirSync(mountPoint)
let losses = 0
let total = 0
try {
  run('truncate', '-s', `${imageMegabytes}M`, image)
  run('mke2fs', '-q', '-t', 'ext4', image)
  run('mount', '-o', 'loop', image, mountPoint)
  try {
    for (let round = 0; round < rounds; round++) {
      const { acknowledged: acks, lost, failure } = await cutPower(mountPoint, image, round)
      total += acks
      losses += lost.length
      console.log(`round ${round + 1}: ${acks} acknowledged, ${lost.length} lost ${failure ?? ''}`)
      if (failure !== undefined) break
    }
  } finally {
    run('umount', mountPoint)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(`${rounds} power cuts, ${total} acknowledged transactions, ${losses} lost`)
process.exitCode = losses > 0 ? 1 : 0
