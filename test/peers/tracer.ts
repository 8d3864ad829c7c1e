// Faults from below, without any help of the product: strace is attached to one thread of a running process
// and kills the process, or makes a call fail, at exactly the n-th call of a kind. Its counter is one for
// each thread, so it is attached to one thread only: counted over several, "the 7th write" would be another
// one each time. Attaching needs root or kernel.yama.ptrace_scope=0.
import { spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { programOf } from '../../tool/services.ts'

/**
 * Threads of the product: `main` speaks to all sockets and writes recordings, `store` is the embedded store,
 * `pool` is libuv's, which syncs recordings (start the product with UV_THREADPOOL_SIZE=1: then there is one).
 */
export type ThreadRole = 'main' | 'store' | 'pool'

const names: Record<ThreadRole, string> = { main: 'MainThread', store: 'WorkerThread', pool: 'libuv-worker' }

const attachSecondsMax = 10

export interface Tracer {
  /** Lines of strace so far: one for each call. */
  lines(): string[]
  /** Lets go of the process; resolves when strace has ended, also because the process did. */
  detach(): Promise<void>
}

/** The thread ids of a role, by the names that Node gives its threads. */
export function threadsOf(pid: number, role: ThreadRole): number[] {
  return readdirSync(`/proc/${pid}/task`).map(Number)
    .filter(thread => readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').trim() === names[role])
}

/** The one thread of a role; throws when there is none, or more than one. */
export function threadOf(pid: number, role: ThreadRole): number {
  const found = threadsOf(pid, role)
  if (found.length !== 1) {
    throw new Error(`${found.length} threads of process ${pid} are called ${names[role]}`)
  }
  return found[0]!
}

/** Attaches strace with these words (`-e trace=…`, `-e inject=…`); resolves when it traces. */
export async function trace(thread: number, words: readonly string[]): Promise<Tracer> {
  const child = spawn(programOf('strace'), ['-p', String(thread), ...words], {
    stdio: ['ignore', 'ignore', 'pipe']
  })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => {
      reject(new Error(`strace does not attach: ${text}`))
    }, attachSecondsMax * 1000)
    const look = (): void => {
      if (!text.includes('attached')) return
      clearTimeout(late)
      resolve()
    }
    child.stderr.on('data', look)
    void ended.then(() => {
      clearTimeout(late)
      reject(new Error(`strace does not attach (root, or kernel.yama.ptrace_scope=0, is needed): ${text}`))
    })
  })
  return {
    lines: () => text.split('\n').filter(line => /^\w+\(/.test(line)),
    async detach() {
      child.kill('SIGINT')
      await ended
    }
  }
}

/** Words that kill the process at the n-th of these calls of the traced thread. */
export function killAt(calls: string, n: number): string[] {
  return ['-e', `trace=${calls}`, '-e', `inject=${calls}:signal=SIGKILL:when=${n}`]
}
