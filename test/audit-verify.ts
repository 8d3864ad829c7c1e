// Whatever is done to an audit log is found, and the first bad row is named (R5): every field of every row,
// rows taken out, put in, moved or cut off, chains rewritten and re-linked, checkpoints forged, and the
// whole log set back.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { genesisHash, linkRows, rootOf } from '../src/store/audit-chain.ts'
import type { AuditRow, Checkpoint } from '../src/store/audit-chain.ts'
import { parseCheckpoints } from '../src/store/audit-checkpoint.ts'
import { describeProblem, verifyAudit } from '../src/store/audit-verify.ts'
import type { AuditEvidence, AuditProblem, AuditVerdict } from '../src/store/audit-verify.ts'
import { canonicalJson, storableJson } from '../src/store/canonical.ts'
import { auditWorld, sorted } from './peers/audit-world.ts'

const world = auditWorld(6)
const chain = 'n1/a'
const own = world.rows.filter(row => row.chain === chain)
const others = world.rows.filter(row => row.chain !== chain)

function verify(evidence: Partial<AuditEvidence>): Promise<AuditVerdict> {
  return verifyAudit({
    events: world.rows, checkpoints: world.checkpoints, publicKeys: [world.publicKey], ...evidence
  })
}

/** Verifies with the rows of one chain replaced, and gives back the first problem. */
async function problemWith(rows: readonly AuditRow[]): Promise<AuditProblem> {
  const { valid, problems } = await verify({ events: [...rows, ...others] })
  assert.not.ok(valid)
  return problems[0]!
}

function relink(rows: readonly AuditRow[]): AuditRow[] {
  return linkRows({ chain, seq: 0, hash: genesisHash }, rows)
}

test('an untouched log is valid, and says how much of it is signed', async () => {
  const verdict = await verify({ exported: world.checkpoints.slice(-1) })
  assert.equal(verdict.problems, [])
  assert.ok(verdict.valid)
  assert.is(verdict.events, world.rows.length)
  assert.is(verdict.checkpoints, 6)
  assert.is(verdict.unsigned, 3)
  assert.is(verdict.heads.length, 3)
})

test('rows without any checkpoint are valid and unsigned; an empty log is valid', async () => {
  assert.is((await verify({ checkpoints: [] })).unsigned, world.rows.length)
  assert.ok((await verify({ events: [], checkpoints: [] })).valid)
})

test('a change to any field of any row is found in that row', async () => {
  let mutations = 0
  for (const [at, row] of own.entries()) {
    const flipped = (text: string): string => (text.startsWith('0') ? '1' : '0') + text.slice(1)
    const changes: AuditRow[] = [
      { ...row, at: flipped(row.at) }, { ...row, kind: `${row.kind}x` }, { ...row, actor: 'mallory' },
      { ...row, subject: '' }, { ...row, detail: {} },
      { ...row, detail: { ...row.detail as object, extra: null } },
      { ...row, prev: flipped(row.prev) }, { ...row, hash: flipped(row.hash) }
    ]
    for (const changed of changes) {
      mutations++
      const problem = await problemWith(own.with(at, changed))
      assert.equal([problem.chain, problem.seq], [chain, row.seq], describeProblem(problem))
    }
  }
  assert.ok(mutations >= 100, `${mutations} mutations`)
})

test('a row that was taken out is named', async () => {
  for (let at = 0; at < own.length - 1; at++) {
    const problem = await problemWith(own.toSpliced(at, 1))
    assert.equal([problem.chain, problem.seq], [chain, at + 1])
    assert.match(problem.reason, 'missing')
  }
  const several = await problemWith(own.toSpliced(3, 4))
  assert.match(describeProblem(several), /row 4: the row is missing, and all up to row 7/)
})

test('a row that was put in, doubled or exchanged is named', async () => {
  for (let at = 1; at < own.length - 1; at++) {
    assert.is((await problemWith(own.toSpliced(at, 0, own[at]!))).seq, at + 1, 'doubled')
    const exchanged = own.with(at, { ...own[at + 1]!, seq: at + 1 })
      .with(at + 1, { ...own[at]!, seq: at + 2 })
    assert.is((await problemWith(exchanged)).seq, at + 1, 'exchanged')
    const foreign = others.find(row => row.seq === at + 1)!
    assert.is((await problemWith(own.with(at, { ...foreign, chain }))).seq, at + 1, 'of another chain')
  }
})

test('a tail that was cut off is found up to the newest signature', async () => {
  for (let length = 0; length < own.length - 1; length++) {
    const problem = await problemWith(own.slice(0, length))
    assert.equal([problem.chain, problem.seq], [chain, length + 1])
    assert.match(problem.reason, length === 0 ? /whole chain is missing/ : /ends at row/)
  }
  const unsigned = await verify({ events: [...own.slice(0, -1), ...others] })
  assert.ok(unsigned.valid, 'the last row was never signed')
})

test('a chain rewritten from any row and chained anew is found by the next signed head', async () => {
  for (let at = 0; at < own.length - 1; at++) {
    const rewritten = relink(own.with(at, { ...own[at]!, actor: 'mallory' }))
    const problem = await problemWith(rewritten)
    assert.is(problem.chain, chain)
    assert.match(problem.reason, /rewritten and chained anew/)
    // Two rows for each checkpoint.
    assert.is(problem.seq, Math.floor(at / 2) * 2 + 1)
  }
})

test('a chain that was taken away whole, and one that was made up, do not pass for each other', async () => {
  const { problems } = await verify({ events: others })
  assert.match(describeProblem(problems[0]!), /chain n1\/a, row 1: the whole chain is missing/)
  const renamed = own.map(row => ({ ...row, chain: 'n9/z' }))
  const { valid } = await verify({ events: [...others, ...renamed] })
  assert.not.ok(valid)
})

test('the whole log set back to any earlier checkpoint is found with one exported checkpoint', async () => {
  const exported = world.checkpoints.slice(-1)
  for (let kept = 0; kept < world.checkpoints.length; kept++) {
    const checkpoints = world.checkpoints.slice(0, kept)
    const signed = new Map(checkpoints.flatMap(({ body }) => body.heads).map(head => [head.chain, head.seq]))
    const events = world.rows.filter(row => row.seq <= (signed.get(row.chain) ?? 0))
    assert.ok((await verify({ events, checkpoints })).valid, 'in itself it is in order')
    const { problems } = await verify({ events, checkpoints, exported })
    const said = problems.map(describeProblem).join('\n')
    assert.match(said, new RegExp(`checkpoint 6: was exported, the store ends at checkpoint ${kept}`))
    assert.match(said, /chain n1\/a, row \d+: /)
  }
})

test('a row that was altered together with a missing checkpoint is still found', async () => {
  const rewritten = relink(own.with(0, { ...own[0]!, actor: 'mallory' }))
  for (let kept = 0; kept < 6; kept++) {
    const exported = world.checkpoints.slice(-1)
    const problem = await verify({ events: [...rewritten, ...others], checkpoints: [], exported })
    assert.not.ok(problem.valid)
  }
})

test('checkpoints that were altered, forged, dropped, exchanged or put back are found', async () => {
  const [first, second, third] = world.checkpoints as [Checkpoint, Checkpoint, Checkpoint]
  const stranger = auditWorld(3)
  const mutations: Checkpoint[][] = [
    world.checkpoints.with(1, { ...second, signature: first.signature }),
    world.checkpoints.with(1, { ...second, signature: '' }),
    world.checkpoints.with(1, { ...second, keyId: 'nobody' }),
    world.checkpoints.with(1, stranger.checkpoints[1]!),
    world.checkpoints.with(1, { ...stranger.checkpoints[1]!, keyId: second.keyId }),
    world.checkpoints.with(1, { ...second, body: { ...second.body, heads: [] } }),
    world.checkpoints.with(1, { ...second, body: { ...second.body, at: third.body.at.replace('2', '1') } }),
    world.checkpoints.toSpliced(1, 1),
    world.checkpoints.slice(1)
  ]
  for (const checkpoints of mutations) assert.not.ok((await verify({ checkpoints })).valid)
  const { valid, problems } = await verify({ exported: [world.signed({ ...third.body, at: 'later' })] })
  assert.not.ok(valid)
  assert.match(describeProblem(problems[0]!), /checkpoint 3: the store has another one than was exported/)
})

test('a signed checkpoint that leaves a chain out, or sets one back, contradicts its root', async () => {
  const last = world.checkpoints.at(-1)!
  const next = { ...last.body, seq: 7, previous: 'x' }
  const wrong = await verify({ checkpoints: [...world.checkpoints, world.signed(next)] })
  assert.match(wrong.problems.map(describeProblem).join(), /checkpoint 7: does not follow/)
  const lower = last.body.heads.map(head => ({ ...head, seq: head.seq - 3 }))
  const back = world.signed({ ...last.body, heads: lower })
  const set = await verify({ checkpoints: world.checkpoints.with(5, back) })
  assert.match(set.problems.map(describeProblem).join(), /went back to row/)
  const rootless = world.signed({ ...last.body, root: rootOf([]) })
  const root = await verify({ checkpoints: world.checkpoints.with(5, rootless) })
  assert.match(root.problems.map(describeProblem).join(), /checkpoint 6: its root is not/)
})

test('one bad chain does not hide what is wrong with another', async () => {
  const gone = ['n1/a 2', 'n2/a 1']
  const { problems } = await verify({
    events: world.rows.filter(row => !gone.includes(`${row.chain} ${row.seq}`))
  })
  assert.equal(problems.map(({ chain: which, seq }) => `${which} ${seq}`), gone)
})

test('roots are those of RFC 6962: order of the input does not matter, every head does', () => {
  const heads = Array.from({ length: 7 }, (_, n) => ({ chain: `c${n}`, seq: n, hash: 'ff' }))
  assert.is(rootOf([]), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  assert.is(rootOf(heads), rootOf(heads.toReversed()))
  const roots = new Set(heads.map((_, at) => rootOf(heads.toSpliced(at, 1))))
  assert.is(roots.size, 7)
  assert.is.not(rootOf(heads.slice(0, 2)), rootOf(heads.slice(0, 1)))
})

test('checkpoint files are read line by line, an export too, and a damaged line is named', () => {
  const lines = world.checkpoints.map(checkpoint => JSON.stringify(checkpoint))
  assert.is(parseCheckpoints(`${lines.join('\n')}\n`).length, 6)
  assert.is(parseCheckpoints(`${lines.join('\n')}\n{"body":{"se`).length, 6, 'a crash cut the last line off')
  const exported = sorted(world.rows).map(event => JSON.stringify({ event }))
    .concat(world.checkpoints.map(checkpoint => JSON.stringify({ checkpoint })))
  assert.equal(parseCheckpoints(`${exported.join('\n')}\n`), world.checkpoints)
  assert.throws(() => parseCheckpoints(`${lines[0]}\nnonsense\n`), /line 2/)
})

test('canonical JSON does not depend on the order of members, and cleans what the store refuses', () => {
  const text = '{"a":"ä","b":[1,{"c":true,"d":null}]}'
  assert.is(canonicalJson({ b: [1, { d: null, c: true }], a: 'ä', u: undefined }), text)
  assert.is(canonicalJson({ a: 'ä', b: [1, { c: true, d: null }] }), text)
  assert.equal(storableJson({ n: 10n, t: 'a\0b\ud800', d: new Date(0), u: undefined, f: Number.NaN }),
    { n: '10', t: 'a\ufffdb\ufffd', d: '1970-01-01T00:00:00.000Z', f: null })
  assert.throws(() => canonicalJson(Number.POSITIVE_INFINITY), /cannot say/)
})

test.run()
