// The whole way of an audit event out of the house: the configuration names a real rsyslog over TLS and a
// web hook, both are away at first, and the program is restarted meanwhile; when they come, each gets every
// event once more than never, in order, and the figures and `doctor` say how it stands.
// deadline: 120 s
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig, readConfig } from '../src/config.ts'
import type { AuditConfig } from '../src/config-operations.ts'
import { SallyportError } from '../src/errors.ts'
import { openProgram } from '../src/main.ts'
import type { Program } from '../src/main.ts'
import { freePort } from '../tool/postgres.ts'
import { startRsyslog } from '../tool/rsyslog.ts'
import { makeFolder, run } from './peers/api-server.ts'
import { hookServer, identity } from './peers/event-receivers.ts'
import type { HookServer } from './peers/event-receivers.ts'
import { readExposition } from './peers/exposition.ts'
import { until } from './peers/until.ts'

const write = async ({ rooms: { audit } }: Program, word: string): Promise<void> => {
  for (let at = 0; at < 5; at++) await audit.append('session.opened', 'al"ice]\\', `${word}-${at}`, { at })
  await audit.append('login.refused', 'mallory', word, { why: 'two\nlines' })
}

const numbers = (word: string): string[] => [...Array.from({ length: 5 }, (_, at) => `${word}-${at}`), word]

test('rsyslog and a web hook get every event, also those from while they were away', async () => {
  await using rsyslog = await startRsyslog()
  const [folder, own, hookPort, port] = [makeFolder(), identity(), await freePort(), await freePort()]
  writeFileSync(join(folder, 'hook-ca.pem'), own.cert)
  writeFileSync(join(folder, 'sallyport.yaml'), `
listen: { ssh: null, postgres: null, http: "127.0.0.1:${await freePort()}" }
log: { level: error }
limits: { recordingsReserve: 1MiB }
metrics: { listen: "127.0.0.1:${port}" }
audit:
  syslog: { address: "127.0.0.1:${rsyslog.port}", ca: "${rsyslog.caFile}" }
  webhooks:
    - name: siem
      url: https://127.0.0.1:${hookPort}/in
      secret: { file: hook-secret }
      events: [session.*, login.refused]
      ca: hook-ca.pem
`)
  const open = (): Promise<Program> => openProgram(readConfig(undefined, {}, folder))
  const missing: unknown = await open().catch((thrown: unknown) => thrown)
  assert.instance(missing, SallyportError)
  assert.match((missing as Error).message, /webhooks siem: secret: file .* is not there/)

  writeFileSync(join(folder, 'hook-secret'), 'a-secret-of-both-sides\n')
  await rsyslog.halt()
  let program = await open()
  let hook: HookServer | undefined
  try {
    const figure = async (name: string, receiver: string): Promise<number> =>
      readExposition(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()).value(name, { receiver })
    await until(() => figure('sallyport_audit_receiver_events_waiting', 'webhook siem'), count => count >= 0)
    await write(program, 'first')
    for (const receiver of ['syslog', 'webhook siem']) {
      assert.is(await until(() => figure('sallyport_audit_receiver_failing', receiver), is => is === 1), 1)
    }
    const doctor = await run(folder, ['doctor', '--json'])
    assert.match(doctor.out, /audit to webhook siem/)
    await program.close()
    program = await open()
    await write(program, 'second')
    await rsyslog.resume()
    hook = await hookServer(own, hookPort)
    await write(program, 'third')

    const words = [...numbers('first'), ...numbers('second'), ...numbers('third')]
    const isWanted = (subject: string): boolean => words.includes(subject)
    const subjects = (): string[] => hook!.posts.flatMap(({ body }) =>
      (JSON.parse(body) as { events: { subject: string }[] }).events.map(({ subject }) => subject))
    assert.equal(await until(subjects, list => list.includes('third')), words)
    const read = (): string[] =>
      rsyslog.lines().map(fields => /subject="([^"]*)"/.exec(fields[4] ?? '')?.[1] ?? '')
    const seen = (await until(read, list => list.includes('third'))).filter(isWanted)
    assert.equal([...new Set(seen)], words)
    const refused = rsyslog.lines().find(fields => fields[4]?.includes('subject="third"') === true)!
    assert.equal(refused.slice(0, 4), ['audit', 'warning', 'sallyport', 'login.refused'])
    assert.match(refused[5]!, /\{"why":"two\\nlines"\}$/)
    assert.match(rsyslog.lines().find(fields => fields[4]?.includes('third-1') === true)![4]!,
      /actor="al\\"ice\\\]\\\\"/)
    for (const receiver of ['syslog', 'webhook siem']) {
      assert.is(await until(() => figure('sallyport_audit_receiver_failing', receiver), is => is === 0), 0)
      await until(() => figure('sallyport_audit_receiver_events_waiting', receiver), count => count === 0)
    }
    // One that is refused holds up no other, and stands where an operator looks.
    hook.answer = (response, { body }) => void response.writeHead(body.includes('poison') ? 400 : 204).end()
    await program.rooms.audit.append('session.opened', 'alice', 'poison', {})
    await write(program, 'fourth')
    await until(() => figure('sallyport_audit_receiver_events_refused', 'webhook siem'), count => count === 1)
    await until(() => figure('sallyport_audit_receiver_events_waiting', 'webhook siem'), count => count === 0)
    assert.ok(subjects().includes('fourth'))
    assert.ok(await figure('sallyport_audit_receiver_oldest_waiting_seconds', 'webhook siem') > 0)
    assert.is(await figure('sallyport_audit_receiver_events_given_up', 'webhook siem'), 0)
    const { out } = await run(folder, ['doctor'])
    assert.match(out, /warning  audit to webhook siem: 0 events wait; the oldest is \d+ s old; 1 refused/)
    const kinds = (await run(folder, ['audit', 'list', '--json'])).out
    assert.match(kinds, /audit\.event-refused/)
    assert.match(kinds, /audit\.receiver-failing/)
    assert.match(kinds, /audit\.receiver-recovered/)
  } finally {
    await program.close()
    await hook?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true })
  }
})

test('the configuration refuses receivers that nobody should send to', () => {
  const parse = (text: string): AuditConfig =>
    parseConfig(`audit: ${text}`, undefined, {}, '/etc/sallyport').audit
  assert.equal(parse('{}'), { syslog: undefined, webhooks: [] })
  assert.equal(parse('{ syslog: { address: siem } }').syslog, {
    address: { host: 'siem', port: 6514 }, transport: 'tls', ca: undefined, certificate: undefined,
    key: undefined
  })
  const hook = (more: string): string => `{ webhooks: [{ name: a, secret: { env: S }, ${more} }] }`
  assert.equal(parse(hook('url: "https://siem.test/x"')).webhooks[0], {
    name: 'a', url: 'https://siem.test/x', secret: { kind: 'env', name: 'S' }, events: ['*'], ca: undefined
  })
  parse(hook('url: "http://127.0.0.1:8080/"'))
  for (const text of [
    hook('url: "http://siem.test/x"'), hook('url: "https://u:p@siem.test/x"'),
    hook('url: "file:///etc/passwd"'),
    hook('url: "https://siem.test", events: ["Session*"]'), '{ syslog: { address: siem, transport: http } }',
    '{ syslog: { address: siem, key: k } }',
    '{ webhooks: [{ name: a, url: "https://a", secret: { env: S } }, { name: a, url: "https://b",'
      + ' secret: { env: S } }] }'
  ]) assert.throws(() => parse(text), /not valid/, text)
})

test.run()
