// The whole product as its users have it: `src/main.ts` in a process of its own, the `sallyport` command,
// stock psql, and a real PostgreSQL with the roles that a DBA would have set up. Journeys, crash sweeps and
// soaks start here.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ReadingJson } from '../../src/api/client-types.ts'
import { ordersDocuments } from '../../tool/orders-documents.ts'
import { adminRole, freePort, startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'

const [lookPauseMsMin, lookPauseMsMax] = [50, 200]
const startPollMs = 20
const startLimitMs = 60_000
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const command = fileURLToPath(new URL('../../src/cli/sallyport.ts', import.meta.url))

export interface Ran {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs a program to its end; its standard input is `input` or nothing. */
export async function ran(
  program: string, words: readonly string[], environment: NodeJS.ProcessEnv = {}, input = ''
): Promise<Ran> {
  const child = spawn(program, [...words], { env: { ...process.env, ...environment }, stdio: 'pipe' })
  const result: Ran = { status: null, stdout: '', stderr: '' }
  child.stdout.on('data', chunk => { result.stdout += String(chunk) })
  child.stderr.on('data', chunk => { result.stderr += String(chunk) })
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  result.status = await new Promise<number | null>(resolve => child.once('close', resolve))
  return result
}

/**
 * A company's database: tables, a group role with rights on them, and the hooks' role, which is no superuser.
 */
export async function companyDatabase(
  version: '15' | '18', settings: Readonly<Record<string, string | number | boolean>> = {}
): Promise<{ server: PostgresServer, adminPassword: string }> {
  const server = await startPostgres({ version, settings })
  await server.psql('CREATE DATABASE orders')
  await server.psql('CREATE ROLE app_rw NOLOGIN')
  await server.psql('CREATE ROLE standing NOLOGIN; GRANT app_rw TO standing')
  await server.psql(`
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL);
    INSERT INTO orders SELECT n, 'customer ' || n FROM generate_series(1, 100) n;
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app_rw;
    GRANT CREATE ON SCHEMA public TO app_rw`, 'orders')
  const groups = ['app_rw', 'standing']
  const { password } = await adminRole(server, { name: 'sallyport', kind: 'createrole', groups })
  return { server, adminPassword: password }
}

export interface HouseOptions {
  target: PostgresServer
  adminPassword: string
  /** `pglite` or a `postgres://` URL. */
  store?: string | undefined
  httpPort?: number | undefined
  /** More of `sallyport.yaml`. */
  config?: string | undefined
  /** Its `limits`, as `name: value, name: value`; default: a small reserve for recordings. */
  limits?: string | undefined
  /** More documents for `apply`. */
  access?: string | undefined
  /** Of the credential `orders-rw`. */
  maxSession?: string | undefined
  /** Words before `node`: strace, faketime … */
  under?: readonly string[] | undefined
  environment?: NodeJS.ProcessEnv | undefined
  /** A folder of an earlier house, to start again on its data. */
  folder?: string | undefined
}

/** The product, whatever its targets are. */
export interface Product {
  folder: string
  /** The process of the product; `pid` is that of the wrapper when `under` is given. */
  process: ChildProcess
  /** What it logged. */
  log(): string
  /** The command line; throws unless it exits 0. */
  sallyport(...words: string[]): Promise<string>
  json<T>(...words: string[]): Promise<T>
  /** What the command line says when it exits with another status; throws when it exits 0. */
  refusal(...words: string[]): Promise<string>
  environment: NodeJS.ProcessEnv
  /** SIGTERM and wait; resolves with the exit status. */
  stop(): Promise<number | null>
  /** SIGKILL and wait. */
  kill(): Promise<void>
  /** Deletes the folder. */
  clear(): void
}

/** … with a PostgreSQL target. */
export interface House extends Product {
  port: number
  /** Stock psql as alice; `login` is the user name. */
  psql(sql: string, options?: { login?: string, password?: string, words?: readonly string[] }): Promise<Ran>
  connection(login?: string): string
}

export const alicePassword = 'correct horse battery'

export function accessDocuments({ target, maxSession = '8h', access = '' }: HouseOptions): string {
  return `${ordersDocuments({ port: target.port, maxSession })}---
kind: credential
name: orders-standing
target: orders
username: standing
jit:
  enabled: true
  type: enable-disable
  useOwnCredential: false
  authenticationCredential: orders-admin
  enable: { plugin: postgres, template: postgres/enable-role }
  disable: { plugin: postgres, template: postgres/disable-role }
  maxSession: 8h
---
kind: user
name: alice
roles: [user]
password: { env: ALICE_PASSWORD }
---
kind: grant
name: devs-on-orders
users: [alice]
credentials: [orders-rw, orders-standing]
${access}`
}

export interface ProductOptions {
  /** The listeners beside http: `ssh: …, postgres: …`. */
  listen: string
  httpPort?: number | undefined
  /** More of `sallyport.yaml`. */
  config?: string | undefined
  limits?: string | undefined
  /** Documents for `apply`. */
  access: string
  under?: readonly string[] | undefined
  environment?: NodeJS.ProcessEnv | undefined
  /** A folder of an earlier one, to start again on its data. */
  folder?: string | undefined
}

/** Starts the product and applies the access documents (unless it starts again on old data). */
export async function startProduct(options: ProductOptions): Promise<Product> {
  const again = options.folder !== undefined
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'sallyport-house-'))
  if (!again) {
    writeFileSync(join(folder, 'sallyport.yaml'), `
listen: { ${options.listen}, http: "127.0.0.1:${options.httpPort ?? await freePort()}" }
limits: { ${options.limits ?? 'recordingsReserve: 1MiB'}, drain: 1s }
${options.config ?? ''}`)
    writeFileSync(join(folder, 'access.yaml'), options.access)
  }
  const environment = { ...process.env, ALICE_PASSWORD: alicePassword, HOME: folder, ...options.environment }
  const product = productOf(await begin(options.under ?? [], folder, environment), folder, environment)
  if (!again) await product.sallyport('apply', '-f', join(folder, 'access.yaml'))
  return product
}

/** The same with psql and a PostgreSQL target. */
export async function startHouse(options: HouseOptions): Promise<House> {
  const product = await startProduct({
    ...options, listen: `ssh: null, postgres: "127.0.0.1:${await freePort()}"`,
    access: accessDocuments(options),
    environment: {
      ORDERS_ADMIN_PASSWORD: options.adminPassword,
      ...options.store === undefined ? {} : { SALLYPORT_STORE: options.store }, ...options.environment
    }
  })
  Object.assign(product.environment, {
    PGPASSWORD: alicePassword, PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: join(product.folder, 'data/tls/ca.pem')
  })
  const configFile = readFileSync(join(product.folder, 'sallyport.yaml'), 'utf8')
  const port = Number(/postgres: "127\.0\.0\.1:(\d+)"/.exec(configFile)?.[1])
  const connection = (login = 'alice+orders-rw'): string =>
    `host=127.0.0.1 port=${port} user=${login} dbname=orders`
  return {
    ...product, port, connection,
    psql: async (sql, { login, password, words = ['-XAtq'] } = {}) => ran(
      programOf('psql'), [...words, '-c', sql, connection(login)],
      { ...product.environment, ...password === undefined ? {} : { PGPASSWORD: password } })
  }
}

interface Begun {
  process: ChildProcess
  log(): string
  exited: Promise<number | null>
}

async function begin(
  under: readonly string[], folder: string, environment: NodeJS.ProcessEnv
): Promise<Begun> {
  const [program = process.execPath, ...words] = [...under, process.execPath, main]
  rmSync(join(folder, 'data/local-admin.token'), { force: true })
  const child = spawn(program, words, { cwd: folder, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  child.stdout.on('data', chunk => { text += String(chunk) })
  child.stderr.on('data', chunk => { text += String(chunk) })
  const exited = new Promise<number | null>(resolve => child.once('close', resolve))
  for (let waited = 0; waited < startLimitMs; waited += startPollMs) {
    if (text.includes('sallyport serves') && existsSync(join(folder, 'data/local-admin.token'))) break
    if (child.exitCode !== null || child.signalCode !== null) break
    await pause(startPollMs)
  }
  return { process: child, log: () => text, exited }
}

function productOf(begun: Begun, folder: string, environment: NodeJS.ProcessEnv): Product {
  const sallyport = async (...words: string[]): Promise<string> => {
    const all = [command, '--config', join(folder, 'sallyport.yaml'), ...words]
    const { status, stdout, stderr } = await ran(process.execPath, all, environment)
    if (status !== 0) {
      throw new Error(`sallyport ${words.join(' ')}: exit ${status}\n${stdout}${stderr}${begun.log()}`)
    }
    return stdout
  }
  return {
    folder, process: begun.process, log: begun.log, sallyport, environment,
    refusal: async (...words) => {
      const answer = await sallyport(...words).then(() => undefined, String)
      if (answer === undefined) throw new Error(`${words.join(' ')} was not refused`)
      return answer
    },
    json: async <T>(...words: string[]): Promise<T> => JSON.parse(await sallyport(...words, '--json')) as T,
    async stop() {
      begun.process.kill('SIGTERM')
      return begun.exited
    },
    async kill() {
      begun.process.kill('SIGKILL')
      await begun.exited
    },
    clear: () => rmSync(folder, { recursive: true, force: true })
  }
}

/** Stock psql straight to a target, with the values that a lease was handed out with. */
export function login(
  target: PostgresServer, { values }: ReadingJson, sql = 'SELECT current_user'
): Promise<Ran> {
  const { username, password, database = 'orders' } = values
  return ran(programOf('psql'), ['-XAtq', '-c', sql], {
    PGHOST: '127.0.0.1', PGPORT: String(target.port), PGUSER: username, PGPASSWORD: password,
    PGDATABASE: database, PGSSLMODE: 'disable'
  })
}

/** Roles of ours on the target that exist, and standing accounts that can log in. */
export async function accountsOn(server: PostgresServer): Promise<string> {
  return server.psql(`SELECT coalesce(string_agg(rolname, ',' ORDER BY rolname), '') FROM pg_roles
    WHERE rolname ~ '^jit_' OR (rolname = 'standing' AND rolcanlogin)`)
}

/** Waits until `look` says what is wanted; throws with what it said last. */
export async function until<T>(
  look: () => Promise<T>, wanted: (value: T) => boolean, seconds = 30
): Promise<T> {
  const startedMs = performance.now()
  for (;;) {
    const value = await look()
    if (wanted(value)) return value
    const waitedMs = performance.now() - startedMs
    if (waitedMs > seconds * 1000) throw new Error(`after ${seconds} s still ${JSON.stringify(value)}`)
    // A look may be a process of its own: what takes long is looked at less often.
    await pause(Math.min(Math.max(lookPauseMsMin, waitedMs / 10), lookPauseMsMax))
  }
}
