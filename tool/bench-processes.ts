// The processes that a benchmark compares, each on its own so that its CPU and memory can be read from
// /proc: our front end, pgbouncer (session pooling, as shipped or with larger buffers), and a target that
// costs nothing.
import { spawn } from 'node:child_process'
import { chownSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { unprivilegedAccount } from './postgres-programs.ts'
import { freePort } from './postgres.ts'
import { programOf } from './services.ts'

export interface Process {
  port: number
  pid: number
  stop(): Promise<void>
}

export interface Finished {
  code: number | null
  out: string
  error: string
}

const root = resolve(import.meta.dirname, '..')
// Linux counts CPU in ticks of 10 ms.
const tickUs = 10_000

/** Microseconds of user and system time of a process, all its threads. */
export function cpuUs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) * tickUs
}

export function residentKiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

/** Runs a client to its end; `password` is what libpq sends. */
export function runProgram(
  program: string, words: readonly string[], password: string, cwd?: string
): Promise<Finished> {
  return new Promise((done, fail) => {
    const env = { ...process.env, PGPASSWORD: password, PGSSLMODE: 'disable' }
    const child = spawn(program, words, { env, cwd })
    let [out, error] = ['', '']
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
    child.stderr.on('data', (chunk: Buffer) => { error += chunk.toString() })
    child.on('error', fail)
    child.on('close', code => done({ code, out, error }))
  })
}

/**
 * One of our own programs: takes its setting as a line of JSON, prints its port, ends with its standard
 * input.
 */
export async function startOwn(file: string, options: unknown = {}): Promise<Process> {
  const child = spawn(process.execPath, [join(root, file)], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.write(`${JSON.stringify(options)}\n`)
  const line = await new Promise<string>((done, fail) => {
    child.stdout.once('data', (chunk: Buffer) => done(chunk.toString()))
    child.once('exit', () => fail(new Error(`${file} did not start`)))
  })
  const { port, pid } = JSON.parse(line) as { port: number, pid: number }
  const stop = (): Promise<void> => new Promise(done => {
    child.once('exit', () => done())
    child.stdin.end()
  })
  return { port, pid, stop }
}

/** `settings` of its own, such as `pkt_buf`; none: as shipped. */
export async function startPgbouncer(
  targetPort: number, user: string, password: string, settings: Readonly<Record<string, number>> = {}
): Promise<Process> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-pgbouncer-'))
  const port = await freePort()
  const [users, config] = [join(folder, 'users.txt'), join(folder, 'pgbouncer.ini')]
  writeFileSync(users, `"${user}" "${password}"\n`, { mode: 0o600 })
  writeFileSync(config, [
    '[databases]', `* = host=127.0.0.1 port=${targetPort}`, '[pgbouncer]', 'listen_addr = 127.0.0.1',
    `listen_port = ${port}`, 'auth_type = scram-sha-256', `auth_file = ${users}`, 'pool_mode = session',
    'max_client_conn = 5000', 'default_pool_size = 4000', 'unix_socket_dir =', 'log_connections = 0',
    'log_disconnections = 0', 'ignore_startup_parameters = extra_float_digits',
    ...Object.entries(settings).map(([name, value]) => `${name} = ${value}`), ''
  ].join('\n'))
  // It refuses to run as root.
  const account = unprivilegedAccount()
  if (account !== undefined) {
    for (const path of [folder, users, config]) chownSync(path, account.uid, account.gid)
  }
  const child = spawn(programOf('pgbouncer'), [config], { stdio: ['ignore', 'ignore', 'pipe'], ...account })
  await new Promise<void>((done, fail) => {
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      if (said.includes('process up')) done()
    })
    child.once('exit', () => fail(new Error(`pgbouncer did not start: ${said}`)))
  })
  const stop = (): Promise<void> => new Promise(done => {
    child.once('exit', () => {
      rmSync(folder, { recursive: true })
      done()
    })
    child.kill('SIGKILL')
  })
  return { port, pid: child.pid!, stop }
}
