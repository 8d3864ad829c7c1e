// PostgreSQL's own suites through our front end: the regression tests (some 217 files with their expected
// output) and libpq_pipeline (the extended protocol in every odd order), each run directly and through the
// proxy on the same server, and compared (R26). Source and build live in a folder that is kept, so that a
// second run takes minutes less. Needs Debian's source package of PostgreSQL 15, a C compiler, bison and
// flex: as root they are installed. `npm run regress` runs all of it; `-- --only=pipeline` or
// `--only=regression` a part.
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { clientPassword, startPassThrough } from '../test/peers/pass-through.ts'
import type { PassThrough } from '../test/peers/pass-through.ts'
import { startPostgres } from './postgres.ts'
import type { PostgresServer } from './postgres.ts'
import { ensurePackages, programOf } from './services.ts'

/** Packages that only this tool needs. */
const buildPackages = ['bison', 'flex', 'gcc', 'libc6-dev', 'make', 'dpkg-dev']
const folder = join(tmpdir(), 'sallyport-regress')
/** Who runs the suites: they expect whoever made the cluster. */
const runner = 'postgres'
const trustLine = 'host all all 127.0.0.1/32 trust'

interface Results {
  passed: string[]
  failed: string[]
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function must(program: string, words: readonly string[], cwd: string = folder): string {
  const done = spawnSync(program, words, {
    cwd, encoding: 'utf8', maxBuffer: 256 * 1024 * 1024,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  })
  if (done.status === 0) return done.stdout
  const said = `${done.stdout}\n${done.stderr}`.trim().split('\n').slice(-30).join('\n')
  throw new Error(`${program} ${words.join(' ')} failed: ${done.error?.message ?? said}`)
}

/** Debian's lists of this machine, as lists of source packages; nothing of the system is changed. */
function sourceLists(): string[] {
  const parts = join(folder, 'lists.d')
  mkdirSync(parts, { recursive: true })
  mkdirSync(join(folder, 'lists', 'partial'), { recursive: true })
  const more = readdirSync('/etc/apt/sources.list.d').map(name => `/etc/apt/sources.list.d/${name}`)
  const files = ['/etc/apt/sources.list', ...more]
  for (const [index, file] of files.filter(each => existsSync(each)).entries()) {
    const text = readFileSync(file, 'utf8')
    // Other people's archives have no PostgreSQL, and often no sources.
    if (!/debian(-security)?\/?(\s|$)/m.test(text)) continue
    const [name, sources] = file.endsWith('.sources')
      ? [`${index}.sources`, text.replace(/^Types:.*$/gm, 'Types: deb-src')]
      : [`${index}.list`, text.replace(/^deb /gm, 'deb-src ')]
    writeFileSync(join(parts, name), sources)
  }
  return [
    '-o', 'Dir::Etc::sourcelist=/dev/null', '-o', `Dir::Etc::sourceparts=${parts}`,
    '-o', `Dir::State::lists=${join(folder, 'lists')}`, '-o', 'APT::Sandbox::User=root'
  ]
}

/** The built source tree. */
function build(): string {
  mkdirSync(folder, { recursive: true })
  chmodSync(folder, 0o755)
  const found = (): string | undefined => readdirSync(folder).find(name => /^postgresql-15-15/.test(name))
  if (found() === undefined) {
    const lists = sourceLists()
    must('apt-get', [...lists, '-q', 'update'])
    // The same version as the server: the expected output changes with it.
    const version = must('dpkg-query', ['-W', '-f', '${source:Version}', 'postgresql-15']).trim()
    must('apt-get', [...lists, '-q', 'source', `postgresql-15=${version}`])
  }
  const source = join(folder, found()!)
  const regress = join(source, 'src/test/regress')
  if (!existsSync(join(regress, 'regress.so'))) {
    say('building')
    must('./configure', ['--without-readline', '--without-zlib', '--without-icu'], source)
    must('make', ['-C', 'src/backend', 'generated-headers'], source)
    const built = ['port', 'common', 'interfaces/libpq', 'test/regress', 'test/modules/libpq_pipeline']
    for (const part of built) {
      must('make', ['-C', `src/${part}`], source)
    }
    must('make', ['-C', 'contrib/spi'], source)
  }
  return source
}

/** A copy that the server's account may write to: some tests copy tables to files and back. */
function workFolder(source: string, name: string): string {
  const work = join(folder, name)
  rmSync(work, { recursive: true, force: true })
  mkdirSync(join(work, 'results'), { recursive: true })
  cpSync(join(source, 'src/test/regress'), work, { recursive: true })
  must('chmod', ['-R', 'a+rwX', work])
  return work
}

function run(
  program: string, words: readonly string[], environment: Record<string, string>, cwd: string
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { cwd, env: { ...process.env, ...environment } })
    let out = ''
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
    child.stderr.on('data', (chunk: Buffer) => { out += chunk.toString() })
    child.once('error', reject)
    child.once('close', code => resolve(`${out}\nexit ${code}`))
  })
}

async function regression(
  server: PostgresServer, source: string, name: string, port: number
): Promise<Results> {
  const work = workFolder(source, name)
  await server.psql('DROP DATABASE IF EXISTS regression')
  const out = await run(join(work, 'pg_regress'), [
    `--inputdir=${work}`, `--outputdir=${work}`, `--bindir=${join(programOf('postgres-15'), '..')}`,
    `--dlpath=${work}`, '--host=127.0.0.1', `--port=${port}`, `--user=${runner}`,
    '--encoding=UTF8', '--no-locale', '--max-concurrent-tests=20',
    `--schedule=${join(work, 'parallel_schedule')}`
  ], { PGPASSWORD: clientPassword, PGSSLMODE: 'disable' }, work)
  writeFileSync(join(work, 'out.txt'), out)
  const results: Results = { passed: [], failed: [] }
  for (const [, test, verdict] of out.matchAll(/^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED)/gm)) {
    (verdict === 'ok' ? results.passed : results.failed).push(test!)
  }
  if (results.passed.length === 0) throw new Error(`pg_regress did not run:\n${out.slice(-3000)}`)
  await forgetRoles(server)
  return results
}

/** The suite leaves roles and a database; the next run wants none of them. */
async function forgetRoles(server: PostgresServer): Promise<void> {
  await server.psql('DROP DATABASE IF EXISTS regression')
  const roles = (await server.psql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'regress%'")).split('\n')
  for (const role of roles.filter(each => each !== '')) {
    await server.psql(`DROP OWNED BY "${role}"`)
    await server.psql(`DROP ROLE "${role}"`)
  }
}

async function pipeline(source: string, port: number): Promise<Results> {
  const program = join(source, 'src/test/modules/libpq_pipeline/libpq_pipeline')
  const libraries = { LD_LIBRARY_PATH: join(source, 'src/interfaces/libpq'), PGPASSWORD: clientPassword }
  const listed = await run(program, ['tests'], libraries, folder)
  const tests = listed.split('\n').filter(name => /^[a-z_]+$/.test(name))
  const results: Results = { passed: [], failed: [] }
  for (const test of tests) {
    const where = `host=127.0.0.1 port=${port} user=${runner} dbname=postgres sslmode=disable`
    const out = await run(program, [test, where], libraries, folder)
    if (out.endsWith('\nexit 0')) results.passed.push(test)
    else {
      results.failed.push(test)
      say(`libpq_pipeline ${test}: ${out.trim().split('\n').slice(-4).join(' | ')}`)
    }
  }
  return results
}

/** The first lines of pg_hba.conf decide: without a password for the direct run, with one for the proxy's. */
async function trust(server: PostgresServer, trusted: boolean): Promise<void> {
  const file = join(server.dataDir, 'pg_hba.conf')
  const rest = readFileSync(file, 'utf8').split('\n').filter(line => line !== trustLine)
  writeFileSync(file, [...trusted ? [trustLine] : [], ...rest].join('\n'))
  await server.psql('SELECT pg_reload_conf()')
}

/**
 * Whoever the client says it is, it is that at the target: the suites connect as roles that they have just
 * made.
 */
function startFront(server: PostgresServer): Promise<PassThrough> {
  return startPassThrough({
    target: { host: '127.0.0.1', port: server.port, tls: { mode: 'disable' } },
    role: '', password: server.superuserPassword, iterations: 1,
    roleOf: async login => {
      const name = `"${login.replaceAll('"', '""')}"`
      if (login !== runner) await server.psql(`ALTER ROLE ${name} PASSWORD '${server.superuserPassword}'`)
      return login
    },
    listen: { limits: { unauthenticatedPerAddressMax: 1000 } }
  })
}

function compare(title: string, direct: Results, proxied: Results): boolean {
  const of = ({ passed, failed }: Results): string => `${passed.length} of ${passed.length + failed.length}`
  say(`${title}: directly ${of(direct)}, through the proxy ${of(proxied)}`)
  const only = proxied.failed.filter(test => !direct.failed.includes(test))
  if (direct.failed.length > 0) say(`  failed directly: ${direct.failed.join(' ')}`)
  if (only.length > 0) say(`  failed only through the proxy: ${only.join(' ')}`)
  return only.length === 0 && proxied.passed.length === direct.passed.length
}

async function main(): Promise<void> {
  const only = process.argv.find(word => word.startsWith('--only='))?.slice(7)
  ensurePackages(['postgres-15', 'psql'])
  if (process.getuid?.() === 0) {
    must('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...buildPackages], '/')
  }
  const source = build()
  await using server = await startPostgres({ version: '15', settings: { max_connections: 100 } })
  let same = true
  type Test = (port: number, name: string) => Promise<Results>
  const both = async (title: string, test: Test): Promise<void> => {
    const started = performance.now()
    await trust(server, true)
    const direct = await test(server.port, 'direct')
    const between = performance.now()
    await trust(server, false)
    await using front = await startFront(server)
    const proxied = await test(front.port, 'proxied')
    const seconds = (from: number, to: number): string => ((to - from) / 1000).toFixed(0)
    say(`${title}: ${seconds(started, between)} s, ${seconds(between, performance.now())} s; ` +
      `${front.endings.length} sessions, ${front.recordings.stats().lost} recordings lost`)
    same = compare(title, direct, proxied) && same
  }
  if (only !== 'regression') await both('libpq_pipeline', port => pipeline(source, port))
  if (only !== 'pipeline') await both('regression', (port, name) => regression(server, source, name, port))
  process.exitCode = same ? 0 : 1
}

await main()
