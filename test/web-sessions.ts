// Sessions in pages of the console, and pages that are not ours: who gets a WebSocket and a session on it,
// what a hostile page or target can hold, and that a session ends with its line, on record first and told
// why. The pages in a real browser are in journeys/console-sessions.ts.
import { once } from 'node:events'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { messageBytesMax, pingMs } from '../src/proxy/web/page.ts'
import { pagesOfOneMax } from '../src/proxy/web/listen.ts'
import { windowBytes } from '../src/proxy/web/terminal.ts'
import { frameKind } from '../src/recording/recording.ts'
import {
  channelData, openConfirmation, parseChannelOpen, sshMessage, windowAdjust
} from '../src/wire/ssh/connection.ts'
import { parseChannelRequest } from '../src/wire/ssh/request.ts'
import { soon } from './peers/ssh-world.ts'
import { sessionId } from './peers/api-bench.ts'
import { logIn, respond } from './peers/ssh-target.ts'
import type { SshPeer } from './peers/ssh-peer.ts'
import { eventsOf } from './peers/relay-world.ts'
import { pageOf, refusalOf, webWorld } from './peers/web-world.ts'
import type { WebWorld } from './peers/web-world.ts'

let world: WebWorld
test.before(async () => { world = await webWorld() })
test.after(async () => { await world[Symbol.asyncDispose]() })

/** A target whose shell does what it is told, once; everything else is an honest one's. */
function shellThat(act: (peer: SshPeer, client: number) => void) {
  return async (peer: SshPeer): Promise<void> => {
    await logIn(peer)
    for (;;) {
      const payload = await peer.next()
      if (payload === undefined) return
      respond(peer, payload)
      const isShell = payload[0] === sshMessage.channelRequest
        && parseChannelRequest(payload).purpose.kind === 'shell'
      if (isShell) act(peer, 0)
    }
  }
}

test('a WebSocket is only for pages of ours with the cookie of somebody who is logged in', async () => {
  const cookie = world.cookie('alice')
  const from = async (origin: string): Promise<number | undefined> =>
    refusalOf(world.dial(cookie, { origin }))
  assert.is(await from('https://evil.test'), 403)
  assert.is(await from('null'), 403)
  assert.is(await from('http://127.0.0.1'), 403)
  assert.is(await refusalOf(world.dial(undefined)), 401)
  assert.is(await refusalOf(world.dial('__Host-sallyport=sally_nobody')), 401)
  const elsewhere = world.dial(cookie).url.replace('/socket', '/else')
  const { WebSocket } = await import('ws')
  assert.is(await refusalOf(new WebSocket(elsewhere, { rejectUnauthorized: false })), 404)
  assert.is(world.target.sockets.length, 0)
})

test('a ticket counts once, for the person and the login that asked for it, and for moments', async () => {
  const [hers, his, again] = [world.cookie('alice'), world.cookie('bob'), world.cookie('alice')]
  const first = { type: 'open', protocol: 'ssh', login: 'alice+deploy@web01', columns: 80, rows: 24 }
  const closeOf = async (cookie: string, ticket: string, login = first.login): Promise<number> => {
    const page = pageOf(world.dial(cookie))
    await once(page.socket, 'open')
    page.say({ ...first, login, ticket })
    const answer = await Promise.race([page.closed(), page.heard('open').then(() => [1] as const)])
    page.socket.terminate()
    return answer[0]
  }
  const good = await world.ticket(hers)
  assert.is(await closeOf(hers, good), 1)
  assert.is(await closeOf(hers, good), 4401, 'used')
  assert.is(await closeOf(his, await world.ticket(hers)), 4401, 'of somebody else')
  assert.is(await closeOf(his, await world.ticket(his)), 4401, 'for somebody else')
  assert.is(await closeOf(hers, await world.ticket(again)), 4401, 'of another login')
  assert.is(await closeOf(hers, 'ticket_guessed'), 4401)
  const old = await world.ticket(hers)
  assert.is(await closeOf(await world.replaced(hers), old), 1, 'the same login under another cookie')
  const late = await world.ticket(again)
  world.clock.advance(31_000)
  assert.is(await closeOf(again, late), 4401, 'too late')
  assert.ok(world.audited.includes('login.refused bob a ticket of somebody else'), world.audited.join('\n'))
  await soon(() => world.registry.list().length === 0, 'no session is left')
})

test('the first words open a session, soon, or nothing does', async () => {
  const cookie = world.cookie('alice')
  const closeAfter = async (send: (page: ReturnType<typeof pageOf>) => void) => {
    const page = pageOf(world.dial(cookie))
    await once(page.socket, 'open')
    send(page)
    return (await page.closed())[0]
  }
  const whole = { type: 'open', protocol: 'ssh', login: 'alice+deploy', ticket: 't', columns: 80, rows: 24 }
  for (const broken of [
    { ...whole, type: 'run' }, { ...whole, protocol: 'tcp' }, { ...whole, login: 1 }, { ...whole, rows: 0 },
    { ...whole, columns: 1e9 }, { ...whole, ticket: 'x'.repeat(300) }
  ]) assert.is(await closeAfter(page => page.say(broken)), 4400, JSON.stringify(broken))
  assert.is(await closeAfter(page => page.socket.send('{')), 4400)
  assert.is(await closeAfter(page => page.socket.send('null')), 4400)
  assert.is(await closeAfter(page => page.socket.send(Buffer.from('ls'))), 4400)
  assert.is(await closeAfter(page => page.socket.send('x'.repeat(messageBytesMax + 1))), 1009)
  assert.is(await closeAfter(() => world.clock.advance(10_001)), 4408)
})

test('what is typed reaches the target, on record first, and what it says comes back', async () => {
  const page = await world.open('alice')
  const { session } = await page.heard('open')
  assert.ok(world.registry.get(String(session))?.claim.client === 'web')
  page.socket.send(Buffer.from('grün '))
  const half = Buffer.from('漢')
  page.socket.send(half.subarray(0, 1))
  page.socket.send(half.subarray(1))
  await soon(() => page.bytes.toString() === 'grün 漢', 'the echo')
  page.say({ type: 'size', columns: 100, rows: 30 })
  await soon(() => eventsOf(world.tape.frames).some(({ type }) => type === 'resize'), 'the new size')
  page.say({ type: 'ack', bytes: page.bytes.length })
  const opened = eventsOf(world.tape.frames).map(({ type }) => type)
  assert.ok(opened.includes('channel-open'), opened.join())
  // From here on the disk is slow: nothing is delivered before it has it.
  let release = (): void => undefined
  world.tape.commit = () => new Promise(resolve => { release = resolve })
  const before = page.bytes.length
  world.target.peers.at(-1)!.send(channelData(0, Buffer.from('held')))
  await new Promise(resolve => setTimeout(resolve, 50))
  assert.is(page.bytes.length, before)
  world.tape.commit = () => true
  release()
  await soon(() => page.bytes.toString().endsWith('held'), 'what was held')
  const output = world.tape.frames.filter(({ kind }) => kind === frameKind.output).map(({ body }) => body)
  assert.match(Buffer.concat(output).toString(), /grün 漢/)
  page.say({ type: 'ack', bytes: 1_000_000 })
  assert.is((await page.closed())[0], 4400, 'more than was sent')
})

test('a line that is cut ends its session, also when nobody says so', async () => {
  const cut = await world.open('alice')
  await cut.heard('open')
  const silent = await world.open('bob', {}, { autoPong: false })
  await silent.heard('open')
  const { length } = world.endings
  cut.socket.terminate()
  await soon(() => world.endings.length === length + 1, 'the one that was cut')
  for (let round = 0; round < 2; round++) {
    world.clock.advance(pingMs)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  await soon(() => world.endings.length === length + 2, 'the silent one')
  assert.equal(world.endings.slice(length).map(({ reason }) => reason), ['client-closed', 'client-closed'])
  assert.ok(world.target.peers.every(({ closed }) => closed), 'nothing is open at the target')
})

test('a session that is ended from outside says why, with its code', async () => {
  const page = await world.open('alice')
  const { session } = await page.heard('open')
  world.registry.cut(String(session), new SallyportError('session-killed'))
  const { text } = await page.heard('end')
  assert.match(String(text), /^the session was ended by an administrator \[session-killed [0-9a-f]{6}\]$/)
  assert.is((await page.closed())[0], 4000)
  const refused = await world.open('alice', { login: 'alice+nothing' })
  assert.match(String((await refused.heard('end'))['text']), /access denied \[not-allowed/)
  assert.is((await refused.closed())[0], 4403)
})

test('one person’s pages are counted, and no more are taken', async () => {
  const cookie = world.cookie('bob')
  const pages = Array.from({ length: pagesOfOneMax }, () => pageOf(world.dial(cookie)))
  await Promise.all(pages.map(({ socket }) => once(socket, 'open')))
  assert.is((await pageOf(world.dial(cookie)).closed())[0], 4503)
  const hers = await world.open('alice')
  await hers.heard('open')
  hers.socket.terminate()
  for (const { socket } of pages) socket.terminate()
})

test('a live tail comes over a WebSocket as it does over HTTP, to those whom the route names', async () => {
  const path = `/api/v1/sessions/${sessionId}/watch`
  const otto = world.cookie('otto')
  const tail = (cookie: string, headers = {}) => world.dial(cookie, headers, {}, path)
  assert.is(await refusalOf(tail(world.cookie('alice'))), 403)
  assert.is(await refusalOf(tail('')), 401)
  assert.is(await refusalOf(tail(otto, { origin: 'https://evil.test' })), 403)
  assert.is(await refusalOf(world.dial(otto, {}, {}, path.replace(sessionId, 'f00'.repeat(8)))), 404)
  const page = pageOf(tail(otto))
  assert.equal(await page.heard('text'), { kind: 'text', atMs: 1, text: 'so far\r\n' })
  assert.equal([...world.followed], [sessionId])
  page.socket.send('{"type":"run"}')
  assert.is((await page.closed())[0], 4400)
  await soon(() => world.followed.size === 0, 'nobody is there to read it')
})

test('a target that floods fills one window, and goes on as the page takes it', async () => {
  const chunk = Buffer.alloc(32_768, 0x78)
  let sent = 0
  await using place = await webWorld({
    script: shellThat((peer, client) => {
      // As much as it may, and then some: what is beyond the window is for the next adjustment.
      for (; sent < windowBytes; sent += chunk.length) peer.send(channelData(client, chunk))
    })
  })
  const page = await place.open('alice')
  await soon(() => page.bytes.length === windowBytes, 'one window')
  const heard = (): number => place.target.heard.filter(each => each[0] === sshMessage.windowAdjust).length
  assert.is(heard(), 0)
  page.say({ type: 'ack', bytes: windowBytes })
  await soon(() => heard() === 1, 'the next window')
})

test('a page that floods is not read faster than the target takes it', async () => {
  // The target's window is small, and it never opens it.
  await using place = await webWorld({
    async script(peer) {
      await logIn(peer)
      for (;;) {
        const payload = await peer.next()
        if (payload === undefined) return
        if (payload[0] !== sshMessage.channelOpen) respond(peer, payload[0] === sshMessage.data
          ? windowAdjust(100, 0) : payload)
        else peer.send(openConfirmation(parseChannelOpen(payload).sender, 100, 1000, 32_768))
      }
    }
  })
  const page = await place.open('alice')
  await page.heard('open')
  for (let sent = 0; sent < 32; sent++) page.socket.send(Buffer.alloc(messageBytesMax, 0x78))
  const typed = (): number => place.target.heard.filter(each => each[0] === sshMessage.data)
    .reduce((bytes, each) => bytes + each.length - 9, 0)
  await soon(() => typed() === 1000, 'one window')
  await new Promise(resolve => setTimeout(resolve, 200))
  assert.is(typed(), 1000)
  assert.ok(page.socket.bufferedAmount > 16 * messageBytesMax, `${page.socket.bufferedAmount} left`)
  place.registry.cutAll(new SallyportError('session-killed'))
  assert.ok((await Promise.race([page.closed(), soon(() => place.endings.length > 0, 'it ends')
    .then(() => [4000])]))![0] === 4000)
})

test.run()
