// The connection of a session to its target, from login to the hand-over: a relay gets every byte exactly
// once, with and without TLS, with its own read buffer or Node's, and can hold the target back.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { UpstreamError } from '../src/wire/error.ts'
import { frame, noticeResponse, query, type Report } from '../src/wire/postgres/messages.ts'
import {
  openUpstream, sendCancel, type Upstream, type UpstreamOptions
} from '../src/wire/postgres/upstream.ts'
import { makeVerifier } from '../src/wire/postgres/verifier.ts'
import { assertNoStall, canary, left, optionsFor, quick, verifier } from './peers/hostile.ts'
import { cancelKey, cancelPid, certificateFor, startTarget, type Peer } from './peers/postgres-target.ts'

const certificate = certificateFor()

async function failure(work: Promise<unknown>): Promise<UpstreamError> {
  const thrown: unknown = await work.then(() => undefined, (error: unknown) => error)
  assert.instance(thrown, UpstreamError)
  return thrown as UpstreamError
}

/** Takes over as a relay does; resolves with what came once it is `count` bytes. */
function collecting(upstream: Upstream): (count: number) => Promise<Buffer> {
  const parts = [upstream.leftover]
  let wake = (): void => undefined
  upstream.takeOver((chunk, bytes) => {
    parts.push(Buffer.from(chunk.subarray(0, bytes)))
    // What a shared buffer is: the next read writes over it.
    if (chunk.length > bytes) chunk.fill(0)
    wake()
    return true
  })
  return async count => {
    for (;;) {
      const all = Buffer.concat(parts)
      if (all.length >= count) return all
      await new Promise<void>(resolve => { wake = resolve })
    }
  }
}

const ways: readonly (readonly [string, Partial<UpstreamOptions>])[] = [
  ['in clear', {}],
  ['in clear with a shared read buffer', { readBuffer: () => shared }],
  ['over TLS', { tls: { mode: 'verify-full', ca: certificate.certificate } }],
  ['over TLS, where a read buffer is of no use', {
    tls: { mode: 'verify-full', ca: certificate.certificate }, readBuffer: () => shared
  }]
]
const shared = Buffer.allocUnsafeSlow(65_536)

async function honest(peer: Peer, options: Partial<UpstreamOptions>): Promise<void> {
  if (options.tls !== undefined && options.tls.mode !== 'disable') await peer.startTls()
  await peer.login(verifier)
}

for (const [name, options] of ways) {
  test(`the login ${name} tells what the target reported`, async () => {
    await using target = await startTarget(peer => honest(peer, options), certificate)
    const upstream = await openUpstream(optionsFor(target.port, options))
    assert.equal([...upstream.parameters], [['server_version', '15.0'], ['client_encoding', 'UTF8']])
    assert.equal([upstream.pid, upstream.transactionStatus, upstream.leftover.length], [cancelPid, 'I', 0])
    assert.equal(upstream.cancelKey, cancelKey)
    upstream.close()
    await left(target)
  })

  test(`no byte is lost or doubled when a relay takes over ${name}`, async () => {
    const burst = Buffer.alloc(300_000)
    for (let at = 0; at < burst.length; at++) burst[at] = at % 251
    await using target = await startTarget(async peer => {
      await honest(peer, options)
      // In one go with ReadyForQuery, so that some of it is read by the login.
      peer.send(burst.subarray(0, 1000))
      await new Promise(resolve => setTimeout(resolve, 20))
      peer.send(burst.subarray(1000))
      const { tag } = await peer.message()
      peer.send(Buffer.from(tag))
      await peer.mute()
    }, certificate)
    const upstream = await openUpstream(optionsFor(target.port, options))
    await new Promise(resolve => setTimeout(resolve, 60))
    const received = collecting(upstream)
    assert.ok((await received(burst.length)).equals(burst))
    upstream.socket.write(query('select 1'))
    assert.is((await received(burst.length + 1)).subarray(burst.length).toString(), 'Q')
    upstream.close()
    await left(target)
  })

  test(`a relay that stops ${name} holds the target back, and goes on later`, async () => {
    const chunk = Buffer.alloc(65_536, 'x')
    const total = chunk.length * 400
    await using target = await startTarget(async peer => {
      await honest(peer, options)
      for (let sent = 0; sent < total; sent += chunk.length) {
        peer.send(chunk)
        if (!peer.socket.writableNeedDrain) continue
        await new Promise<void>(resolve => peer.socket.once('drain', resolve))
      }
      await peer.mute()
    }, certificate)
    const upstream = await openUpstream(optionsFor(target.port, options))
    let received = upstream.leftover.length
    let holding = true
    let finished = (): void => undefined
    const done = new Promise<void>(resolve => { finished = resolve })
    upstream.takeOver((_, bytes) => {
      received += bytes
      if (received >= total) finished()
      return !holding
    })
    await new Promise(resolve => setTimeout(resolve, 200))
    assert.ok(received < 1_000_000, `${received} bytes came though the relay had stopped`)
    holding = false
    upstream.socket.resume()
    await done
    assert.is(received, total)
    upstream.close()
    await left(target)
  })
}

test('a password logs in as well as keys, with 100,000 iterations and without a stall', async () => {
  const stored = await makeVerifier(canary, { iterations: 100_000 })
  await using target = await startTarget(peer => peer.login(stored))
  const secret = (): { kind: 'password', password: string } => ({ kind: 'password', password: canary })
  const upstream = await assertNoStall(() => openUpstream(optionsFor(target.port, { secret })))
  upstream.close()
  assert.not.ok(Buffer.concat(target.received).includes(canary))
})

test('the startup packet names user and database, then the settings', async () => {
  let packet = ''
  await using target = await startTarget(async peer => {
    packet = (await peer.packet()).toString('latin1')
    await peer.scram(verifier)
    peer.send(peer.settled())
  })
  const parameters = new Map([['application_name', 'psql'], ['replication', 'database']])
  const upstream = await openUpstream(optionsFor(target.port, { parameters }))
  upstream.close()
  const expected = 'user\0jit_1\0database\0orders\0application_name\0psql\0replication\0database\0\0'
  assert.is(packet, `\0\u0003\0\0${expected}`)
})

test('notices of the login are passed on', async () => {
  const texts = { message: 'soon', detail: undefined, hint: undefined }
  const notice: Report = { severity: 'WARNING', sqlstate: '01000', ...texts }
  await using target = await startTarget(async peer => {
    await peer.packet()
    peer.send(noticeResponse(notice))
    await peer.scram(verifier)
    peer.send(noticeResponse(notice), peer.settled())
  })
  const notices: Report[] = []
  const onNotice = (report: Report): void => void notices.push(report)
  const upstream = await openUpstream(optionsFor(target.port, { onNotice }))
  upstream.close()
  assert.equal(notices, [notice, notice])
})

test('a target without a proof is taken only where trust is allowed', async () => {
  await using target = await startTarget(async peer => {
    await peer.packet()
    peer.send(peer.settled())
    await peer.mute()
  })
  assert.is((await failure(openUpstream(optionsFor(target.port)))).kind, 'untrusted')
  const upstream = await openUpstream(optionsFor(target.port, { allowTrust: true }))
  upstream.close()
  await left(target)
})

test('trust does not replace a proof that was begun', async () => {
  await using target = await startTarget(async peer => {
    await peer.packet()
    peer.send(frame('R', Buffer.from('0000000a534352414d2d5348412d3235360000', 'hex')))
    await peer.message()
    peer.send(peer.settled())
    await peer.mute()
  })
  assert.is((await failure(openUpstream(optionsFor(target.port, { allowTrust: true })))).kind, 'untrusted')
})

test('TLS modes trust what libpq trusts', async () => {
  const elsewhere = certificateFor(['db.example'])
  await using target = await startTarget(async peer => {
    await peer.startTls()
    await peer.login(verifier)
  }, elsewhere)
  const ca = elsewhere.certificate
  const open = async (tls: UpstreamOptions['tls']): Promise<string> => {
    const opening = openUpstream(optionsFor(target.port, { tls }))
    return opening.then(upstream => { upstream.close(); return 'open' }, (error: UpstreamError) => error.kind)
  }
  assert.is(await open({ mode: 'require' }), 'open')
  assert.is(await open({ mode: 'require', ca }), 'open')
  assert.is(await open({ mode: 'verify-ca', ca }), 'open')
  assert.is(await open({ mode: 'verify-full', ca, serverName: 'db.example' }), 'open')
  assert.is(await open({ mode: 'verify-full', ca }), 'untrusted')
  assert.is(await open({ mode: 'verify-full', ca, serverName: 'other.example' }), 'untrusted')
  assert.is(await open({ mode: 'verify-ca', ca: certificate.certificate }), 'untrusted')
})

test('nobody there is unreachable', async () => {
  const target = await startTarget(() => undefined)
  await target.close()
  const { kind, message } = await failure(openUpstream(optionsFor(target.port)))
  assert.equal([kind, message], ['unreachable', 'ECONNREFUSED'])
  const nowhere = optionsFor(1, { host: 'no-such-host.invalid' })
  assert.is((await failure(openUpstream(nowhere))).kind, 'unreachable')
})

test('an abort ends the opening in every step, with its reason as the cause', async () => {
  const reason = new Error('the client left')
  await using target = await startTarget(peer => peer.mute())
  for (const tls of [{ mode: 'disable' as const }, { mode: 'require' as const }]) {
    const control = new AbortController()
    const opening = failure(openUpstream(optionsFor(target.port, { tls, signal: control.signal })))
    await new Promise(resolve => setTimeout(resolve, 30))
    control.abort(reason)
    const error = await opening
    assert.equal([error.kind, error.cause], ['aborted', reason])
  }
  const early = optionsFor(target.port, { signal: AbortSignal.abort(reason) })
  assert.is((await failure(openUpstream(early))).kind, 'aborted')
  await left(target)
})

test('a target that closed before the relay took over is told by its socket', async () => {
  await using target = await startTarget(async peer => {
    await peer.login(verifier)
    peer.end()
  })
  const upstream = await openUpstream(optionsFor(target.port))
  const ended = new Promise(resolve => upstream.socket.once('end', resolve))
  upstream.takeOver(() => true)
  await ended
  await left(target)
  assert.is(upstream.leftover.length, 0)
})

for (const mode of ['disable', 'require'] as const) {
  test(`a cancel request carries pid and key (${mode})`, async () => {
    let packet = ''
    await using target = await startTarget(async peer => {
      if (mode === 'require') await peer.startTls()
      packet = (await peer.packet()).toString('hex')
      peer.end()
    }, certificate)
    const { port } = target
    const request = { host: '127.0.0.1', port, tls: { mode }, timeoutMs: 1000 }
    assert.is(await sendCancel({ ...request, pid: cancelPid, key: cancelKey }), true)
    assert.is(packet, '04d2162e' + '00001267' + 'c0ffee11')
  })
}

test('a cancel request that nobody takes is false, and no error', async () => {
  await using target = await startTarget(peer => peer.mute())
  const request = {
    host: '127.0.0.1', port: target.port, tls: { mode: 'disable' as const },
    pid: 1, key: cancelKey, timeoutMs: 100
  }
  assert.is(await sendCancel(request), false)
  assert.is(await sendCancel({ ...request, tls: { mode: 'require' } }), false)
  await left(target)
  await target.close()
  assert.is(await sendCancel(request), false)
})

test('limits that a timer cannot hold do not fire at once', async () => {
  await using target = await startTarget(peer => peer.login(verifier))
  const month = 30 * 86_400_000
  const timeouts = { ...quick, connectMs: month, loginMs: month }
  const upstream = await openUpstream(optionsFor(target.port, { timeouts }))
  upstream.close()
  assert.is(upstream.pid, cancelPid)
})

test.run()
