// Targets that log us in and then lie about our statements (reliability R7, R11): each ends in a
// ConnectionLost with its reason, within the limit of the statement, and the process goes on meanwhile.
// Honest answers, in any pieces, are read right.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import * as messages from '../src/wire/postgres/messages.ts'
import {
  connectClient, ConnectionLost, ServerError, type Client, type ClientOptions, type LossReason
} from '../src/wire/postgres/query.ts'
import { assertNoStall, left, optionsFor, quick, verifier } from './peers/hostile.ts'
import {
  cancelKey, certificateFor, hex, startTarget, type Peer, type Script
} from './peers/postgres-target.ts'

const { frame } = messages
const report = { severity: 'ERROR', sqlstate: '42601', message: 'syntax' }
const parsed = frame('1')
const bound = frame('2')
const noRows = frame('n')
const fieldEnd = hex('000000000000 00000019 ffff ffffffff 0000')
const oneColumn = frame('T', hex('0001'), Buffer.from('name\0'), fieldEnd)
const done = frame('C', Buffer.from('SELECT 1\0'))
const ready = messages.readyForQuery('I')
const row = frame('D', hex('0001 00000003 616263'))

/** Logs the client in and answers its first statement with these bytes. */
function answering(...parts: readonly (Uint8Array | string)[]): Script {
  return loggedIn(async peer => {
    await peer.statement()
    peer.send(...parts)
    await peer.mute()
  })
}

/** The connections after the first are cancel requests: they are kept and closed. */
function loggedIn(script: (peer: Peer) => Promise<void>): Script {
  let first = true
  return async peer => {
    if (!first) {
      await peer.packet()
      return peer.end()
    }
    first = false
    await peer.login(verifier)
    await script(peer)
  }
}

async function connected(port: number, limits: ClientOptions['limits'] = {}): Promise<Client> {
  return connectClient({ ...optionsFor(port), limits })
}

interface AnswerCase {
  /** Reads on from "a target that …". */
  name: string
  script: Script
  reason: LossReason
  timeoutMs?: number
  limits?: ClientOptions['limits']
  check?: (error: ConnectionLost) => void
}

async function assertLost({ script, reason, timeoutMs = 3000, limits, check }: AnswerCase): Promise<void> {
  await using target = await startTarget(script)
  const client = await connected(target.port, limits)
  const started = performance.now()
  const thrown: unknown = await assertNoStall(() =>
    client.query('select 1', { timeoutMs }).catch((error: unknown) => error))
  assert.instance(thrown, ConnectionLost, String(thrown))
  const error = thrown as ConnectionLost
  assert.is(error.reason, reason, error.message)
  assert.ok(performance.now() - started < timeoutMs + 2000)
  check?.(error)
  // The connection is of no use any more, and says so again.
  assert.is(await client.query('select 2', { timeoutMs }).catch((again: unknown) => again), error)
  await client.close()
  await left(target)
}

const head = Buffer.concat([parsed, bound])
const cases: AnswerCase[] = []
const many = (count: number, message: Uint8Array): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => message))

for (const bytes of [
  '4500000004', '450000000553', '4e00000006534100', '5200000004', '5a00000004', '4500000006534100'
]) {
  cases.push({ name: `answers ${bytes}`, script: answering(bytes), reason: 'violation' })
}
for (const length of ['00000000', '00000003', '40000000', '7fffffff', '80000000', 'ffffffff', '01000000']) {
  cases.push({
    name: `sends a row of length ${length}`,
    script: answering(head, oneColumn, '44' + length, Buffer.alloc(1000)), reason: 'violation'
  })
}

for (const [name, bytes] of [
  ['32,767 columns in six bytes', Buffer.concat([head, frame('T', hex('7fff00000000'))])],
  ['65,535 columns in nothing', Buffer.concat([head, frame('T', hex('ffff'))])],
  ['an endless column name', Buffer.concat([head, frame('T', hex('0001'), Buffer.alloc(40, 'x'))])],
  ['two values for one column', Buffer.concat([head, oneColumn, frame('D', hex('0002ffffffffffffffff'))])],
  ['a row with fewer values than columns', Buffer.concat([head, oneColumn, frame('D', hex('0000'))])],
  ['a value of length -2', Buffer.concat([head, oneColumn, frame('D', hex('0001fffffffe'))])],
  ['a value that ends behind its row', Buffer.concat([head, oneColumn, frame('D', hex('00017fffffff61'))])],
  ['a row with bytes to spare', Buffer.concat([head, oneColumn, frame('D', hex('0001ffffffff00'))])],
  ['a row without a description', Buffer.concat([head, row])],
  ['a row for a statement without columns', Buffer.concat([head, noRows, row])],
  ['two descriptions', Buffer.concat([head, oneColumn, oneColumn])],
  ['two ParseComplete', Buffer.concat([parsed, parsed])],
  ['BindComplete first', bound],
  ['CommandComplete first', done],
  ['two CommandComplete', Buffer.concat([head, noRows, done, done])],
  ['a row behind CommandComplete', Buffer.concat([head, oneColumn, done, row])],
  ['ReadyForQuery at once', ready],
  ['ReadyForQuery in the midst of rows', Buffer.concat([head, oneColumn, row, ready])],
  ['two errors', many(2, messages.errorResponse(report))],
  ['a row behind an error', Buffer.concat([head, oneColumn, messages.errorResponse(report), row])],
  ['a command tag without its end', Buffer.concat([head, noRows, frame('C', Buffer.from('SELECT'))])],
  ['a status X', Buffer.concat([head, noRows, done, frame('Z', Buffer.from('X'))])],
  ['a late request for a password', messages.authenticationCleartextPassword()],
  ['a late SASL request', Buffer.concat([head, messages.authenticationSasl(['SCRAM-SHA-256'])])],
  ['a second AuthenticationOk', messages.authenticationOk()],
  ['a late cancel key', messages.backendKeyData(1, Buffer.alloc(4))],
  ['a late version', messages.negotiateProtocolVersion(0, [])],
  ['CopyInResponse', Buffer.concat([head, noRows, frame('G', hex('000000'))])],
  ['CopyOutResponse', Buffer.concat([head, noRows, frame('H', hex('000000'))])],
  ['CopyBothResponse', Buffer.concat([head, frame('W', hex('000000'))])],
  ['CopyData', Buffer.concat([head, noRows, frame('d', hex('00'))])],
  ['PortalSuspended', Buffer.concat([head, oneColumn, row, frame('s')])],
  ['FunctionCallResponse', frame('V', hex('ffffffff'))],
  ['a parameter without its end', frame('S', Buffer.from('a\0b'))],
  ['an unknown message', frame('~')],
  ['a zero tag', frame('\0')]
] as const) {
  cases.push({ name: `answers with ${name}`, script: answering(bytes), reason: 'violation' })
}

const big = frame('D', hex('0001 000186a0'), Buffer.alloc(100_000, 'x'))
cases.push(
  {
    name: 'sends rows for ever', reason: 'too-large',
    script: loggedIn(async peer => {
      await peer.statement()
      peer.send(head, oneColumn)
      await peer.flood(many(1000, row))
    })
  },
  {
    name: 'sends large rows for ever', reason: 'too-large', limits: { resultBytesMax: 1_000_000 },
    script: loggedIn(async peer => {
      await peer.statement()
      peer.send(head, oneColumn)
      await peer.flood(big)
    })
  },
  {
    name: 'sends a row above the limit', reason: 'violation', limits: { resultBytesMax: 50_000 },
    script: answering(head, oneColumn, big)
  },
  {
    name: 'sends one row too many', reason: 'too-large', limits: { resultRowsMax: 10 },
    script: answering(head, oneColumn, many(11, row), done, ready)
  },
  {
    name: 'sends notices for ever', reason: 'violation',
    script: loggedIn(async peer => {
      await peer.statement()
      await peer.flood(many(500, messages.noticeResponse({ ...report, message: '' })))
    })
  },
  {
    name: 'sends parameters for ever', reason: 'violation',
    script: loggedIn(async peer => {
      await peer.statement()
      for (let count = 0; count < 200; count++) {
        peer.send(many(100, messages.parameterStatus(`p${count}`, '')))
      }
      await peer.mute()
    })
  },
  {
    name: 'sends notifications for ever', reason: 'violation',
    script: loggedIn(async peer => {
      await peer.statement()
      await peer.flood(many(500, frame('A', hex('000000016100 6200'))))
    })
  },
  {
    name: 'answers before it was asked', reason: 'violation',
    script: async peer => {
      await peer.packet()
      await peer.scram(verifier)
      peer.send(Buffer.concat([peer.settled(), head, oneColumn, row, done, ready]))
      await peer.mute()
    }
  },
  { name: 'does not answer', script: answering(), reason: 'timeout', timeoutMs: 150 },
  { name: 'stops within a header', script: answering(head, '4400'), reason: 'timeout', timeoutMs: 150 },
  {
    name: 'stops within a row', reason: 'timeout', timeoutMs: 150,
    script: answering(head, oneColumn, row.subarray(0, 9))
  },
  { name: 'never becomes ready', script: answering(head, noRows, done), reason: 'timeout', timeoutMs: 150 },
  {
    name: 'sends a byte every 20 ms', reason: 'timeout', timeoutMs: 200,
    script: loggedIn(async peer => {
      await peer.statement()
      await peer.drip(messages.noticeResponse({ ...report, message: 'x'.repeat(1000) }), 20)
    })
  },
  {
    name: 'hangs up', reason: 'closed',
    script: loggedIn(async peer => {
      await peer.statement()
      peer.end()
    })
  },
  {
    name: 'resets within a row', reason: 'closed',
    script: loggedIn(async peer => {
      await peer.statement()
      peer.send(head, oneColumn, row.subarray(0, 9))
      await new Promise(resolve => setTimeout(resolve, 20))
      peer.reset()
    })
  },
  {
    name: 'ends the session with a FATAL error', reason: 'closed',
    script: loggedIn(async peer => {
      await peer.statement()
      peer.send(messages.errorResponse({ severity: 'FATAL', sqlstate: '57P01', message: 'by an admin' }))
      peer.end()
    }),
    check: ({ cause }) => assert.is((cause as ServerError).sqlstate, '57P01')
  }
)

for (const hostile of cases) {
  test(`a target that ${hostile.name} harms only this statement`, () => assertLost(hostile))
}

test('there are many such targets, and no two are the same', () => {
  assert.ok(cases.length >= 60, String(cases.length))
  assert.is(new Set(cases.map(({ name }) => name)).size, cases.length)
})

test('a statement that takes too long is cancelled with the right key, over TLS if there is', async () => {
  const certificate = certificateFor()
  const verified = { mode: 'verify-full' as const, ca: certificate.certificate }
  for (const tls of [{ mode: 'disable' as const }, verified]) {
    const cancels: string[] = []
    let first = true
    await using target = await startTarget(async peer => {
      if (tls.mode !== 'disable') await peer.startTls()
      if (first) {
        first = false
        await peer.login(verifier)
        await peer.mute()
      } else {
        cancels.push((await peer.packet()).toString('hex'))
        peer.end()
      }
    }, certificate)
    const client = await connectClient(optionsFor(target.port, { tls }))
    const waiting = client.query('select 1', { timeoutMs: 50 })
    const thrown: unknown = await waiting.catch((error: unknown) => error)
    assert.is((thrown as ConnectionLost).reason, 'timeout')
    await left(target)
    assert.equal(cancels, ['04d2162e00001267' + cancelKey.toString('hex')])
  }
})

test('a target that takes no cancel request either is left all the same', async () => {
  let first = true
  await using target = await startTarget(async peer => {
    if (first) {
      first = false
      await peer.login(verifier)
    }
    await peer.mute()
  })
  const client = await connected(target.port)
  const thrown: unknown = await client.query('select 1', { timeoutMs: 50 }).catch((error: unknown) => error)
  assert.is((thrown as ConnectionLost).reason, 'timeout')
  await left(target)
})

test('every one of the 256 tags is refused in every phase of an answer where it is not due', async () => {
  // Bodies that are in order for a row of no columns, a parse, a bind, a description of nothing.
  const phases: readonly (readonly [Buffer, string])[] = [
    [Buffer.alloc(0), '1'], [parsed, '2'], [head, 'n'], [Buffer.concat([head, noRows]), 'I'],
    [Buffer.concat([head, noRows, done]), '']
  ]
  const taken: string[] = []
  for (const [before, due] of phases) {
    let tag = 0
    let ended = 0
    await using target = await startTarget(async peer => {
      await peer.login(verifier)
      await peer.statement()
      peer.send(before, Buffer.from([tag]), '00000004')
      peer.end()
    })
    for (tag = 0; tag < 256; tag++) {
      const client = await connected(target.port)
      const thrown: unknown = await client.query('x', { timeoutMs: 3000 }).catch((error: unknown) => error)
      // Only a message that is due lets the answer go on, until the target hangs up.
      const { reason } = thrown as ConnectionLost
      if (reason === 'closed') taken.push(String.fromCharCode(tag))
      else if (reason === 'violation') ended++
    }
    assert.is(ended, due === '' ? 256 : 255, `after ${before.toString('hex')}`)
  }
  assert.equal(taken, ['1', '2', 'n', 'I'])
})

// ---- honest answers

const answer = Buffer.concat([
  messages.noticeResponse(report), head, oneColumn, row,
  messages.parameterStatus('client_encoding', 'LATIN1'),
  frame('D', hex('0001ffffffff')), frame('A', hex('00000001 6100 6200')), done, messages.readyForQuery('T')
])

test('an answer is read right, in one piece and byte by byte', async () => {
  for (const pieces of [1, answer.length]) {
    await using target = await startTarget(loggedIn(async peer => {
      await peer.statement()
      if (pieces === 1) peer.send(answer)
      else await peer.drip(answer, 0)
      await peer.mute()
    }))
    const client = await connected(target.port)
    assert.equal(await client.query('select 1', { timeoutMs: 5000 }), {
      rows: [['abc'], [null]], columns: ['name'], tag: 'SELECT 1'
    })
    assert.is(client.transactionStatus, 'T')
    assert.is(client.parameters.get('client_encoding'), 'LATIN1')
    await client.close()
    await left(target)
  }
})

test('a refused statement leaves the connection usable, and names what the target said', async () => {
  const full = { ...report, detail: 'more', hint: 'help' }
  await using target = await startTarget(loggedIn(async peer => {
    await peer.statement()
    peer.send(messages.errorResponse(full), messages.readyForQuery('E'))
    await peer.statement()
    // A deferred constraint: the command was complete, and the commit failed.
    peer.send(head, noRows, done, messages.errorResponse(full), ready)
    await peer.statement()
    peer.send(head, noRows, frame('I'), ready)
    await peer.mute()
  }))
  const client = await connected(target.port)
  for (let count = 0; count < 2; count++) {
    const thrown: unknown = await client.query('x', { timeoutMs: 3000 }).catch((error: unknown) => error)
    assert.instance(thrown, ServerError)
    const { sqlstate, severity, serverMessage, detail, hint, message } = thrown as ServerError
    assert.equal([sqlstate, severity, serverMessage], ['42601', 'ERROR', 'syntax'])
    assert.equal([detail, hint, message], ['more', 'help', '42601: syntax'])
  }
  assert.equal(await client.query('', { timeoutMs: 3000 }), { rows: [], columns: [], tag: '' })
  await client.close()
})

test('statements wait for those before them', async () => {
  const seen: string[] = []
  await using target = await startTarget(loggedIn(async peer => {
    for (let count = 0; count < 3; count++) {
      seen.push(await peer.statement())
      await new Promise(resolve => setTimeout(resolve, 10))
      peer.send(head, noRows, frame('C', Buffer.from(`${seen.length}\0`)), ready)
    }
    await peer.mute()
  }))
  const client = await connected(target.port)
  const results = ['a', 'b', 'c'].map(sql => client.query(sql, { timeoutMs: 3000 }))
  assert.equal((await Promise.all(results)).map(({ tag }) => tag), ['1', '2', '3'])
  assert.equal(seen, ['a', 'b', 'c'])
  await client.close()
  await left(target)
})

test('a statement that cannot be sent is an error of its own and harms nothing', async () => {
  await using target = await startTarget(answering(head, noRows, done, ready))
  const client = await connected(target.port)
  for (const work of [
    client.query('select \0', { timeoutMs: 1000 }), client.query('\ud800', { timeoutMs: 1000 }),
    client.query('select $1', { timeoutMs: 1000, values: ['\0'] })
  ]) {
    assert.instance(await work.catch((error: unknown) => error), WireError)
  }
  assert.is((await client.query('select 1', { timeoutMs: 3000 })).tag, 'SELECT 1')
  await client.close()
  await left(target)
})

test('a target that floods an idle connection is held back, and its parameters are not kept', async () => {
  await using target = await startTarget(loggedIn(async peer => {
    await peer.statement()
    peer.send(many(50, messages.parameterStatus('unheard_of', 'x')), head, noRows, done, ready)
    await peer.flood(messages.noticeResponse({ ...report, message: 'x'.repeat(30_000) }))
  }))
  const client = await connected(target.port)
  await client.query('select 1', { timeoutMs: 3000 })
  assert.equal([...client.parameters.keys()], ['server_version', 'client_encoding'])
  // More than any socket buffer holds would have come by now.
  let before = -1
  for (const [peer] = target.peers; peer!.bytesSent > before;) {
    before = peer!.bytesSent
    await new Promise(resolve => setTimeout(resolve, 100))
    assert.ok(before < 32 * 1024 * 1024, `the target could send ${before} bytes`)
  }
  await client.close()
  await left(target)
})

test('a connection that was held back while idle goes on with the next statement', async () => {
  await using target = await startTarget(loggedIn(async peer => {
    peer.send(many(100, messages.noticeResponse({ ...report, message: 'x'.repeat(30_000) })))
    await peer.statement()
    peer.send(head, noRows, done, ready)
    await peer.mute()
  }))
  const client = await connected(target.port)
  await new Promise(resolve => setTimeout(resolve, 100))
  assert.is((await client.query('select 1', { timeoutMs: 3000 })).tag, 'SELECT 1')
  await client.close()
  await left(target)
})

test('closing says Terminate, and cuts a target that does not close', async () => {
  let last = ''
  await using target = await startTarget(loggedIn(async peer => {
    last = (await peer.message()).tag
    await peer.mute()
  }))
  const client = await connected(target.port)
  await client.close()
  await client.close()
  assert.is(last, 'X')
  await left(target)
  const thrown: unknown = await client.query('x', { timeoutMs: 100 }).catch((error: unknown) => error)
  assert.is((thrown as ConnectionLost).reason, 'closed')
})

test('our own settings go with the login, and the caller may overrule them', async () => {
  let packet = ''
  await using target = await startTarget(async peer => {
    packet = (await peer.packet()).toString('latin1')
    await peer.scram(verifier)
    peer.send(peer.settled())
    await peer.mute()
  })
  const client = await connectClient({ ...optionsFor(target.port), parameters: [['TimeZone', 'Asia/Tokyo']] })
  for (const setting of [
    'client_encoding\0UTF8', 'standard_conforming_strings\0on', 'search_path\0pg_catalog, pg_temp',
    'TimeZone\0Asia/Tokyo'
  ]) assert.ok(packet.includes(`\0${setting}\0`), setting)
  assert.not.ok(packet.includes('UTC'))
  await client.close()
})

test('a login that fails is an UpstreamError here too', async () => {
  await using target = await startTarget(peer => peer.mute())
  const options = { ...optionsFor(target.port), timeouts: { ...quick, loginMs: 100 } }
  const thrown: unknown = await connectClient(options).catch((error: unknown) => error)
  assert.is((thrown as { kind: string }).kind, 'timeout')
  await left(target)
})

test.run()
