// `npm run demo`: the main job in one sitting, on a machine that has only npm. A real PostgreSQL (binaries
// from npm) plays the company's database; Sallyport serves in front of it on an embedded store; one session
// goes through, and every claim is checked on the target itself, by its superuser, not by asking Sallyport.
// Then it keeps serving. `-- --once` ends after the tour; nothing is left behind but what the operating
// system clears from its temp folder.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readConfig } from '../src/config.ts'
import { openProgram } from '../src/main.ts'
import { connectClient } from '../src/wire/postgres/query.ts'
import { ordersDocuments } from './orders-documents.ts'
import { adminRole, freePort, startPostgres } from './postgres.ts'
import type { PostgresServer } from './postgres.ts'

const once = process.argv.includes('--once')
const alicePassword = 'demo-alice'
const carolPassword = 'demo-carol'
const command = fileURLToPath(new URL('../src/cli/sallyport.ts', import.meta.url))

const say = (text = ''): void => console.log(text)
const step = (text: string): void => say(`\n\x1b[1m▸ ${text}\x1b[0m`)

/** The port people expect, or a free one when something else has it. */
async function portOr(wanted: number): Promise<number> {
  const free = await new Promise<boolean>(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(wanted, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
  return free ? wanted : freePort()
}

async function makeTarget(): Promise<{ target: PostgresServer, adminPassword: string }> {
  const target = await startPostgres({ version: '18' })
  await target.psql('CREATE DATABASE orders')
  await target.psql('CREATE ROLE app_rw NOLOGIN')
  await target.psql(`
    CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, cents int NOT NULL);
    INSERT INTO orders VALUES (1, 'Ada', 1200), (2, 'Grace', 450), (3, 'Edsger', 9900);
    GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app_rw;
    GRANT CREATE ON SCHEMA public TO app_rw`, 'orders')
  const { password } = await adminRole(target, { name: 'sallyport', kind: 'createrole', groups: ['app_rw'] })
  return { target, adminPassword: password }
}

function accessFile(target: PostgresServer): string {
  const { port } = target
  return `${ordersDocuments({ port, maxSession: '8h' })}---
${ordersDocuments({ port, name: 'orders-tcp', protocol: 'tcp', maxSession: '8h' })}---
kind: user
name: alice
roles: [user]
password: { env: ALICE_PASSWORD }
---
kind: user
name: carol
roles: [admin]
password: { env: CAROL_PASSWORD }
---
kind: grant
name: devs-on-orders
users: [alice]
credentials: [orders-rw, orders-tcp-rw]
`
}

/** Runs the `sallyport` command as a person would, and returns what it printed. */
async function sallyport(
  folder: string, words: string[], environment: NodeJS.ProcessEnv = {}
): Promise<string> {
  const config = ['--config', join(folder, 'sallyport.yaml')]
  const child = spawn(process.execPath, [command, ...words, ...config], {
    env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  child.stdout.on('data', chunk => { output += String(chunk) })
  child.stderr.on('data', chunk => { output += String(chunk) })
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  if (status !== 0) throw new Error(`sallyport ${words.join(' ')} failed (${status}):\n${output}`)
  return output.trimEnd()
}

const rolesOnTarget = (target: PostgresServer): Promise<string> =>
  target.psql(`SELECT coalesce(string_agg(rolname, ', ' ORDER BY rolname), '(none)')
    FROM pg_roles WHERE rolname ~ '^jit_'`)

const indented = (text: string): string => text.split('\n').map(line => `    ${line}`).join('\n')

async function tour(folder: string, target: PostgresServer, port: number): Promise<void> {
  step('Before: accounts for people on the database, seen by its superuser')
  say(indented(await rolesOnTarget(target)))

  step('Alice connects to the proxy with her own password (what psql does: TLS verified, SCRAM)')
  const notices: string[] = []
  const client = await connectClient({
    host: '127.0.0.1', port,
    tls: { mode: 'verify-full', ca: readFileSync(join(folder, 'data/tls/ca.pem'), 'utf8') },
    user: 'alice+orders-rw', database: 'orders',
    secret: () => ({ kind: 'password', password: alicePassword }),
    parameters: [['search_path', 'public']], timeouts: { connectMs: 5000, tlsMs: 5000, loginMs: 40_000 },
    onNotice: report => { notices.push(report.message) }
  })
  for (const line of notices) say(`    NOTICE:  ${line}`)

  step('During: the account that was made for this session')
  say(indented(await rolesOnTarget(target)))
  for (const sql of [
    'SELECT current_user, count(*) AS orders FROM orders',
    "INSERT INTO orders VALUES (4, 'Barbara', 700)",
    'CREATE TABLE left_behind AS SELECT * FROM orders'
  ]) {
    const { rows, tag } = await client.query(sql, { timeoutMs: 10_000 })
    const shown = rows.length === 0 ? '' : `: ${rows.map(row => row.join(' | ')).join('; ')}`
    say(`    ${sql}\n      → ${tag}${shown}`)
  }
  await client.close()

  const [session] = JSON.parse(await sallyport(folder, ['sessions', 'list', '--json'])) as { id: string }[]
  if (session === undefined) throw new Error('the session is not on the list')
  const ended = await untilProved(folder, session.id)
  step('After: the same look at the target')
  say(indented(await rolesOnTarget(target)))
  say(indented(`left_behind now belongs to ${await target.psql(
    "SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'", 'orders')}`))

  step(`The receipt of session ${session.id}`)
  say(indented(await sallyport(folder, ['sessions', 'receipt', session.id])))
  if (ended !== 'proved-gone') throw new Error(`the account is ${ended}, not proved gone`)
  if (await rolesOnTarget(target) !== '(none)') throw new Error('the account is still on the target')

  step('The recording: statements, replayed and verified against the public key')
  say(indented(await sallyport(folder, ['sessions', 'replay', session.id, '--speed', '0'])))
  say(indented(await sallyport(folder, ['sessions', 'verify', session.id])))
  say(indented(await sallyport(folder, ['audit', 'verify'])))
}

interface Shown {
  receipt: { state: string } | null
}

async function untilProved(folder: string, session: string): Promise<string> {
  let state = ''
  for (let attempt = 0; attempt < 50; attempt++) {
    const shown = JSON.parse(await sallyport(folder, ['sessions', 'show', session, '--json'])) as Shown
    state = shown.receipt?.state ?? 'without a receipt yet'
    if (state === 'proved-gone') break
  }
  return state
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-demo-'))
  step('A PostgreSQL server with a table of orders: the company’s database')
  const { target, adminPassword } = await makeTarget()
  const [postgresPort, httpPort, sshPort] = [await portOr(6432), await portOr(8443), await portOr(2222)]
  writeFileSync(join(folder, 'sallyport.yaml'), `data: ./data
recordings: { dir: ./recordings }
listen:
  ssh: 127.0.0.1:${sshPort}
  postgres: 127.0.0.1:${postgresPort}
  http: 127.0.0.1:${httpPort}
log: { level: error }
limits: { recordingsReserve: 16MiB }
`)
  say(indented(`PostgreSQL ${target.version} on 127.0.0.1:${target.port}; `
    + 'its hook role "sallyport" is no superuser'))
  step('Sallyport, on an embedded store')
  const program = await openProgram(readConfig(join(folder, 'sallyport.yaml')))
  const stop = async (): Promise<void> => {
    await program.close()
    await target.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    writeFileSync(join(folder, 'access.yaml'), accessFile(target))
    say(indented(await sallyport(folder, ['apply', '-f', join(folder, 'access.yaml')], {
      ORDERS_ADMIN_PASSWORD: adminPassword, ALICE_PASSWORD: alicePassword,
      CAROL_PASSWORD: carolPassword
    })))
    await tour(folder, target, postgresPort)
  } catch (thrown) {
    await stop()
    throw thrown
  }
  if (once) return stop()
  step('Now you (Ctrl-C ends it)')
  const address = `host=127.0.0.1 port=${postgresPort}`
  say(`
    PGPASSWORD=${alicePassword} psql '${address} user=alice+orders-rw dbname=orders
      sslmode=verify-full sslrootcert=${join(folder, 'data/tls/ca.pem')}'

    ssh -N -p ${sshPort} -L 15432:orders-tcp:5432 alice+orders-tcp-rw@127.0.0.1
      (password ${alicePassword}; it says the login of a new account: any client of PostgreSQL on port 15432)

    npx sallyport sessions list --config ${join(folder, 'sallyport.yaml')}

    https://127.0.0.1:${httpPort}/console/   as carol, password ${carolPassword}
`)
  await new Promise<void>(resolve => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  await stop()
}

await main()
process.exit(0)
