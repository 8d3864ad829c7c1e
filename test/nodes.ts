// What a node that asks another one is safe from: peers that hang, lie, flood or break off, addresses that
// somebody wrote into the store, tickets that were seen on the way. The peer is a server of ours over real
// TLS, because no real node can be made to do this; that real nodes understand each other is in
// journeys/two-nodes.ts.
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import type { Clock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import { createNodes } from '../src/nodes/nodes.ts'
import type { KnownNode, Nodes } from '../src/nodes/nodes.ts'
import { createTicketBox, leafOf, markOf, mintTicket } from '../src/nodes/trust.ts'
import { printQuestion, readQuestion } from '../src/nodes/words.ts'
import type { Question } from '../src/nodes/words.ts'
import { selfSignedCertificate } from '../src/wire/x509.ts'
import { until } from './peers/until.ts'

const key = Buffer.alloc(32, 7)
const session = '01hzzzzzzzaaaaaaaaaaaaaaaa'
/** Three seconds are one, half a minute is half of one and a minute one. */
const quick: Clock = {
  ...systemClock, after: (ms, act) => systemClock.after(ms < 10_000 ? ms / 3 : ms / 60, act)
}

type Answer = (response: ServerResponse, path: string) => unknown

const drawn = () => selfSignedCertificate({
  // Nodes know each other by the certificate itself, whatever it is called.
  commonName: 'Sallyport', names: ['nowhere.test'], validFrom: new Date(Date.now() - 60_000),
  validUntil: new Date(Date.now() + 3_600_000)
})
const keys = drawn()
let answer: Answer
let questions: string[] = []
const server = createServer({ key: keys.privateKey, cert: keys.certificate },
  (request: IncomingMessage, response) => {
    questions.push(request.url ?? '')
    response.on('error', () => undefined)
    void answer(response, request.url ?? '')
  })
let url: string

test.before(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
})
test.before.each(() => {
  questions = []
  answer = has
})
test.after(() => {
  server.closeAllConnections()
  server.close()
})

const json = (response: ServerResponse, value: unknown, status = 200): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}
const has: Answer = response => json(response, { has: true })
const refuse = (response: ServerResponse, code: string, status: number): void =>
  json(response, { error: { code, reference: 'x', problems: [], detail: 'gone' } }, status)
/** It has the recording; what it says of it is for the test. */
const andThen = (then: Answer): Answer => (response, path) =>
  path.includes('/has?') ? has(response, path) : then(response, path)

function row(node: string, more: Partial<KnownNode> = {}): KnownNode {
  const advert = { url, certificate: leafOf(keys.certificate) }
  return { node, alive: true, silentSeconds: 1, ...advert, mark: markOf(key, node, advert), ...more }
}

function nodesWith(...nodes: KnownNode[]): Nodes {
  const now = (): Promise<Date> => Promise.resolve(new Date())
  const rows = {
    advertise: () => Promise.resolve(),
    list: () => Promise.resolve([row('us'), ...nodes])
  }
  return createNodes({ key, node: 'us', clock: quick, rows, now })
}

const behalf = () => ({ person: 'otto', signal: new AbortController().signal })

async function refusal(act: Promise<unknown>): Promise<string> {
  const thrown: unknown = await act.then(() => undefined, (error: unknown) => error)
  if (!(thrown instanceof SallyportError)) throw new Error(`expected a refusal, got ${String(thrown)}`)
  return `${thrown.code}: ${thrown.detail}`
}

const looked = (...nodes: KnownNode[]): Promise<string> =>
  refusal(nodesWith(...nodes).holding(session, 'peer', behalf()))

async function flood(response: ServerResponse, chunk: Buffer, bytesMax = 256 * 1024 ** 2): Promise<number> {
  let bytes = 0
  for (; bytes < bytesMax && !response.destroyed; bytes += chunk.length) {
    if (!response.write(chunk)) await Promise.race([once(response, 'drain'), once(response, 'close')])
  }
  return bytes
}

const lies: readonly [what: string, answer: Answer, said: RegExp][] = [
  ['sends us elsewhere', response => response.writeHead(302, { location: 'https://127.0.0.1:1/' }).end(),
    /another kind \(302\)/],
  ['speaks of something else', response => response.end('<html>'), /no JSON/],
  ['has another shape', response => json(response, { has: 'perhaps' }), /another shape/],
  ['compresses', response => response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'),
    /another kind/],
  ['floods', response => flood(response, Buffer.alloc(65_536, 0x20)), /more than 16777216 bytes/],
  ['breaks off', response => {
    response.writeHead(200, { 'content-length': 100 }).write('{')
    setTimeout(() => response.destroy(), 20)
  }, /ECONNRESET|aborted/],
  ['never answers', () => undefined, /no answer in time/],
  ['falls silent', response => response.write('{'), /fell silent/],
  ['makes codes up', response => refuse(response, 'toString', 500), /failed \(toString x\)/],
  ['has another key', response => refuse(response, 'auth-required', 401), /refuses our ticket/]
]

for (const [what, lie, said] of lies) {
  test(`a node that ${what} is named as one that did not answer, in time`, async () => {
    answer = lie
    const told = await looked(row('peer'))
    assert.match(told, /^node-silent: node peer: /)
    assert.match(told, said)
    assert.is(questions.length, 1, 'nothing was followed or tried again')
  })
}

test('what a node refuses is its own refusal', async () => {
  answer = response => refuse(response, 'store-unavailable', 503)
  assert.is(await looked(row('peer')), 'store-unavailable: node peer: gone')
  answer = response => json(response, { has: false })
  assert.match(await looked(row('peer')), /^not-found: .* on node peer$/)
})

test('only what a node with our key wrote is believed, and only its own certificate', async () => {
  const elsewhere = 'https://127.0.0.1:1'
  for (const change of [{ url: elsewhere }, { certificate: leafOf(drawn().certificate) }, { mark: 'A' }]) {
    assert.match(await looked(row('peer', change)), /^recorded-elsewhere: .*no node with our signing key/)
  }
  assert.match(await looked({ ...row('other'), node: 'peer' }), /no node with our signing key wrote/)
  for (const bad of ['http://127.0.0.1:1', `${url}/path`, 'https://user@127.0.0.1', 'file:///etc/passwd']) {
    const certificate = leafOf(keys.certificate)
    const mark = markOf(key, 'peer', { url: bad, certificate })
    assert.match(await looked(row('peer', { url: bad, mark })), /^recorded-elsewhere/, bad)
  }
  assert.match(await looked(row('peer', { url: null, certificate: null, mark: null })),
    /^recorded-elsewhere: node peer, which says no address/)
  const certificate = leafOf(drawn().certificate)
  const mark = markOf(key, 'peer', { url, certificate })
  assert.match(await looked(row('peer', { certificate, mark })), /^node-silent: node peer: .*certificate/i)
  assert.equal(questions, [], 'nobody was told anything')
})

test('a recording whose node is gone is looked for on those that live', async () => {
  const gone = row('peer', { alive: false, silentSeconds: 77 })
  const { node } = await nodesWith(gone, row('third')).holding(session, 'peer', behalf())
  assert.is(node, 'third')
  answer = response => json(response, { has: false })
  assert.is(await looked(gone, row('third')), 'node-silent: node peer: not heard of for 77 s')
  assert.match(await looked(row('third')), /^node-silent: node peer: not heard of for weeks/)
})

test('a part is exactly as long as was promised', async () => {
  for (const [given, said] of [['12345', /more bytes/], ['123', /fewer bytes/]] as const) {
    answer = andThen(response => response.end(given))
    const { recordings } = await nodesWith(row('peer')).holding(session, 'peer', behalf())
    const told = await refusal(Array.fromAsync(recordings.raw(session, { start: 0, end: 3 })))
    assert.match(told, said)
  }
})

test('lines are bounded, of their shape, and may be beats', async () => {
  const scene = { kind: 'text', atMs: 1, text: 'ä' }
  const bytes = Buffer.from(`\n${JSON.stringify(scene)}\n\n`)
  answer = andThen(response => {
    for (const byte of bytes) response.write(Buffer.of(byte))
    response.end()
  })
  const { recordings } = await nodesWith(row('peer')).holding(session, 'peer', behalf())
  const follow = () => Array.fromAsync(recordings.follow(session, behalf().signal))
  assert.equal(await follow(), [scene])
  answer = response => response.end('{"kind":"shell","atMs":1}\n')
  assert.match(await refusal(follow()), /another shape/)
  answer = response => flood(response, Buffer.alloc(65_536, 0x61))
  assert.match(await refusal(follow()), /too long/)
  answer = response => response.write('\n')
  assert.match(await refusal(follow()), /fell silent/)
})

test('nothing is read faster than it is taken, and who leaves ends it', async () => {
  let sent: Promise<number> | undefined
  let ended = false
  answer = andThen(response => {
    response.once('close', () => { ended = true })
    sent = flood(response, Buffer.alloc(65_536))
  })
  const { recordings } = await nodesWith(row('peer')).holding(session, 'peer', behalf())
  const pieces = recordings.raw(session)[Symbol.asyncIterator]()
  await pieces.next()
  // Longer than a node may be silent: it is we who do not read.
  await new Promise(resolve => { setTimeout(resolve, 1_500) })
  assert.is((await pieces.next()).done, false)
  await pieces.return?.()
  await until(() => Promise.resolve(ended), gone => gone)
  assert.ok(await sent! < 64 * 1024 ** 2, `${await sent!} bytes were taken`)
})

test('a search asks all at once, and says who did not answer or not wholly', async () => {
  const place = (offset: number): string => `${JSON.stringify({
    session, user: 'alice', credential: 'c', target: 't', at: '', atMs: 1, kind: 'statement', text: 'x',
    day: '2026/11/21', lane: 0, offset
  })}\n`
  const silent = { url: null, certificate: null, mark: null }
  answer = (response, path) => {
    if (path.includes('query=hang')) return
    response.write(`\n${place(1)}`)
    if (path.includes('query=half')) return
    response.end(Array.from({ length: 50 }, (_, at) => place(at + 2)).join(''))
  }
  const nodes = nodesWith(row('peer'), row('mute', silent), row('dead', { alive: false }))
  const found = async (query: string): Promise<unknown[]> => {
    const asked = (await nodes.others()).map(each => each.search({ query, limit: 10 }, behalf()))
    return (await Promise.all(asked)).map(({ node, places, missing }) => [node, places.length, missing])
  }
  const others = [['mute', 0, 'recorded-elsewhere'], ['dead', 0, 'node-silent']]
  const [whole, hung, half] = await Promise.all(['all', 'hang', 'half'].map(found))
  assert.equal(whole, [['peer', 10, undefined], ...others])
  assert.equal(hung, [['peer', 0, 'node-silent'], ...others])
  assert.equal(half, [['peer', 1, 'node-silent'], ...others])
})

test('a ticket is for one node, one question and half a minute, and counts once', async () => {
  const line = printQuestion({ what: 'has', session }, { by: 'us', person: 'otto' })
  const begun = new Date()
  let [now, looks] = [begun, 0]
  const take = createTicketBox(key, 'peer', () => {
    looks++
    return Promise.resolve(now)
  })
  const taken = (ticket: string, asked = line): Promise<string> =>
    take(ticket, asked).then(() => 'taken', (thrown: SallyportError) => thrown.code)
  const ticket = mintTicket(key, 'peer', line, begun)
  assert.is(await taken(mintTicket(key, 'other', line, begun)), 'auth-required')
  assert.is(await taken(mintTicket(Buffer.alloc(32, 8), 'peer', line, begun)), 'auth-required')
  for (const other of [line.replace('otto', 'anna'), line.replace('/has', '/raw'), `${line}&start=0`]) {
    assert.is(await taken(ticket, other), 'auth-required', other)
  }
  assert.is(looks, 0, 'strangers cost the store nothing')
  now = new Date(begun.getTime() + 31_000)
  assert.is(await taken(ticket), 'auth-required')
  now = begun
  assert.equal((await Promise.all([taken(ticket), taken(ticket)])).sort(), ['auth-required', 'taken'])
  assert.is(await taken(ticket), 'auth-required')
})

test('a question is read as it was asked, and nothing else is one', () => {
  const asker = { by: 'us', person: 'o+t&t=o ü' }
  const asked: Question[] = [
    { what: 'search', query: `a&b=c+d 'ü' #/?%`, limit: 5 }, { what: 'raw', session, start: 0, end: 9 },
    { what: 'verify', session, headHash: 'cafe', bytes: 10 }, { what: 'lines', session, from: 1.5, before: 2 }
  ]
  for (const question of asked) {
    const line = printQuestion(question, asker)
    assert.equal(readQuestion(line), question)
    const { pathname, search } = new URL(`https://node${line}`)
    assert.is(pathname + search, line, 'the ticket is for the line as it arrives')
  }
  for (const line of [
    '/nodes/v2/has?session=x', '/nodes/v1/kill?session=01hzzzzzzzaaaaaaaa', '/api/v1/sessions',
    '/nodes/v1/has?session=../../etc/passwd', '/nodes/v1/export?session=01hzzzzzzz&format=exe', ''
  ]) assert.is(readQuestion(line), undefined, line)
})

test.run()
