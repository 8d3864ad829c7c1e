// Targets that lie while we log in (reliability R7, R11, R21; facts A1 to A3): each ends in an error of the
// right kind, at once or at the limit of its step, the process goes on meanwhile, and no password is given
// away.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { UpstreamError } from '../src/wire/error.ts'
import type { TlsOptions } from '../src/wire/postgres/dial.ts'
import * as messages from '../src/wire/postgres/messages.ts'
import { openUpstream } from '../src/wire/postgres/upstream.ts'
import type { SelfSigned } from '../src/wire/x509.ts'
import { assertLoginFails, canary, optionsFor, quick, verifier, type LoginCase } from './peers/hostile.ts'
import { certificateFor, hex, startTarget, type Lies, type Script } from './peers/postgres-target.ts'

const { frame } = messages
const report = { severity: 'FATAL', sqlstate: '57P03', message: 'starting up' }
const withPassword = { secret: () => ({ kind: 'password' as const, password: canary }) }
const cases: LoginCase[] = []

/** Answers the startup packet with these bytes and then waits. */
function answering(...parts: readonly (Uint8Array | string)[]): Script {
  return async peer => {
    await peer.packet()
    peer.send(...parts)
    await peer.mute()
  }
}

/** Goes through the proof honestly, then says this. */
function afterProof(...parts: readonly (Uint8Array | string)[]): Script {
  return async peer => {
    await peer.packet()
    await peer.scram(verifier)
    peer.send(...parts)
    await peer.mute()
  }
}

function lying(lies: Lies): Script {
  return async peer => {
    await peer.packet()
    await peer.scram(verifier, lies)
    peer.send(peer.settled())
    await peer.mute()
  }
}

const key = messages.backendKeyData(1, Buffer.alloc(4))
const ok = messages.authenticationOk()
const ready = messages.readyForQuery('I')
const limited = { timeouts: { ...quick, loginMs: 200 } }

// ---- the bytes that stop or kill other clients (A1, A3), and their kin
for (const bytes of [
  '4500000004', '450000000553', '4e00000006534100', '5200000004', '5a00000004', '4e00000004',
  '4500000006534100'
]) {
  cases.push({ name: `answers ${bytes}`, script: answering(bytes), kind: 'violation' })
  cases.push({ name: `says ${bytes} after the proof`, script: afterProof(ok, bytes), kind: 'violation' })
}
for (const length of ['00000000', '00000003', '7fffffff', '80000000', 'fffffff0', 'ffffffff', '3fffffff']) {
  for (const tag of ['52', '45', '4e']) {
    cases.push({
      name: `sends a message ${tag} of length ${length}`, script: answering(tag + length, Buffer.alloc(100)),
      kind: 'violation'
    })
  }
}
cases.push(
  {
    name: 'sends an error of 65 KiB', script: answering(frame('E', Buffer.alloc(66_000, 'M'))),
    kind: 'violation'
  },
  {
    name: 'sends an error of 100 fields', script: answering(frame('E', hex('534100'.repeat(100) + '00'))),
    kind: 'violation'
  },
  {
    name: 'sends bytes behind the end of an error', script: answering(frame('E', hex('5341000000'))),
    kind: 'violation'
  },
  {
    name: 'refuses with an SQLSTATE that is none',
    script: answering(frame('E', Buffer.from('C\u001b[31m\0Mx\0\0'))),
    kind: 'refused', check: ({ sqlstate }) => assert.is(sqlstate, 'XX000')
  },
  {
    name: 'refuses with 60,000 characters',
    script: answering(messages.errorResponse({ ...report, message: 'x'.repeat(60_000) })),
    kind: 'refused', check: ({ serverMessage }) => assert.is(serverMessage?.length, 4096)
  }
)

// ---- weaker logins (R21)
for (const [name, code] of [
  ['Kerberos', 2], ['a cleartext password', 3], ['GSSAPI', 7], ['SSPI', 9], ['a login of the future', 99]
] as const) {
  const script = answering(frame('R', Buffer.from([0, 0, 0, code])))
  cases.push({ name: `asks for ${name}`, script, kind: 'untrusted', options: withPassword })
}
cases.push(
  {
    name: 'asks for an MD5 password', script: answering('520000000c0000000501020304'), kind: 'untrusted',
    options: withPassword
  },
  { name: 'asks for no login at all', script: answering(ok, key, ready), kind: 'untrusted' },
  {
    name: 'offers SCRAM-SHA-1 only', script: answering(messages.authenticationSasl(['SCRAM-SHA-1'])),
    kind: 'untrusted'
  },
  {
    name: 'offers PLUS without TLS', script: answering(messages.authenticationSasl(['SCRAM-SHA-256-PLUS'])),
    kind: 'untrusted'
  },
  { name: 'offers nothing', script: answering(messages.authenticationSasl([])), kind: 'untrusted' },
  {
    name: 'offers 100 mechanisms',
    script: answering(messages.authenticationSasl(Array.from({ length: 100 }, () => 'x'))), kind: 'violation'
  },
  {
    name: 'does not end its list of mechanisms', script: answering('520000000b0000000a534300'),
    kind: 'violation'
  },
  { name: 'lets us in at the challenge', script: async peer => {
    await peer.packet()
    peer.send(messages.authenticationSasl(['SCRAM-SHA-256']))
    await peer.message()
    peer.send(ok, key, ready)
    await peer.mute()
  }, kind: 'untrusted' },
  { name: 'lets us in without its own proof', script: async peer => {
    await peer.packet()
    peer.send(messages.authenticationSasl(['SCRAM-SHA-256']))
    const first = (await peer.message()).body.toString('latin1')
    const nonce = /r=(.*)$/.exec(first)![1]!
    peer.send(messages.authenticationSaslContinue(Buffer.from(`r=${nonce}x,s=AAAA,i=1`)))
    await peer.message()
    peer.send(ok, key, ready)
    await peer.mute()
  }, kind: 'untrusted' },
  {
    name: 'asks for a cleartext password after our proof',
    script: afterProof(messages.authenticationCleartextPassword()), kind: 'untrusted'
  },
  {
    name: 'asks for a password when the login is over',
    script: afterProof(ok, messages.authenticationCleartextPassword()), kind: 'violation'
  },
  { name: 'begins SASL twice', script: async peer => {
    await peer.packet()
    await peer.scram(verifier)
    peer.send(messages.authenticationSasl(['SCRAM-SHA-256']))
    await peer.mute()
  }, kind: 'violation' },
  {
    name: 'challenges before SASL',
    script: answering(messages.authenticationSaslContinue(Buffer.from('r=x,s=AAAA,i=1'))), kind: 'violation'
  },
  {
    name: 'ends SASL before it began',
    script: answering(messages.authenticationSaslFinal(Buffer.from('v=AAAA'))), kind: 'violation'
  }
)

// ---- challenges and signatures
const challenges: readonly (readonly [string, (mine: string, first: string) => string])[] = [
  ['asks for 2^31-1 iterations', mine => mine.replace(/i=\d+/, 'i=2147483647')],
  ['asks for 20,000,000 iterations', mine => mine.replace(/i=\d+/, 'i=20000000')],
  ['asks for 100,001 iterations', mine => mine.replace(/i=\d+/, 'i=100001')],
  ['asks for no iterations', mine => mine.replace(/i=\d+/, 'i=0')],
  ['asks for -1 iterations', mine => mine.replace(/i=\d+/, 'i=-1')],
  ['asks for 1e3 iterations', mine => mine.replace(/i=\d+/, 'i=1e3')],
  ['does not continue our nonce', mine => mine.replace(/r=./, 'r=~')],
  ['adds nothing to our nonce', (mine, first) => mine.replace(/r=[^,]+/, /r=.*$/.exec(first)![0])],
  ['sends a nonce of 3,000 characters', mine => mine.replace(',s=', `${'x'.repeat(3000)},s=`)],
  ['sends no salt', mine => mine.replace(/s=[^,]+/, 's=')],
  ['sends a salt that is not base64', mine => mine.replace(/s=[^,]+/, 's=A*AA')],
  ['sends a salt of 2,000 bytes', mine => mine.replace(/s=[^,]+/, `s=${'AAAA'.repeat(667)}`)],
  ['wants a mandatory extension', mine => `m=x,${mine}`],
  ['adds an extension', mine => `${mine},x=y`],
  ['sends an empty challenge', () => ''],
  ['sends a challenge of 60,000 bytes', () => 'r'.repeat(60_000)],
  ['sends a zero byte in its challenge', mine => `${mine}\0`]
]
for (const [name, challenge] of challenges) {
  cases.push({ name, script: lying({ challenge }), kind: 'violation' })
}
cases.push(
  {
    name: 'signs with another key',
    script: lying({ signature: () => `v=${Buffer.alloc(32).toString('base64')}` }), kind: 'untrusted'
  },
  { name: 'signs in four bytes', script: lying({ signature: () => 'v=AAAAAA==' }), kind: 'untrusted' },
  {
    name: 'ends with an error in SCRAM', script: lying({ signature: () => 'e=other-error' }),
    kind: 'untrusted'
  },
  { name: 'ends with nothing', script: lying({ signature: () => '' }), kind: 'violation' },
  { name: 'ends with no base64', script: lying({ signature: () => 'v=****' }), kind: 'violation' },
  { name: 'adds to its signature', script: lying({ signature: mine => `${mine},x=y` }), kind: 'violation' }
)

// ---- wrong phase
for (const [name, bytes] of [
  ['a cancel key', key], ['a parameter', messages.parameterStatus('a', 'b')], ['ready', ready],
  ['a row', frame('D', Buffer.alloc(2))], ['a row description', frame('T', Buffer.alloc(2))],
  ['CopyBoth', frame('W', Buffer.alloc(3))], ['an unknown message', frame('~')],
  ['version 3.2', hex('760000000c0003000200000000')]
] as const) {
  cases.push({ name: `sends ${name} before the login`, script: answering(bytes), kind: 'violation' })
}
for (const [name, bytes] of [
  ['two cancel keys', Buffer.concat([key, key])],
  ['a cancel key of three bytes', frame('K', Buffer.alloc(7))],
  ['a cancel key of 300 bytes', frame('K', Buffer.alloc(304))], ['no cancel key', ready],
  ['a parameter without terminator', frame('S', Buffer.from('a\0b'))],
  ['a status X', frame('Z', Buffer.from('X'))], ['no status', frame('Z')],
  ['a row', frame('D', Buffer.alloc(2))], ['a version', hex('760000000c0003000000000000')],
  ['600 parameters', Buffer.concat(Array.from({ length: 600 }, () => messages.parameterStatus('a', 'b')))],
  ['600 notices', Buffer.concat(Array.from({ length: 600 }, () => messages.noticeResponse(report)))]
] as const) {
  const tail = name === 'two cancel keys' || name === 'no cancel key' ? [] : [key]
  const script = afterProof(ok, bytes, ...tail, ready)
  cases.push({ name: `sends ${name} after the login`, script, kind: 'violation' })
}
cases.push(
  { name: 'negotiates twice', script: answering('760000000c0003000000000000'.repeat(2)), kind: 'violation' },
  {
    name: 'promises 2^31 protocol options', script: answering('760000000c0003000080000000'), kind: 'violation'
  }
)

// ---- refusals, in each phase
const refusal = messages.errorResponse(report)
for (const [name, script] of [
  ['at once', answering(refusal)],
  ['after the proof', afterProof(refusal)],
  ['after it let us in', afterProof(ok, key, refusal)]
] as const) {
  cases.push({
    name: `refuses ${name}`, script, kind: 'refused',
    check: ({ sqlstate, serverMessage }) => assert.equal([sqlstate, serverMessage], ['57P03', 'starting up'])
  })
}

// ---- silence, floods, partings
cases.push(
  { name: 'never says a word', script: peer => peer.mute(), kind: 'timeout', options: limited },
  {
    name: 'falls silent after its list of mechanisms',
    script: answering(messages.authenticationSasl(['SCRAM-SHA-256'])), kind: 'timeout', options: limited
  },
  { name: 'falls silent after the proof', script: afterProof(), kind: 'timeout', options: limited },
  { name: 'falls silent after it let us in', script: afterProof(ok), kind: 'timeout', options: limited },
  { name: 'falls silent within a message', script: answering('520000'), kind: 'timeout', options: limited },
  { name: 'sends a byte every 20 ms', script: async peer => {
    await peer.packet()
    await peer.drip(frame('N', Buffer.alloc(5000, 'x')), 20)
  }, kind: 'timeout', options: limited },
  { name: 'hangs up at once', script: peer => peer.end(), kind: 'unreachable' },
  { name: 'resets the connection', script: async peer => {
    await peer.packet()
    peer.reset()
  }, kind: 'unreachable' },
  { name: 'hangs up within a message', script: async peer => {
    await peer.packet()
    peer.send('520000')
    peer.end()
  }, kind: 'unreachable' },
  { name: 'hangs up after it let us in', script: async peer => {
    await peer.packet()
    await peer.scram(verifier)
    peer.send(ok)
    peer.end()
  }, kind: 'unreachable' },
  { name: 'floods us with notices', script: async peer => {
    await peer.packet()
    await peer.flood(Buffer.concat(Array.from({ length: 100 }, () => messages.noticeResponse(report))))
  }, kind: 'violation' },
  { name: 'floods us with zero bytes', script: async peer => {
    await peer.packet()
    await peer.flood(Buffer.alloc(65_536))
  }, kind: 'violation' },
  {
    name: 'floods us before it was asked', script: peer => peer.flood(Buffer.alloc(65_536, 'N')),
    kind: 'violation'
  },
  { name: 'floods us while we work on its challenge', script: async peer => {
    await peer.packet()
    peer.send(messages.authenticationSasl(['SCRAM-SHA-256']))
    const nonce = /r=(.*)$/.exec((await peer.message()).body.toString('latin1'))![1]!
    peer.send(messages.authenticationSaslContinue(Buffer.from(`r=${nonce}x,s=AAAA,i=100000`)))
    await peer.flood(messages.noticeResponse({ ...report, message: 'x'.repeat(30_000) }))
  }, kind: 'violation', options: withPassword }
)

// ---- TLS
const certificate = certificateFor()
const trusted = { mode: 'verify-full' as const, ca: certificate.certificate }
const tls = { ...withPassword, tls: trusted }

/** Answers the request for TLS with these bytes and then waits; nothing but the request may have come. */
function answeringTls(...parts: readonly (Uint8Array | string)[]): Script {
  return async peer => {
    await peer.packet()
    peer.send(...parts)
    await peer.mute()
  }
}

function onlyRequest(_: unknown, { received }: { received: Buffer[] }): void {
  assert.equal(Buffer.concat(received).subarray(0, 8), messages.sslRequest())
  assert.not.ok(Buffer.concat(received).includes('jit_1'), 'the name of the account was sent in clear')
}

const stuffing = Buffer.concat([Buffer.from('S'), messages.authenticationCleartextPassword()])
for (const [name, script, kind] of [
  ['has no TLS', answeringTls(Buffer.from('N')), 'untrusted'],
  ['answers TLS with an error', answeringTls(Buffer.from('E'), refusal.subarray(1)), 'refused'],
  ['answers TLS with another letter', answeringTls(Buffer.from('X')), 'violation'],
  ['answers TLS with 64 KiB', answeringTls(Buffer.alloc(65_536, 'S')), 'violation'],
  ['stuffs a message behind its S', answeringTls(stuffing), 'violation'],
  ['speaks in clear after its S', async peer => {
    await peer.packet()
    peer.send(Buffer.from('S'))
    await peer.read(5)
    peer.send(messages.authenticationCleartextPassword())
    await peer.mute()
  }, 'untrusted'],
  ['hangs up after its S', async peer => {
    await peer.packet()
    peer.send(Buffer.from('S'))
    peer.end()
  }, 'unreachable']
] satisfies [string, Script, LoginCase['kind']][]) {
  cases.push({ name, script, kind, options: tls, check: onlyRequest })
}
cases.push(
  {
    name: 'answers TLS with nothing', script: answeringTls(), kind: 'timeout',
    options: { ...tls, timeouts: { ...quick, tlsMs: 200 } }
  },
  {
    name: 'falls silent in the handshake', script: answeringTls(Buffer.from('S')), kind: 'timeout',
    options: { ...tls, timeouts: { ...quick, tlsMs: 200 } }
  },
  {
    name: 'answers TLS with an error that has a text',
    script: answeringTls(Buffer.from('E'), refusal.subarray(1)), kind: 'refused', options: tls,
    check: ({ message, serverMessage }) => assert.not.ok(`${message}${serverMessage}`.includes('starting up'))
  }
)

/** Speaks TLS and asks for a cleartext password: nobody may get that far with a wrong certificate. */
const greedy: Script = async peer => {
  await peer.startTls()
  await peer.packet()
  peer.send(messages.authenticationCleartextPassword())
  await peer.mute()
}
const other = certificateFor()
const expired = certificateFor(undefined, { expired: true })
const brokenPem = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n'
for (const [name, distrust, says, shown] of [
  ['shows a certificate of somebody else', { ...trusted, ca: other.certificate }, /^TLS: /, certificate],
  ['shows a certificate that no public authority issued', { mode: 'verify-full' }, /^TLS: /, certificate],
  ['shows a certificate for another name', { ...trusted, serverName: 'db.example' }, /ALTNAME/, certificate],
  ['shows `require` a wrong certificate', { mode: 'require', ca: other.certificate }, /^TLS: /, certificate],
  ['shows an expired certificate', { ...trusted, ca: expired.certificate }, /EXPIRED/, expired],
  ['is verified by a broken authority', { ...trusted, ca: brokenPem }, /cannot be read/, certificate],
  ['asks for a cleartext password within verified TLS', trusted, /not SCRAM/, certificate]
] satisfies [string, TlsOptions, RegExp, SelfSigned][]) {
  cases.push({
    name, script: greedy, kind: 'untrusted', options: { ...withPassword, tls: distrust }, certificate: shown,
    check: ({ message }) => assert.match(message, says)
  })
}
cases.push({
  name: 'is to be verified without an authority', script: greedy, kind: 'untrusted',
  options: { ...withPassword, tls: { mode: 'verify-ca' } }, certificate,
  check: (_, { received }) => assert.is(received.length, 0)
})

for (const hostile of cases) {
  test(`a target that ${hostile.name} harms only this login`, () => assertLoginFails(hostile))
}

test('every one of the 256 tags ends a login in every phase, when it says nothing', async () => {
  const kinds = new Map<string, number>()
  let tag = 0
  for (const phase of ['begin', 'proved', 'let in'] as const) {
    await using target = await startTarget(async peer => {
      await peer.packet()
      if (phase !== 'begin') await peer.scram(verifier)
      if (phase === 'let in') peer.send(ok)
      peer.send(Buffer.from([tag]), '0000000800000000')
      await peer.mute()
    })
    for (tag = 0; tag < 256; tag++) {
      const opening = openUpstream(optionsFor(target.port))
      const { kind } = await opening.then(() => ({ kind: 'open' }), (error: UpstreamError) => error)
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
    }
  }
  // AuthenticationOk at the beginning; after the proof it is in order, and then nothing follows.
  assert.equal([...kinds].sort(), [['timeout', 1], ['untrusted', 1], ['violation', 766]])
})

test('the secret is not asked for before a target has proved its name and asked for SCRAM', async () => {
  let asked = 0
  const secret = (): never => {
    asked++
    throw new Error('not yet')
  }
  for (const script of [greedy, answeringTls(Buffer.from('N'))]) {
    await using target = await startTarget(script, certificate)
    await openUpstream(optionsFor(target.port, { tls: trusted, secret })).catch(() => undefined)
  }
  assert.is(asked, 0)
  await using target = await startTarget(answering(messages.authenticationSasl(['SCRAM-SHA-256'])))
  const opening = openUpstream(optionsFor(target.port, { secret }))
  const thrown: unknown = await opening.catch((error: unknown) => error)
  assert.is((thrown as Error).message, 'not yet', 'what the secret throws passes through')
  assert.is(asked, 1)
})

test('a target whose offer of PLUS was taken away on the way is told so', async () => {
  let first = ''
  await using target = await startTarget(async peer => {
    await peer.startTls()
    await peer.packet()
    peer.send(messages.authenticationSasl(['SCRAM-SHA-256']))
    first = (await peer.message()).body.toString('latin1')
    peer.end()
  }, certificate)
  await openUpstream(optionsFor(target.port, tls)).catch(() => undefined)
  assert.match(first, /y,,n=,r=/)
})

test('there are at least sixty such targets', () => {
  assert.ok(cases.length >= 60, String(cases.length))
  assert.is(new Set(cases.map(({ name }) => name)).size, cases.length)
})

test.run()
