// Commands that wait for others, message by message: what ends a wait (a channel that is closed, Ctrl-C at
// its terminal, a signal) and what does not (the end of the input), and what others are asked then: one
// thing once, a few at a time, and nothing any more when nobody waits for it. And where relative paths of
// files that are judged begin.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { askHome } from '../src/proxy/ssh/home.ts'
import type { Home } from '../src/proxy/ssh/home.ts'
import { Judged } from '../src/proxy/ssh/judged.ts'
import type { ApprovalPort, RequestState, RuleWish } from '../src/session/approve.ts'
import { Asks, asksMax } from '../src/session/asks.ts'
import type { Judge, Verdict, Waiter } from '../src/session/judge.ts'
import { WireError } from '../src/wire/error.ts'
import {
  channelData, channelRequest, channelSignal, globalRequest, openConfirmation, openFailure, sshMessage
} from '../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { parseChannelRequest } from '../src/wire/ssh/request.ts'
import { TapeWorld } from './peers/ssh-tape.ts'
import { turns } from './peers/relay-world.ts'

const passes: Verdict = { passes: true, ends: false, error: undefined, note: undefined }
const refused: Verdict = {
  ...passes, passes: false, error: new SallyportError('rule-refused'), note: { verdict: 'refused' }
}

/** Two channels of one session whose commands all wait. */
function waitingWorld(pty = false) {
  const tape = new TapeWorld()
  const again: Buffer[] = []
  const answers: ((verdict: Verdict) => void)[] = []
  const judge: Judge = {
    statement: undefined, typed: undefined, file: undefined, close: () => undefined,
    command: (_command, { left }) => new Promise(resolve => {
      answers.push(resolve)
      left.addEventListener('abort', () => resolve(refused))
    })
  }
  const judged = new Judged(judge, tape.recording)
  judged.attach({
    channels: tape.tape.channels, tell: () => undefined, end: () => undefined,
    again: payload => void again.push(payload)
  })
  for (const number of [0, 1]) {
    tape.open(number)
    if (pty) tape.request('pty-req', ['xterm', 80, 24, 0, 0, ''], true, number)
  }
  const ask = (number: number): unknown => {
    const payload = channelRequest(number + 100, 'exec', true, `make ${number}`)
    const channel = tape.tape.channels.get('client', number + 100)
    return judged.request(payload, channel, parseChannelRequest(payload).purpose)
  }
  const holds = (payload: Buffer): boolean => judged.holds(payload)
  return { tape, judged, again, answers, ask, holds }
}

const eof = channelSignal(sshMessage.eof, 100)
const close = channelSignal(sshMessage.close, 100)

test('a channel that is closed is free at once, and its command never was', async () => {
  const { tape, again, answers, ask, holds } = waitingWorld()
  assert.equal([ask(0), ask(1)], ['waits', 'waits'])
  assert.ok(holds(channelData(100, Buffer.alloc(1000))))
  assert.ok(holds(eof))
  await turns(2)
  assert.equal(tape.recording.events('verdict'), [], 'the end of its input is no end of the wait')
  assert.not.ok(holds(close), 'goes on to the target')
  await turns(2)
  assert.equal(again, [], 'neither the command nor what it was to be fed with')
  assert.is(tape.recording.events().filter(event => event['verdict'] === 'refused').length, 1)
  // The number may be used again, and the other channel waits on.
  assert.not.ok(holds(channelData(100, Buffer.alloc(1))))
  assert.ok(holds(channelData(101, Buffer.alloc(1))))
  answers[1]!(passes)
  await turns(2)
  assert.equal(again.map(([type]) => type), [sshMessage.channelRequest, sshMessage.data])
})

test('what waits behind commands has an end, however small its messages are', () => {
  const { ask, holds } = waitingWorld()
  ask(0)
  ask(1)
  const nothing = channelData(100, Buffer.alloc(0))
  assert.throws(() => { for (let at = 0; at < 5000; at++) holds(nothing) }, /too much waits/)
  assert.throws(() => { for (let at = 0; at < 200; at++) holds(channelData(101, Buffer.alloc(32_000))) })
})

test('a session that ends while its commands wait leaves them, and passes nothing on', async () => {
  const { judged, again, answers, ask } = waitingWorld()
  ask(0)
  ask(1)
  judged.stop()
  for (const answer of answers) answer(passes)
  await turns(2)
  assert.equal(again, [])
})

test('Ctrl-C at a terminal and a signal end the wait; its channel hears the refusal', async () => {
  const ways: [what: string, pty: boolean, payload: Buffer, ends: boolean][] = [
    ['Ctrl-C', true, channelData(100, Buffer.from('\x03')), true],
    ['the same byte of a stream', false, channelData(100, Buffer.from('\x03')), false],
    ['SIGINT', false, channelRequest(100, 'signal', false, 'INT'), true],
    ['a window', true, channelRequest(100, 'window-change', false, 80, 24, 0, 0), false]
  ]
  for (const [what, pty, payload, ends] of ways) {
    const { again, ask, holds } = waitingWorld(pty)
    ask(0)
    assert.ok(holds(payload), what)
    await turns(2)
    // The request alone: what was to interrupt it would interrupt what stands in its place.
    assert.equal(again.map(([type]) => type), ends ? [sshMessage.channelRequest] : [], what)
  }
})

interface Office extends ApprovalPort {
  left: string[]
  decide(request: string, state: RequestState): void
}

/** Requests in memory. */
function office(): Office {
  const open = new Map<string, PromiseWithResolvers<RequestState>>()
  const own: Office = {
    left: [], validOf: async () => [], ask: () => Promise.reject(new Error('not here')),
    askFor: async ({ grant }) => {
      if (!open.has(grant)) open.set(grant, Promise.withResolvers())
      return grant
    },
    leave: async request => {
      own.left.push(request)
      open.delete(request)
    },
    decided: (request, _waitMs, signal) => Promise.race([
      open.get(request)!.promise,
      new Promise<never>((_, reject) => { signal.addEventListener('abort', () => reject(new Error('left'))) })
    ]),
    decide(request, state) {
      open.get(request)?.resolve(state)
      if (state === 'pending') open.set(request, Promise.withResolvers())
    }
  }
  return own
}

const wish = (grant: string): RuleWish =>
  ({ user: 'alice', credential: 'c', grant, reason: 'r', validForSeconds: 60, origin: 'session s' })
const terms = { by: ['carol'], count: 1, validForSeconds: 60, waitForSeconds: 60 }

test('of those who wait for the same the last one takes the request back', async () => {
  const port = office()
  const asks = new Asks(port)
  const wait = (key: string) => {
    const leaving = new AbortController()
    const waiter: Waiter = { tell: () => undefined, left: leaving.signal }
    const done = asks.decided(wish(key), terms, waiter)
      .then(({ state }) => state, (thrown: Error) => thrown.message)
    return { done, leave: () => leaving.abort(new Error('left')) }
  }
  const [one, two] = [wait('make'), wait('make')]
  await turns(2)
  one.leave()
  assert.is(await one.done, 'left')
  assert.equal(port.left, [])
  two.leave()
  assert.is(await two.done, 'left')
  const again = wait('make')
  await turns(4)
  port.decide('make', 'approved')
  assert.equal([await again.done, port.left], ['approved', ['make']], 'what is asked for again is asked anew')
  const many = Array.from({ length: asksMax + 1 }, (_, at) => wait(`make ${at}`))
  assert.match(await many.at(-1)!.done, /16 things wait already/)
  const decided = wait('make 0')
  await turns(2)
  for (let at = 0; at < asksMax; at++) port.decide(`make ${at}`, 'denied')
  assert.is(await decided.done, 'denied', 'the same thing is no further one')
  for (const { done } of many.slice(0, asksMax)) assert.is(await done, 'denied')
  assert.equal(port.left, ['make'])
  // Not answered in time: it still counts while the session lives.
  for (const [key, ends] of [['late', 'pending'], ['later', 'pending'], ['later', 'approved']] as const) {
    const { done } = wait(key)
    await turns(2)
    port.decide(key, ends)
    assert.is(await done, ends)
  }
  asks.close()
  assert.equal(port.left, ['make', 'late'])
})

test('a request is taken back though the last who waits could not ask for it', async () => {
  const port = office()
  const { askFor } = port
  const asks = new Asks(port)
  const leaving = [new AbortController(), new AbortController()]
  const wait = (at: number): Promise<string> =>
    asks.decided(wish('make'), terms, { tell: () => undefined, left: leaving[at]!.signal })
      .then(({ state }) => state, (thrown: Error) => thrown.message)
  const first = wait(0)
  await turns(2)
  const away = Promise.withResolvers<string>()
  port.askFor = () => away.promise
  const second = wait(1)
  await turns(2)
  leaving[0]!.abort(new Error('left'))
  assert.is(await first, 'left')
  assert.equal(port.left, [])
  away.reject(new Error('the store is away'))
  assert.equal([await second, port.left], ['the store is away', ['make']])
  port.askFor = askFor
})

// ---- where relative paths begin

/** A target that answers what it is asked with these, in turn; `asked` is what it was sent. */
async function homeSaidBy(
  answers: readonly Buffer[]
): Promise<{ home: Home, asked: (number | undefined)[] }> {
  const [left, asked]: [Buffer[], (number | undefined)[]] = [[...answers], []]
  const home = await askHome({
    send: message => void asked.push(message[0]),
    next: async () => left.shift() ?? Promise.reject(new WireError('it says no more'))
  })
  return { home, asked }
}

const sftp = (type: number, ...rest: Buffer[]): Buffer => {
  const body = Buffer.concat([Buffer.of(type), ...rest])
  return Buffer.concat([sshUint32(body.length), body])
}
const version = sftp(2, sshUint32(3))
const names = (path: string | Buffer, count = 1): Buffer =>
  sftp(104, sshUint32(1), sshUint32(count), sshFields(path, 'long'), sshUint32(0))
const says = (...packets: Buffer[]): Buffer => channelData(0, Buffer.concat(packets))
const opened = openConfirmation(0, 7, 2 ** 20, 2 ** 15)
const success = channelSignal(sshMessage.channelSuccess, 0)
const closed = channelSignal(sshMessage.close, 0)
const eof0 = channelSignal(sshMessage.eof, 0)

test('the home is what the target\'s SFTP says, however it is cut; the rest is kept', async () => {
  const aside = globalRequest('hostkeys-00@openssh.com', false)
  const whole = Buffer.concat([version, names('/home/al')])
  for (let cut = 0; cut <= whole.length; cut += 3) {
    const pieces = [whole.subarray(0, cut), whole.subarray(cut)].map(piece => channelData(0, piece))
    const { home, asked } = await homeSaidBy([aside, opened, success, ...pieces, eof0, closed])
    assert.equal([home.path, home.others.length], ['/home/al', 1], `cut at ${cut}`)
    const { channelOpen, channelRequest: request, data, close: end } = sshMessage
    assert.equal(asked, [channelOpen, request, data, end])
  }
})

test('a target without SFTP, or one that answers nonsense, leaves the home unknown', async () => {
  const failed = channelSignal(sshMessage.channelFailure, 0)
  const cases: [what: string, answers: Buffer[]][] = [
    ['no channel', [openFailure(0, 1, 'no')]], ['no SFTP', [opened, failed, closed]],
    ['the end', [opened, success, eof0, closed]], ['closed', [opened, closed]],
    ['words of a shell', [opened, success, says(Buffer.from('Welcome!\n')), closed]],
    ['relative', [opened, says(version, names('home/al')), closed]],
    ['climbing', [opened, says(version, names('/home/../etc')), closed]],
    ['no text', [opened, says(version, names(Buffer.from([0x2f, 0xff]))), closed]],
    ['two names', [opened, says(version, names('/home/al', 2)), closed]],
    ['too long', [opened, says(version, names(`/${'x'.repeat(5000)}`)), closed]],
    ['an error', [opened, says(version, sftp(101, sshUint32(1), sshUint32(4))), closed]],
    ['a short packet', [opened, says(version, sftp(104)), closed]]
  ]
  for (const [what, answers] of cases) assert.is((await homeSaidBy(answers)).home.path, undefined, what)
  const enough = new AbortController()
  const sent: Buffer[] = []
  const mute = [opened, success]
  const { path } = await askHome({
    enough: enough.signal, send: message => void sent.push(message),
    next: async () => {
      if (mute.length === 0) enough.abort()
      return mute.shift() ?? closed
    }
  })
  assert.equal([path, sent.at(-1)![0]], [undefined, sshMessage.close], 'mute')
  const broken: [what: string, answers: Buffer[]][] = [
    ['more than the window', [opened, says(version.subarray(0, 3)), says(Buffer.alloc(33_000))]],
    ['opened twice', [opened, opened]], ['of nobody', [channelSignal(sshMessage.eof, 3)]],
    ['never closed', [opened, ...Array<Buffer>(200).fill(success)]]
  ]
  for (const [what, answers] of broken) {
    const thrown: unknown = await homeSaidBy(answers).catch((error: unknown) => error)
    assert.instance(thrown, WireError, what)
    assert.not.match((thrown as Error).message, /says no more/, what)
  }
})

test.run()
