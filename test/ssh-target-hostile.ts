// deadline: 240 s
// SSH targets that lie: at the first byte, in the key exchange, in our login, in the session. Each ends in a
// coded refusal within its limit, no credential goes to a host that is not the one that was pinned, and the
// client sees nothing of what the target must not say (R7, R20, R21). A witness answers all the time.
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  channelData, channelOpen, channelRequest, channelSignal, channelStderr, globalRequest, openConfirmation,
  sshMessage, windowAdjust
} from '../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import type { SshField } from '../src/wire/ssh/data.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { Secret } from '../src/secret.ts'
import type { Injectable } from '../src/jit/plugin.ts'
import { codeIn, ecdsaKey, loginClient, loginWords, passwordRequest } from './peers/ssh-login.ts'
import { everyChannel, personPassword } from './peers/ssh-pass-through.ts'
import type { SshPassThroughOptions } from './peers/ssh-pass-through.ts'
import type { SshPeer } from './peers/ssh-peer.ts'
import type { TargetOptions, TargetScript } from './peers/ssh-target.ts'
import { inSession, soon, sshWorld, witness } from './peers/ssh-world.ts'

const quick = { connectMs: 400, handshakeMs: 400, loginMs: 400 }
const quiet = await sshWorld()
const bystander = await witness(quiet.front)
const defects: string[] = []
process.on('uncaughtException', error => defects.push(String(error.stack)))

const escape = '\x1b]0;owned\x07\x1b[2J\u009b31m\u202e'
const secret: Injectable = { kind: 'password', password: new Secret('canary-5d1f0c') }

interface LoginCase {
  /** Reads on from "a target that …". */
  name: string
  code: string
  script?: TargetScript
  played?: TargetOptions
  options?: Partial<SshPassThroughOptions>
  /** The password went there: the target had proved itself. */
  told?: boolean
}

const message = (type: number, ...fields: readonly SshField[]): Buffer =>
  Buffer.concat([Buffer.of(type), sshFields(...fields)])

async function grant(peer: SshPeer): Promise<void> {
  await peer.until(loginWords.serviceRequest)
  peer.send(message(loginWords.serviceAccept, 'ssh-userauth'))
  await peer.until(loginWords.request)
}

function raw(act: (socket: Socket) => void): TargetOptions {
  return { raw: act }
}

/** Sends until the other side has enough. */
async function flood(peer: SshPeer, payload: Buffer): Promise<void> {
  while (!peer.closed) {
    for (let count = 0; count < 100; count++) peer.send(payload)
    await new Promise(resolve => setImmediate(resolve))
  }
}

const question = (...prompts: string[]): Buffer => Buffer.concat([
  message(60, '', '', ''), sshUint32(prompts.length), ...prompts.map(prompt => sshFields(prompt, false))
])
const failed = (methods: string, partial = false): Buffer => message(loginWords.failure, methods, partial)
const otherKey = generateSshKey()
const pinned = (...hostKeys: string[]): Partial<SshPassThroughOptions> =>
  ({ target: { host: '127.0.0.1', port: 0, hostKeys } })

const named = Buffer.from('SSH-2.0-x\r\n')

const logins: readonly LoginCase[] = [
  { name: 'never says a word', code: 'target-unreachable', played: raw(() => undefined) },
  { name: 'closes at once', code: 'target-unreachable', played: raw(socket => socket.destroy()) },
  { name: 'resets at once', code: 'target-unreachable', played: raw(socket => socket.resetAndDestroy()) },
  // Lines before the name are a greeting, of whatever they speak.
  { name: 'speaks HTTP', code: 'target-unreachable',
    played: raw(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')) },
  { name: 'speaks SSH-1.5', code: 'target-violation', played: raw(socket => socket.write('SSH-1.5-x\r\n')) },
  { name: 'greets without an end', code: 'target-violation', played: raw(socket => {
    const timer = setInterval(() => socket.write('hello\r\n'.repeat(1000)), 5)
    socket.on('close', () => clearInterval(timer))
  }) },
  { name: 'says a line without an end', code: 'target-violation',
    played: raw(socket => socket.write(Buffer.alloc(70_000, 0x61))) },
  { name: 'says its name and no more', code: 'target-unreachable',
    played: raw(socket => socket.write('SSH-2.0-x\r\n')) },
  { name: 'says a packet of 4 GiB', code: 'target-violation',
    played: raw(socket => socket.write(Buffer.concat([named, sshUint32(0xffffffff)]))) },
  { name: 'says garbage behind its name', code: 'target-violation',
    played: raw(socket => socket.write(Buffer.concat([named, Buffer.alloc(5000, 7)]))) },
  { name: 'shows another host key', code: 'target-untrusted', options: pinned(otherKey.publicKey) },
  { name: 'has no host key of the kind that is pinned', code: 'target-untrusted',
    options: pinned(ecdsaKey().line) },
  { name: 'has no host key that is pinned at all', code: 'target-untrusted', options: pinned() },
  { name: 'offers no common algorithm', code: 'target-violation',
    played: { offer: { kex: ['diffie-hellman-group1-sha1'] } } },
  { name: 'exchanges keys and says no more', code: 'target-unreachable', script: () => undefined },
  { name: 'grants the service and says no more', code: 'target-unreachable', told: true, script: grant },
  { name: 'grants another service', code: 'target-violation', script: async peer => {
    await peer.until(loginWords.serviceRequest)
    peer.send(Buffer.of(80))
  } },
  { name: 'says success before it was asked', code: 'target-violation',
    script: peer => void peer.send(Buffer.of(loginWords.success)) },
  { name: 'refuses the password', code: 'target-refused', told: true,
    script: peer => grant(peer).then(() => peer.send(failed('publickey'))) },
  { name: 'wants something beside the password', code: 'target-refused', told: true,
    script: peer => grant(peer).then(() => peer.send(failed('keyboard-interactive', true))) },
  { name: 'asks twice', code: 'target-refused', told: true, script: async peer => {
    await grant(peer)
    await peer.send(failed('keyboard-interactive')).until(loginWords.request)
    await peer.send(question('Password: ')).until(loginWords.answer)
    await peer.send(question('New password: ')).until(loginWords.answer)
  } },
  { name: 'asks for two answers', code: 'target-refused', told: true, script: async peer => {
    await grant(peer)
    await peer.send(failed('keyboard-interactive')).until(loginWords.request)
    peer.send(question('Password: ', 'Code: '))
  } },
  { name: 'asks 2^32 - 1 questions', code: 'target-refused', told: true, script: async peer => {
    await grant(peer)
    await peer.send(failed('keyboard-interactive')).until(loginWords.request)
    peer.send(Buffer.concat([message(60, '', '', ''), sshUint32(0xffffffff)]))
  } },
  { name: 'asks for nothing, for ever', code: 'target-unreachable', told: true, script: async peer => {
    await grant(peer)
    await peer.send(failed('keyboard-interactive')).until(loginWords.request)
    while (!peer.closed) {
      await new Promise(resolve => setTimeout(resolve, 20))
      peer.send(question())
    }
  } },
  { name: 'says a question that is cut', code: 'target-violation', told: true, script: async peer => {
    await grant(peer)
    await peer.send(failed('keyboard-interactive')).until(loginWords.request)
    peer.send(question('Password: ').subarray(0, 9))
  } },
  { name: 'says banners without an end', code: 'target-violation', told: true,
    script: peer => grant(peer).then(() => flood(peer, message(loginWords.banner, escape, ''))) },
  { name: 'says banners now and then', code: 'target-unreachable', told: true, script: async peer => {
    await grant(peer)
    while (!peer.closed) {
      await new Promise(resolve => setTimeout(resolve, 50))
      peer.send(message(loginWords.banner, escape, ''))
    }
  } },
  { name: 'says extensions without an end', code: 'target-violation',
    script: peer => flood(peer, Buffer.concat([Buffer.of(7), sshUint32(0)])) },
  { name: 'opens a channel during the login', code: 'target-violation', told: true,
    script: peer => grant(peer).then(() => peer.send(channelOpen('session', 1, 1, 1))) },
  { name: 'asks for a login itself', code: 'target-violation',
    script: peer => void peer.send(passwordRequest('root', 'x')) },
  { name: 'says a message that nobody knows', code: 'target-violation',
    script: peer => void peer.send(Buffer.of(255)) },
  { name: 'says NEWKEYS once more', code: 'target-violation', script: peer => void peer.send(Buffer.of(21)) },
  { name: 'leaves with escape sequences', code: 'target-unreachable', told: true,
    script: peer => grant(peer).then(() => peer.send(message(1, 2, escape, ''))) },
  { name: 'leaves with 30,000 bytes', code: 'target-unreachable', told: true,
    script: peer => grant(peer).then(() => peer.send(message(1, 2, 'x'.repeat(30_000), ''))) },
  { name: 'lets us in and floods', code: 'target-violation', told: true, script: async peer => {
    await grant(peer)
    peer.send(Buffer.of(loginWords.success))
    await flood(peer, channelData(7, Buffer.alloc(30_000)))
  } },
  { name: 'closes in the middle of the login', code: 'target-unreachable', told: true,
    script: peer => grant(peer).then(() => peer.socket.destroy()) }
]

for (const { name, code, script, played = {}, options = {}, told = false } of logins) {
  test(`a target that ${name}: ${code}`, async () => {
    let heard = ''
    const keep = (payload: Buffer): void => { heard += payload.toString('latin1') }
    await using house = await sshWorld({
      secret, ...options, listen: { limits: quick },
      ...options.target === undefined ? {} : { target: options.target }
    }, script, { ...played, heard: keep })
    const { front, target } = house
    if (options.target !== undefined) options.target.port = target.port
    const client = await loginClient(front.port)
    const started = performance.now()
    client.peer.send(passwordRequest('alice', personPassword))
    await soon(() => client.peer.closed, 'the refusal', 4000)
    assert.ok(performance.now() - started < 3000)
    // A login that goes through has its end in the session.
    assert.is(codeIn(client.peer.farewell?.text), code, client.peer.farewell?.text)
    assert.is(front.endings[0]?.reason, code)
    assert.not.ok(client.peer.inbox.some(payload => /owned|31m/.test(payload.toString('latin1'))), 'shown')
    const sent = target.heard.some(payload => payload.includes('canary-5d1f0c'))
    assert.is(sent, told, 'the password')
    await soon(() => target.sockets.every(socket => socket.destroyed || socket.readableEnded), 'closed there')
    assert.ok((front.endings[0]?.detail?.length ?? 0) < 500, 'a short detail')
    await bystander.answers()
  })
}

interface SessionCase {
  name: string
  /** Said when the client's session is open. Its channel: 0 there, 100 here. */
  says: readonly Buffer[]
  /** The session ends; undefined: it goes on, and the client saw nothing. */
  code?: string
  /** The client sees nothing of these numbers. */
  hidden?: readonly number[]
}

const forwarded = ['localhost', 80, 'elsewhere', 1] as const
const sessions: readonly SessionCase[] = [
  { name: 'opens an agent channel unasked',
    says: [channelOpen('auth-agent@openssh.com', 1, 9, 9)], hidden: [90] },
  { name: 'opens an X11 channel unasked', says: [channelOpen('x11', 1, 9, 9, 'localhost', 1)], hidden: [90] },
  { name: 'opens a forwarded connection unasked',
    says: [channelOpen('forwarded-tcpip', 1, 9, 9, ...forwarded)], hidden: [90] },
  { name: 'opens a forwarded socket unasked',
    says: [channelOpen('forwarded-streamlocal@openssh.com', 1, 9, 9, '/x', '')], hidden: [90] },
  { name: 'opens a session to the client', says: [channelOpen('session', 1, 9, 9)], hidden: [90] },
  { name: 'opens a connection from the client',
    says: [channelOpen('direct-tcpip', 1, 9, 9, ...forwarded)], hidden: [90] },
  { name: 'opens what nobody knows', says: [channelOpen('no-such', 1, 9, 9)], hidden: [90] },
  { name: 'opens a property of objects', says: [channelOpen('__proto__', 1, 9, 9),
    channelOpen('constructor', 2, 9, 9)], hidden: [90] },
  { name: 'says its host keys', says: [globalRequest('hostkeys-00@openssh.com', false, 'x')], hidden: [80] },
  { name: 'replies to nothing', says: [Buffer.of(81), Buffer.of(82)], hidden: [81, 82] },
  { name: 'replies to no request of a channel',
    says: [channelSignal(99, 0), channelSignal(100, 0)], hidden: [99, 100] },
  { name: 'lets windows grow of channels that are gone', says: [windowAdjust(77, 5)], hidden: [93] },
  { name: 'says what is noise', says: [Buffer.of(2), Buffer.of(3), Buffer.of(4)], hidden: [2, 3, 4] },
  { name: 'says data for a channel that is not there',
    says: [channelData(77, Buffer.from('x'))], code: 'target-violation' },
  { name: 'says stderr for a channel that is not there',
    says: [channelStderr(77, Buffer.from('x'))], code: 'target-violation' },
  { name: 'says data on a channel that it closed', says: [channelSignal(sshMessage.close, 0),
    channelData(0, Buffer.from('x'))], code: 'target-violation' },
  { name: 'confirms a channel twice', says: [openConfirmation(0, 100, 1, 1)], code: 'target-violation' },
  { name: 'confirms a channel that nobody opened',
    says: [openConfirmation(9, 9, 1, 1)], code: 'target-violation' },
  { name: 'asks on a channel that is not there',
    says: [channelRequest(77, 'exit-status', false, 0)], code: 'target-violation' },
  { name: 'says an exit status that is cut',
    says: [channelRequest(0, 'exit-status', false)], code: 'target-violation' },
  { name: 'says an exit status that is too long',
    says: [channelRequest(0, 'exit-status', false, 0, 1)], code: 'target-violation' },
  { name: 'says an exit signal of garbage',
    says: [channelRequest(0, 'exit-signal', false, 'x'.repeat(300), true, '', '')],
    code: 'target-violation' },
  { name: 'says data whose length is a lie', says: [Buffer.concat([
    Buffer.of(94), sshUint32(0), sshUint32(0xffffffff), Buffer.from('x')])], code: 'target-violation' },
  { name: 'says extended data of a kind that nobody knows',
    says: [message(95, 0, 7, 'x')], code: 'target-violation' },
  { name: 'says messages of a login', says: [Buffer.of(loginWords.success)], code: 'target-violation' },
  { name: 'says banners', says: [message(loginWords.banner, escape, '')], code: 'target-violation' },
  { name: 'says extensions', says: [Buffer.concat([Buffer.of(7), sshUint32(0)])], code: 'target-violation' },
  { name: 'says a number that does not exist', says: [Buffer.of(101)], code: 'target-violation' },
  { name: 'says another number that does not exist', says: [Buffer.of(255)], code: 'target-violation' },
  { name: 'lets a window grow past 2^32', says: [windowAdjust(0, 0xffffffff), windowAdjust(0, 0xffffffff)],
    code: 'target-violation' },
  { name: 'says more than the window takes',
    says: Array.from({ length: 90 }, () => channelData(0, Buffer.alloc(30_000))), code: 'target-violation' },
  { name: 'leaves with escape sequences', says: [message(1, 2, escape, '')], code: 'target-closed' }
]

for (const { name, says, code, hidden = [] } of sessions) {
  test(`in a session, a target that ${name}: ${code ?? 'nobody hears of it'}`, async () => {
    await using house = await sshWorld({ channels: everyChannel })
    const { front, target } = house
    const client = await inSession(front)
    const there = target.peers[0]!
    there.send(...says)
    if (code === undefined) {
      there.send(channelData(0, Buffer.from('behind')))
      const first = await client.next()
      assert.is(first?.subarray(9).toString(), 'behind', `the client heard ${first?.toString('hex')}`)
      assert.not.ok(client.inbox.some(payload => hidden.includes(payload[0]!)))
    } else {
      await soon(() => client.closed, 'the end', 2000)
      assert.is(front.endings[0]?.reason, code)
      assert.is(codeIn(client.farewell?.text), code)
      assert.not.match(client.farewell!.text, /owned|\x1b/)
      await soon(() => there.closed, 'closed there')
    }
    client.socket.destroy()
    await bystander.answers()
  })
}

test('channels that the client asked for are opened', async () => {
  await using house = await sshWorld({ channels: everyChannel })
  const client = await inSession(house.front)
  const there = house.target.peers[0]!
  client.send(channelRequest(100, 'auth-agent-req@openssh.com', true))
  assert.is((await client.next())?.[0], sshMessage.channelSuccess)
  there.send(channelOpen('auth-agent@openssh.com', 7, 1000, 1000))
  assert.is((await client.next())?.[0], sshMessage.channelOpen)
  there.send(channelOpen('x11', 8, 1000, 1000, 'localhost', 1))
  client.send(globalRequest('tcpip-forward', true, 'localhost', 80))
  assert.is((await client.next())?.[0], sshMessage.requestFailure)
  there.send(channelOpen('forwarded-tcpip', 9, 1000, 1000, ...forwarded))
  const opened = await client.next()
  assert.ok(opened?.includes('forwarded-tcpip'), 'and X11 is not')
  client.socket.destroy()
})

test('host keys of the target are not ours, also when it wants an answer', async () => {
  await using house = await sshWorld()
  const client = await inSession(house.front)
  house.target.peers[0]!.send(globalRequest('hostkeys-00@openssh.com', true, 'x'))
  const asked = await client.next()
  assert.is(asked?.[0], sshMessage.globalRequest)
  assert.not.ok(asked?.includes('hostkeys'))
  client.socket.destroy()
})

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

test('a target that asks without an end and never reads is not read either', async () => {
  await using house = await sshWorld()
  const client = await inSession(house.front)
  const there = house.target.peers[0]!
  there.socket.pause()
  collect()
  const { heapUsed: heapBefore, external: externalBefore } = process.memoryUsage()
  const before = heapBefore + externalBefore
  let said = 0
  const until = performance.now() + 3000
  while (performance.now() < until && !there.closed && there.socket.writableLength < 32 * 2 ** 20) {
    for (let count = 0; count < 500; count++, said++) {
      there.send(channelOpen('x11', said, 9, 9, 'localhost', 1))
    }
    await new Promise(resolve => setImmediate(resolve))
  }
  // What we hold is bounded; what is not read waits at the target, which plays in this process as well. What
  // was thrown away is no matter: a fast machine gets further within the time.
  collect()
  const { heapUsed, external } = process.memoryUsage()
  const grown = heapUsed + external - before - there.socket.writableLength
  assert.ok(house.front.refused.length <= 100, 'the audit hears of the first hundred')
  process.stdout.write(`${said} openings, ${Math.round(grown / 2 ** 20)} MiB held\n`)
  assert.ok(grown < 96 * 2 ** 20, `${said} openings: ${Math.round(grown / 2 ** 20)} MiB`)
  await bystander.answers()
  client.socket.destroy()
})

test('no script of all this broke anything', () => {
  assert.ok(logins.length + sessions.length >= 60)
  assert.equal(defects, [])
  assert.ok(bystander.slowestMs < 1000, `${bystander.slowestMs} ms`)
})

test.after(async () => {
  bystander.leave()
  await quiet[Symbol.asyncDispose]()
})

test.run()
