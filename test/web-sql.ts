// The SQL page's end of a PostgreSQL session with targets that no real server plays: what they say is
// bounded before a page is told, COPY finds no file, and a page that leaves in the middle leaves nothing
// running. Real statements, in a real browser, are in journeys/console-sessions.ts.
import type { Socket } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { frame, noticeResponse, readyForQuery } from '../src/wire/postgres/messages.ts'
import { commandComplete, dataRow, rowDescription } from './peers/fake-target.ts'
import { statementsOf } from './peers/relay-world.ts'
import { soon } from './peers/ssh-world.ts'
import { webWorld } from './peers/web-world.ts'
import type { OpenPage, WebWorld } from './peers/web-world.ts'

/** What the target says to a statement; replaced by each test. */
let executed: (socket: Socket, sql: string) => void = () => undefined
let copyFailed = ''
let world: WebWorld

const described = Buffer.concat([frame('1'), frame('2'), rowDescription])
const nothingDescribed = Buffer.concat([frame('1'), frame('2'), frame('n')])
const done = commandComplete('SELECT 1')

test.before(async () => {
  let sql = ''
  world = await webWorld({
    fake: {
      answer(socket, tag, body) {
        if (tag === 'P') sql = body.toString('utf8', 1, body.indexOf(0, 1))
        if (tag === 'E') executed(socket, sql)
        if (tag === 'f') copyFailed = body.toString('utf8', 0, body.length - 1)
        if (tag === 'S') socket.write(readyForQuery('I'))
        if (tag === 'X') socket.end()
      }
    }
  })
})
test.after(async () => { await world[Symbol.asyncDispose]() })

async function open(): Promise<OpenPage> {
  const page = await world.open('alice', { protocol: 'postgres', login: 'alice+orders-ro' })
  assert.is((await page.heard('ready'))['transaction'], 'I')
  return page
}

/** The answer of a target to one statement, as the page is told. */
async function answerOf(page: OpenPage, ...said: readonly Uint8Array[]): Promise<Record<string, unknown>[]> {
  page.words.length = 0
  executed = socket => { socket.write(Buffer.concat(said)) }
  page.say({ type: 'run', sql: 'SELECT x' })
  await soon(() => page.words.some(({ type }) => type === 'ready'), 'ready')
  return page.words
}

const rowsOf = (words: readonly Record<string, unknown>[]): (string | null)[][] =>
  words.filter(({ type }) => type === 'rows').flatMap(({ rows }) => rows as (string | null)[][])

test('rows, cells and notices are bounded, and what was left out is said', async () => {
  const page = await open()
  const notice = noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: 'n' })
  const many = await answerOf(page, described, ...Array.from({ length: 1000 }, () => notice), done)
  assert.is(many.filter(({ type }) => type === 'notice').length, 200)
  assert.is(many.find(({ type }) => type === 'done')?.['noticesLeft'], 800)

  const wide = rowsOf(await answerOf(
    page, described, ...Array.from({ length: 400 }, () => dataRow(10_000)), done))
  assert.is(wide.length, 400)
  assert.match(wide[0]![0]!, /^x{4096}… \(10000 characters\)$/)
  assert.match(wide.at(-1)![0]!, /^x{32}… \(10000 characters\)$/)
  assert.ok(JSON.stringify(wide).length < 2 * 1024 * 1024)

  const long = rowsOf(await answerOf(page, described, dataRow(5 * 1024 * 1024), dataRow(3), done))
  assert.match(long[0]![0]!, /^\(a row of 5242\d+ bytes, too long for this page\)$/)
  assert.is(long[1]![0], 'xxx')
  page.socket.terminate()
})

test('a statement is on record as it was sent, and one that cannot be sent is not', async () => {
  const page = await open()
  await answerOf(page, described, done)
  assert.match(statementsOf(world.tape.frames).toString(), /SELECT x/)
  page.words.length = 0
  page.say({ type: 'run', sql: 'SELECT \0' })
  assert.is((await page.heard('error'))['sqlstate'], '22021')
  await page.heard('ready')
  assert.is(rowsOf(await answerOf(page, described, dataRow(1), done)).length, 1)
  page.socket.terminate()
})

test('rows come some at a time, and the next statement puts the rest away', async () => {
  const page = await open()
  const suspended = frame('s')
  executed = socket => { socket.write(Buffer.concat([described, dataRow(1), suspended])) }
  page.say({ type: 'run', sql: 'SELECT x' })
  assert.is((await page.heard('rows'))['more'], true)
  executed = socket => { socket.write(Buffer.concat([dataRow(2), suspended])) }
  page.say({ type: 'more' })
  assert.equal((await page.heard('rows'))['rows'], [['xx']])
  const words = await answerOf(page, described, dataRow(3), done)
  assert.equal(rowsOf(words), [['xxx']])
  page.say({ type: 'more' })
  assert.is((await page.closed())[0], 4400, 'no statement waits')
})

test('what concerns the session is no notice of a statement', async () => {
  const page = await open()
  world.tell('this session ends in 1 minute')
  assert.equal(await page.heard('notice'), { type: 'notice', text: 'this session ends in 1 minute' })
  page.socket.terminate()
})

test('one statement at a time', async () => {
  const page = await open()
  executed = () => undefined
  page.say({ type: 'run', sql: 'SELECT 1' })
  page.say({ type: 'run', sql: 'SELECT 2' })
  assert.match((await page.closed())[1], /one statement at a time/)
})

test('COPY finds neither a file nor a reader, whatever the statement looks like', async () => {
  const page = await open()
  const copyResponse = Buffer.from([0, 0, 0])
  executed = socket => {
    socket.write(Buffer.concat([nothingDescribed, frame('G', copyResponse)]))
    void soon(() => copyFailed !== '', 'CopyFail').then(() =>
      socket.write(frame('E', Buffer.from('SERROR\0VERROR\0C57014\0MCOPY from stdin failed\0\0'))))
  }
  page.say({ type: 'run', sql: '/* */ copy orders from stdin' })
  assert.match(String((await page.heard('error'))['message']), /^COPY moves files/)
  assert.match(copyFailed, /^COPY moves files/)
  await page.heard('ready')

  const data = frame('d', Buffer.alloc(64 * 1024))
  executed = socket => {
    socket.write(Buffer.concat([nothingDescribed, frame('H', copyResponse), data, data, frame('c'), done]))
  }
  const { length } = world.database.cancels
  page.say({ type: 'run', sql: 'copy orders to stdout' })
  assert.match(String((await page.heard('notice'))['text']), /^COPY moves files/)
  await page.heard('ready')
  assert.is(world.database.cancels.length, length + 1)
  page.socket.terminate()
})

test('cancel reaches the target, and so does leaving in the middle', async () => {
  const page = await open()
  const { length } = world.database.cancels
  executed = () => undefined
  page.say({ type: 'run', sql: 'SELECT pg_sleep(100)' })
  page.say({ type: 'cancel' })
  await soon(() => world.database.cancels.length === length + 1, 'the cancel request')
  page.socket.terminate()
  await soon(() => world.database.cancels.length === length + 2, 'another one, for who left')
  await soon(() => world.registry.list().length === 0, 'the session is over')
})

test('whoever is cut hears why, and a target that breaks the protocol ends the session', async () => {
  const cut = await open()
  world.registry.cutAll(new SallyportError('session-expired'))
  assert.match(String((await cut.heard('end'))['text']), /time limit \[session-expired/)
  const broken = await open()
  executed = socket => { socket.write(Buffer.from('?\0\0\0\x04')) }
  broken.say({ type: 'run', sql: 'SELECT x' })
  assert.match(String((await broken.heard('end'))['text']), /broke the protocol \[target-violation/)
})

test.run()
