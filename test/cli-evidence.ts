// The commands of an auditor over a real session on a real PostgreSQL: watch it live, end it, replay it,
// search it, export it, and check recording and receipt with nothing but files and the public key.
// deadline: 240 s
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openHouse } from './peers/orders-house.ts'
import { until } from './peers/until.ts'

interface Shown {
  id: string
  status: string
  reason: string
  account: { id: string, name: string, state: string }
  recording: { headHash: string, bytes: number, sealed: boolean }
  receipt: { state: string } | null
}

/** `sessions watch` in the background: what it printed, and its exit code. */
function watch(folder: string, id: string): { seen(): string, ended: Promise<number | null> } {
  const entry = fileURLToPath(new URL('../src/cli/sallyport.ts', import.meta.url))
  const child = spawn(process.execPath, [entry, 'sessions', 'watch', id], {
    cwd: folder, env: { PATH: process.env['PATH'] ?? '', HOME: folder }, stdio: ['ignore', 'pipe', 'inherit']
  })
  let seen = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { seen += text })
  return { seen: () => seen, ended: once(child, 'close').then(([code]) => code as number | null) }
}

const hostile = '\x1b]0;owned\x07'

test('an auditor sees a session live, ends it, and checks its evidence without the server', async () => {
  await using house = await openHouse()
  const { fine, say, folder } = house
  const json = async <T>(line: string): Promise<T> => (await fine(`${line} --json`)).json<T>()

  // ---- live
  const client = await house.connect()
  await client.query(`SELECT 'needle-one', '${hostile}'`, { timeoutMs: 10_000 })
  const [live] = await json<Shown[]>('sessions list --status live')
  const id = live!.id
  assert.match(live!.account.name, /^jit_\d{7}$/)
  assert.is(live!.receipt, null)
  const watching = watch(folder, id)
  await until(() => Promise.resolve(watching.seen()), seen => seen.includes('needle-one'))
  await client.query("SELECT 'needle-two'", { timeoutMs: 10_000 })
  await until(() => Promise.resolve(watching.seen()), seen => seen.includes('needle-two'))
  const [lease] = await json<{ id: string, status: string, owner: string }[]>('leases list --status active')
  assert.equal([lease!.status, lease!.owner], ['active', id])
  const inUse = await say('delete credential orders-rw')
  assert.match(inUse.err, new RegExp(`account ${live!.account.name} on orders is active`))

  // ---- ended by an admin
  await fine(`sessions kill ${id}`)
  assert.is(await watching.ended, 0)
  assert.match(watching.seen(), /\[cut: session-killed\]/)
  assert.not.match(watching.seen(), /\x1b\]|\x07/)
  await client.close().catch(() => undefined)
  const shown = await until(() => json<Shown>(`sessions show ${id}`), each =>
    each.receipt !== null && each.status === 'ended')
  assert.equal([shown.status, shown.receipt!.state, shown.account.state],
    ['ended', 'proved-gone', 'proved-gone'])
  assert.match(shown.reason, /^session-killed/)
  assert.is(shown.recording.sealed, true)
  assert.is(await house.target.psql(`SELECT count(*) FROM pg_roles WHERE rolname = '${live!.account.name}'`),
    '0')
  assert.is((await say(`sessions kill ${id}`)).code, 1)

  // ---- what was recorded
  const replay = await fine(`sessions replay ${id} --max-idle 0`)
  assert.match(replay.out, /=> SELECT 'needle-one', '\\x1b\]0;owned\\x07'\r\n-- SELECT 1, 1 row.*\r\n/)
  assert.not.match(replay.out, /\x1b\]|\x07/)
  const [hit] = await json<{ session: string, user: string, text: string }[]>('sessions search needle-two')
  assert.equal([hit!.session, hit!.user], [id, 'alice'])
  assert.is((await say('sessions search needle-three')).code, 1)
  const version = (line: string): unknown => (JSON.parse(line.split('\n')[0]!) as { version: number }).version
  assert.is(version((await fine(`sessions export ${id}`)).out), 2)
  assert.is(version((await fine(`sessions export ${id} --format asciicast-v3`)).out), 3)
  assert.match((await fine(`sessions export ${id} --format sql`)).out, /\nSELECT 'needle-two'\n;\n/)
  const lines = (await fine(`sessions export ${id} --format jsonl`)).out.trim().split('\n')
  const types = lines.map(line => (JSON.parse(line) as { type: string }).type)
  assert.equal(types, ['open', 'statement', 'statement', 'close'])

  // ---- whether it is genuine
  assert.match((await fine(`sessions verify ${id}`)).out, /state +sealed/)
  const file = `${id}.spr`
  await fine(`sessions export ${id} --format recording -o ${file}`)
  const offline = '--public-key data/signing.pub'
  const verdict = await json<{ valid: boolean, headHash: string }>(`sessions verify ${file} ${offline}`)
  assert.equal([verdict.valid, verdict.headHash], [true, shown.recording.headHash])
  const bytes = readFileSync(join(folder, file))
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(join(folder, file), bytes)
  const broken = await say(`sessions verify ${file} ${offline} --json`)
  assert.equal([broken.code, broken.json()['state']], [1, 'broken'])
  const receipt = await json<{ genuine: boolean,
    body: { state: string } }>(`sessions receipt ${id} ${offline}`)
  assert.equal([receipt.genuine, receipt.body.state], [true, 'proved-gone'])
  receipt.body.state = 'failed'
  writeFileSync(join(folder, 'receipt.json'), JSON.stringify(receipt))
  assert.is((await say(`sessions receipt receipt.json ${offline}`)).code, 1)

  // ---- the ledger, and the house as a whole
  const events = await json<{ kind: string }[]>(`leases history ${lease!.id}`)
  assert.ok(events.length >= 3, JSON.stringify(events))
  assert.is((await say(`leases renew ${lease!.id} --ttl 5m`)).code, 1)
  assert.match((await fine(`leases revoke ${lease!.id}`)).out, /had ended already/)
  assert.match((await fine('templates prove orders-rw')).out, /proved: nothing remained/)
  await fine('orphans scan')
  assert.match((await fine('doctor')).out, /ok {7}target orders as orders-admin: /)
  const kinds = (await json<{ kind: string }[]>('audit list --limit 1000')).map(event => event.kind)
  for (const what of ['opened', 'watched', 'killed', 'replayed', 'exported']) {
    assert.ok(kinds.includes(`session.${what}`), what)
  }
  await fine('audit verify')
})

test.run()
