// A house that is watched: what a real session on a real PostgreSQL, a refused login and a target that is
// away leave in the figures.
// deadline: 120 s
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort } from '../tool/postgres.ts'
import { readExposition } from './peers/exposition.ts'
import type { Exposition } from './peers/exposition.ts'
import { openHouse } from './peers/orders-house.ts'
import { until } from './peers/until.ts'

/** A download that goes on in the middle gives the same bytes. */
async function checkParts(folder: string): Promise<void> {
  const [token, url] = readFileSync(join(folder, 'data', 'local-admin.token'), 'utf8').split('\n')
  const ca = readFileSync(join(folder, 'data', 'tls', 'ca.pem'), 'utf8')
  const ask = async (path: string, more: Record<string, string> = {}): Promise<[IncomingMessage, Buffer]> => {
    const headers = { authorization: `Bearer ${token}`, ...more }
    const sent = request(`${url}/api/v1/sessions${path}`, { ca, agent: false, headers })
    sent.end()
    const [answer] = await once(sent, 'response') as [IncomingMessage]
    return [answer, await buffer(answer)]
  }
  const { sessions } = JSON.parse((await ask(''))[1].toString()) as { sessions: { id: string }[] }
  const path = `/${sessions[0]!.id}/recording`
  const [{ headers }, whole] = await ask(path)
  assert.is(Number(headers['content-length']), whole.length)
  const [part, bytes] = await ask(path, { 'range': 'bytes=100-', 'if-range': headers.etag! })
  assert.equal([part.statusCode, part.headers['content-range']],
    [206, `bytes 100-${whole.length - 1}/${whole.length}`])
  assert.ok(bytes.equals(whole.subarray(100)))
}

test('figures count what happened, and never name a person (R32)', async () => {
  const port = await freePort()
  await using house = await openHouse(`metrics: { listen: "127.0.0.1:${port}" }`)
  const scrape = async (): Promise<Exposition> =>
    readExposition(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text())

  const client = await house.connect()
  await client.query('SELECT 1', { timeoutMs: 10_000 })
  const during = await scrape()
  assert.is(during.value('sallyport_sessions_live', { protocol: 'postgres' }), 1)
  assert.is(during.value('sallyport_leases_live'), 1)
  assert.is(during.value('sallyport_accounts', { state: 'active' }), 1)
  assert.is(during.value('sallyport_recordings_open'), 1)
  await client.close()
  await house.connect('wrong').then(() => assert.unreachable(), () => undefined)

  const after = await until(scrape, read => read.value('sallyport_removal_proof_seconds_count') === 1
    && read.value('sallyport_sessions_live', { protocol: 'postgres' }) === 0)
  assert.is(after.value('sallyport_sessions_opened_total', { protocol: 'postgres' }), 1)
  assert.is(after.value('sallyport_sessions_ended_total',
    { protocol: 'postgres', how: 'ended', code: 'client-closed' }), 1)
  assert.is(after.value('sallyport_sessions_refused_total',
    { protocol: 'postgres', step: 'authenticate', code: 'auth-failed' }), 1)
  assert.is(after.value('sallyport_hook_seconds_count',
    { plugin: 'postgres', verb: 'create', outcome: 'done' }), 1)
  assert.is(after.value('sallyport_removals_total', { state: 'proved-gone' }), 1)
  assert.ok(after.value('sallyport_removal_proof_seconds_sum') < 30)
  assert.is(after.value('sallyport_oldest_unproved_removal_seconds'), 0)
  assert.is(after.value('sallyport_target_breaker', { target: 'orders' }), 0)
  assert.is(after.value('sallyport_store_up'), 1)
  assert.equal(['waiting_bytes', 'slow'].map(of => after.value(`sallyport_recorder_${of}`)), [0, 0])
  assert.ok(after.value('sallyport_store_round_trip_seconds') > 0)
  assert.ok(after.value('sallyport_event_loop_delay_seconds_count') > 0)
  assert.ok(after.value('process_resident_memory_bytes') > 1e7)
  assert.ok(after.value('sallyport_audit_chain_length') > 5)
  assert.not.ok(after.types.has('sallyport_audit_valid'), 'nobody has verified it yet')
  await house.fine('audit verify')
  assert.is((await scrape()).value('sallyport_audit_valid'), 1)
  const names = (await scrape()).samples.flatMap(({ labels }) => Object.values(labels))
  assert.not.ok(names.some(text => text.includes('alice')))

  await checkParts(house.folder)

  // A target that is away while an account should go: the age of the oldest grows, and its breaker is open.
  const second = await house.connect()
  await house.target.halt()
  await second.close().catch(() => undefined)
  const away = await until(scrape, read =>
    read.value('sallyport_oldest_unproved_removal_seconds') > 0
    && read.samples.some(({ name, value }) => name === 'sallyport_target_breaker' && value > 0))
  assert.is(away.value('sallyport_accounts', { state: 'unreachable' }), 1)
})

test.run()
