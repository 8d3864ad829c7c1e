// The two ways of a session with rules, byte for byte: what nobody judges passes as it came, wherever reads
// cut it; what is refused is replaced, and only the target's answer to that is put into our words.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import { createSqlParser } from '../src/main/sql-parser.ts'
import { createRulebook } from '../src/policy/rules.ts'
import { Answers } from '../src/proxy/postgres/answers.ts'
import { Gate } from '../src/proxy/postgres/gate.ts'
import type { Statement, Verdict } from '../src/session/judge.ts'
import {
  bind, errorResponse, execute, frame, noticeResponse, parse, query, readyForQuery, sync
} from '../src/wire/postgres/messages.ts'

let seed = 11
function random(below: number): number {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
  return seed % below
}

/** The same bytes in pieces, some of them of one byte. */
function pieces(bytes: Buffer, largest: number): Buffer[] {
  const cut: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const size = 1 + random(largest)
    cut.push(Buffer.from(bytes.subarray(at, at + size)))
    at += size
  }
  return cut
}

const refusal = (): SallyportError => new SallyportError('rule-refused', { said: 'drop' })
const verdict = (statement: Statement): Verdict => {
  const passes = !statement.sql.includes('DROP')
  return { passes, ends: statement.sql === 'END', error: passes ? undefined : refusal(), note: undefined }
}

function gateOf(sent: Buffer[], seen: Statement[], judge = verdict) {
  return new Gate({
    judge: async statement => {
      seen.push(statement)
      return judge(statement)
    },
    send: bytes => sent.push(bytes) > 0, refused: () => 'refused_word', note: () => undefined,
    tell: () => undefined, end: () => undefined
  })
}

test('what passes is the same bytes, and a refused message is one word, however reads cut them', async () => {
  const types = [23, 25]
  const messages: [given: Buffer, passed?: Buffer][] = [
    [query('SELECT 1')], [parse('one', 'SELECT $1, $2', types)], [bind('', 'one', ['a', null])],
    [execute('')], [sync()], [query('DROP TABLE t'), query('refused_word')],
    [frame('d', Buffer.alloc(3000, 7))],
    [parse('two', 'DROP TABLE t', types), parse('two', 'refused_word')], [sync()], [query('')], [frame('H')],
    [frame('Q', Buffer.from([0xff, 0xfe, 0]))], [frame('Q')], [query('SELECT 2')],
    [frame('Q', Buffer.from(`${'x'.repeat(400_000)}\0`))],
    [frame('P', Buffer.from(`three\0DROP ${'x'.repeat(400_000)}\0\0\0`)), parse('three', 'refused_word')],
    [frame('F', Buffer.from('0000006400000000000'.padEnd(20, '0'), 'hex'))], [frame('X')]
  ]
  const bytes = Buffer.concat(messages.map(([given]) => given))
  const expected = Buffer.concat(messages.map(([given, passed]) => passed ?? given))
  for (const largest of [1, 7, 5000, bytes.length]) {
    const [sent, seen]: [Buffer[], Statement[]] = [[], []]
    const gate = gateOf(sent, seen)
    for (const piece of largest === 1 ? pieces(bytes.subarray(0, 3000), 1) : pieces(bytes, largest)) {
      await gate.take(piece)
    }
    const out = Buffer.concat(sent)
    if (largest === 1) assert.ok(expected.subarray(0, out.length).equals(out) && out.length > 200)
    else {
      assert.ok(out.equals(expected), `reads of up to ${largest} bytes`)
      const unread = seen.filter(({ readable }) => !readable).length
      assert.equal([seen.length, unread, seen.at(-1)!.isCall], [11, 4, true])
    }
  }
})

test('random bytes pass only as text in which PostgreSQL reads nothing that is refused', async () => {
  const parser = createSqlParser(systemClock)
  const { sql } = createRulebook([{ on: 'sql', kinds: ['drop'], then: 'refuse' }])
  const words = [
    'DROP TABLE t', 'SELECT 1', ';', "'", '\\', '--', '\n', '/*', '\0', '\xe9', '\xff', ' ', "E'", '"'
  ]
  try {
    for (let round = 0; round < 400; round++) {
      const text = Array.from({ length: random(8) }, () => words[random(words.length)]).join('')
      const tag = ['Q', 'P', 'F'][random(3)]!
      const given = frame(tag, Buffer.from(text, 'latin1'), Buffer.alloc(random(3)))
      const sent: Buffer[] = []
      let parsed: Awaited<ReturnType<typeof parser.parse>>
      const gate = new Gate({
        judge: async ({ sql: said, readable, isWhole, isCall }) => {
          parsed = readable && !isCall ? await parser.parse(said, false) : undefined
          const passes = sql!.judge(parsed, isWhole ? said : undefined).then === 'allow'
          return { passes, ends: false, error: passes ? undefined : refusal(), note: undefined }
        },
        send: bytes => sent.push(bytes) > 0, refused: () => 'refused_word', note: () => undefined,
        tell: () => undefined, end: () => undefined
      })
      for (const piece of pieces(given, 9)) await gate.take(piece)
      const out = Buffer.concat(sent)
      if (!out.equals(given)) assert.ok(out.includes('refused_word'), given.toString('hex'))
      else assert.ok(parsed?.every(({ kinds }) => !kinds.includes('drop')), given.toString('hex'))
    }
  } finally {
    await parser.close()
  }
})

test('behind a verdict that ends the session nothing is passed on', async () => {
  const sent: Buffer[] = []
  const gate = gateOf(sent, [], () => ({ passes: false, ends: true, error: refusal(), note: undefined }))
  await gate.take(Buffer.concat([sync(), query('END'), query('SELECT 1')]))
  await gate.take(query('SELECT 2'))
  assert.ok(Buffer.concat(sent).equals(sync()))
})

test('a cancel request ends what the client waits for, and what PostgreSQL would end', async () => {
  const batch = [parse('', 'SELECT 1'), bind('', '', []), execute('')]
  const wait = query('DROP')
  const cases: [what: string, before: Buffer[], answered: number, isTargets: boolean, leaves: boolean][] = [
    ['nothing runs', [], 0, false, true],
    ['what was before is answered', [query('SELECT 1'), ...batch, sync()], 2, false, true],
    ['a statement runs', [query('SELECT 1')], 0, true, false],
    ['a batch runs', [...batch, sync()], 0, true, false],
    ['the second of two runs', [query('SELECT 1'), ...batch, sync()], 1, true, false],
    ['the batch is its own', batch, 0, true, true],
    ['the batch is its own, and one before it runs', [query('SELECT 1'), ...batch], 0, true, false],
    ['more answers than questions', [query('SELECT 1')], 9, false, true]
  ]
  for (const [what, before, answered, isTargets, leaves] of cases) {
    const waiting: { end?: (() => void) | undefined } = {}
    const gate = new Gate({
      judge: ({ sql }, { left }) => sql !== 'DROP' ? Promise.resolve(verdict({ sql } as Statement))
        : new Promise(resolve => {
          const done = (): void => resolve({ passes: false, ends: false, error: refusal(), note: undefined })
          left.addEventListener('abort', () => {
            waiting.end = undefined
            done()
          })
          waiting.end = done
        }),
      send: () => true, refused: () => 'refused_word', note: () => undefined, tell: () => undefined,
      end: () => undefined
    })
    for (const message of before) await gate.take(message)
    gate.answered(answered)
    const taken = gate.take(wait)
    await new Promise(resolve => setImmediate(resolve))
    assert.is(gate.cancel(new SallyportError('client-closed')), isTargets, what)
    assert.is(waiting.end === undefined, leaves, what)
    waiting.end?.()
    await taken
    assert.is(gate.cancel(new SallyportError('client-closed')), true, `${what}: nobody waits`)
  }
})

test('only the answer to a refused statement is reworded, however reads cut it', () => {
  for (let round = 0; round < 60; round++) {
    const answers = new Answers()
    const error = (message: string): Buffer =>
      errorResponse({ severity: 'ERROR', sqlstate: '42601', message })
    const before = [frame('D', Buffer.alloc(random(200), 0x45)), readyForQuery('I'), error('somebody\'s own')]
    const first = answers.take(before[0]!, before[0]!.length)
    assert.is(first, before[0], 'without a refusal on its way the chunk is passed on itself')
    const [skipped, answered] = [refusal(), refusal()]
    answers.refused(skipped)
    const word = answers.refused(answered)
    const given = Buffer.concat([
      ...before.slice(1), noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: word }),
      error(`syntax error at or near "${word}"`), readyForQuery('E'), error(`again "${word}"`)
    ])
    const expected = Buffer.concat([
      ...before.slice(1), noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: word }),
      errorResponse({ severity: 'ERROR', sqlstate: '42501', message: answered.clientMessage }),
      readyForQuery('E'), error(`again "${word}"`)
    ])
    const out = pieces(given, 1 + random(given.length)).map(piece =>
      Buffer.from(answers.take(piece, piece.length)))
    assert.ok(Buffer.concat(out).equals(expected), `round ${round}`)
  }
})

test.run()
