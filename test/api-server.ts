// The HTTPS server under the API: TLS only, limits on what a stranger holds, streams that stop when the
// reader goes.
import { connect } from 'node:net'
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionRow } from '../src/api/ports-records.ts'
import { serveApi } from '../src/api/server.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { systemClock } from '../src/clock.ts'
import type { SallyportError } from '../src/errors.ts'
import { openPlace } from './peers/api-server.ts'
import type { Place } from './peers/api-server.ts'

interface Wish {
  method?: string
  body?: string
  headers?: Record<string, string>
  token?: string | undefined
}

async function ask(place: Place, path: string, wish: Wish = {}): Promise<IncomingMessage> {
  const { method = 'GET', body, headers = {}, token = place.localToken } = wish
  const sent = request(`${place.url}/api/v1${path}`, {
    method, ca: place.ca, agent: false, headers: {
      authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers
    }
  })
  sent.end(body)
  const [answer] = await once(sent, 'response') as [IncomingMessage]
  return answer
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += chunk
  return text
}

const live: SessionRow = {
  id: '01hzzzzzzzaaaaaaaaaaaaaaaa', user: 'alice', credential: 'c', target: 't', protocol: 'postgres',
  grant: 'g',
  address: '', database: null, node: 'n', status: 'live', account: null, accountName: null,
  startedAt: new Date(0),
  expiresAt: null, endedAt: null, reason: null, recording: null, recordingHead: null, recordingBytes: null
}

test('every method works over the wire, with and without a body', async () => {
  await using place = await openPlace()
  assert.is((await ask(place, '/whoami')).statusCode, 200)
  const documents = [{ kind: 'user', name: 'bob' }]
  assert.is((await ask(place, '/apply', { method: 'POST', body: JSON.stringify({ documents }) })).statusCode,
    200)
  assert.is((await ask(place, '/resources/user/bob', { method: 'DELETE' })).statusCode, 200)
  assert.is((await ask(place, '/resources/user/bob', { method: 'DELETE' })).statusCode, 404)
})

test('the certificate is of the house, and plain HTTP is not answered', async () => {
  await using place = await openPlace()
  const stranger = request(place.url, { agent: false }).end()
  const [error] = await once(stranger, 'error') as [NodeJS.ErrnoException]
  assert.is(error.code, 'DEPTH_ZERO_SELF_SIGNED_CERT')
  const plain = connect(place.server.address.port, '127.0.0.1')
  plain.end('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  let answer = ''
  for await (const chunk of plain.setEncoding('latin1')) answer += String(chunk)
  assert.not.match(answer, /HTTP\/1/)
})

test('a body without a stated length is cut off at its limit as well', async () => {
  await using place = await openPlace()
  const body = JSON.stringify({ user: 'a', password: 'x'.repeat(100_000) })
  const answer = await ask(place, '/login',
    { method: 'POST', body, headers: { 'transfer-encoding': 'chunked' } })
  assert.is(answer.statusCode, 400)
  assert.match(await textOf(answer), /larger than 65536 bytes/)
})

test('a head beyond the limit is refused before anything of ours runs', async () => {
  await using place = await openPlace()
  const result = await ask(place, '/health', { headers: { 'x-long': 'y'.repeat(20_000) } })
    .then(answer => answer.statusCode, (thrown: Error) => thrown.message)
  assert.ok(result === 431 || /hang up|ECONNRESET/.test(String(result)), String(result))
})

test('a watcher that goes away ends the following of the recording', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(live)
  const ended = Promise.withResolvers<void>()
  const { follow } = place.ports.recordings
  place.ports.recordings.follow = (session, signal) => {
    signal.addEventListener('abort', () => ended.resolve(), { once: true })
    return follow(session, signal)
  }
  const answer = await ask(place, `/sessions/${live.id}/watch`)
  const [first] = await once(answer, 'data') as [Buffer]
  assert.match(first.toString(), /so far/)
  answer.destroy()
  await ended.promise
})

test('a stream that breaks is cut, not ended as if it were whole', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(live)
  place.ports.recordings.export = async function* () {
    yield 'half of it'
    throw new Error('the disk is gone')
  }
  const answer = await ask(place, `/sessions/${live.id}/export?format=sql`)
  assert.is(answer.statusCode, 200)
  const result = await textOf(answer).then(() => 'whole', (thrown: NodeJS.ErrnoException) => thrown.code)
  assert.is(result, 'ECONNRESET')
  assert.is(place.memory.failures.length, 1)
})

test('a stream that breaks before its first piece is an ordinary refusal', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(live)
  place.ports.recordings.export = async function* () {
    if (place.memory.sessions.length > 0) throw new Error('the disk is gone')
    yield ''
  }
  const answer = await ask(place, `/sessions/${live.id}/export?format=sql`)
  assert.is(answer.statusCode, 500)
  assert.not.match(await textOf(answer), /disk/)
})

test('closing cuts what does not end by itself, and the port is free again', async () => {
  const place = await openPlace()
  place.memory.sessions.push(live)
  const answer = await ask(place, `/sessions/${live.id}/watch`)
  const cut = textOf(answer).then(() => 'whole', (thrown: NodeJS.ErrnoException) => thrown.code)
  await place[Symbol.asyncDispose]()
  assert.is(await cut, 'ECONNRESET')
  const probe = connect(place.server.address.port, '127.0.0.1')
  const [error] = await once(probe, 'error') as [NodeJS.ErrnoException]
  assert.is(error.code, 'ECONNREFUSED')
})

test('an address that is taken is said with its number', async () => {
  await using place = await openPlace()
  const app = createSallyportApi(place.ports, { localToken: undefined, loginTokenSeconds: 1 })
  const error = await serveApi(app, place.server.address, { key: '', certificate: '' }, systemClock)
    .then(() => assert.unreachable() as never, (thrown: SallyportError) => thrown)
  const { port } = place.server.address
  assert.match(error.detail!, new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`))
})

test.run()
