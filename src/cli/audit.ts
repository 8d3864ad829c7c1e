// `audit list`, `verify`, `export`: what happened, and whether the log still says what it said.
import { createWriteStream, readFileSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import type { AuditVerifiedJson } from '../api/client-types.ts'
import type { AuditRow, Checkpoint } from '../store/audit-chain.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, text } from './connect.ts'
import { Failure } from './failure.ts'
import { shortTime } from './output.ts'

export const list: Run = async call => {
  const client = await clientOf(call)
  const { events } = await client.get('/audit', {
    query: {
      kind: text(call, 'kind'), actor: text(call, 'actor'), subject: text(call, 'subject'),
      since: text(call, 'since'), until: text(call, 'until'), before: text(call, 'before'),
      limit: number(call, 'limit', 100, 1)
    }
  })
  if (call.json) call.out.json(events)
  else call.out.table(['AT', 'WHAT', 'BY', 'ON', 'DETAIL'], events.map(event =>
    [shortTime(event.at), event.kind, event.actor, event.subject, JSON.stringify(event.detail)]), 'no events')
  return exit.ok
}

export const verify: Run = async call => {
  const [exported] = call.args
  if (exported !== undefined) return verifyFile(call, exported)
  const file = text(call, 'checkpoint')
  const client = await clientOf(call)
  const report = await client.post('/audit/verify', {
    body: file === undefined ? {} : { checkpoint: checkpointsOf(file) }
  })
  printReport(call, report)
  return report.valid ? exit.ok : exit.failed
}

// An export is checked with nothing but the public key: on another machine, and when the server is not to
// be asked.
async function verifyFile(call: Invocation, file: string): Promise<number> {
  const key = text(call, 'public-key')
  if (key === undefined) throw new UsageError('--public-key is missing: an exported file is checked with it')
  const earlier = text(call, 'checkpoint')
  const { describeProblem, verifyAudit } = await import('../store/audit-verify.ts')
  const { events, checkpoints } = readExport(readFileSync(file, 'utf8'), file)
  const exported = earlier === undefined ? [] : readExport(readFileSync(earlier, 'utf8'), earlier).checkpoints
  const verdict = await verifyAudit({
    events, checkpoints, exported, publicKeys: [readFileSync(key, 'utf8')]
  })
  printReport(call, {
    ...verdict, heads: [...verdict.heads], problems: verdict.problems.map(problem => describeProblem(problem))
  })
  return verdict.valid ? exit.ok : exit.failed
}

// Of an earlier export only the signed heads are of interest to the server.
function checkpointsOf(file: string): string {
  const { checkpoints } = readExport(readFileSync(file, 'utf8'), file)
  if (checkpoints.length === 0) throw new Failure(`${file} holds no checkpoint`, { code: 'invalid' })
  return checkpoints.map(checkpoint => `${JSON.stringify(checkpoint)}\n`).join('')
}

/** The lines of `audit export`, or of a file of checkpoints alone. */
function readExport(lines: string, file: string): { events: AuditRow[], checkpoints: Checkpoint[] } {
  const events: AuditRow[] = []
  const checkpoints: Checkpoint[] = []
  for (const [at, line] of lines.split('\n').entries()) {
    if (line === '') continue
    try {
      const read = JSON.parse(line) as { event?: AuditRow, checkpoint?: Checkpoint } & Checkpoint
      if (read.event !== undefined) events.push(read.event)
      else checkpoints.push(read.checkpoint ?? read)
    } catch {
      throw new Failure(`${file}:${at + 1} is damaged`, { code: 'invalid' })
    }
  }
  return { events, checkpoints }
}

function printReport(call: Invocation, report: AuditVerifiedJson): void {
  if (call.json) return call.out.json(report)
  const { valid, events, problems, heads, unsigned } = report
  for (const problem of problems) call.out.line(problem)
  const signed = unsigned === 0 ? '' : `, the newest ${unsigned} not signed yet`
  call.out.line(`${valid ? 'whole' : 'NOT whole'}: ${events} events in ${heads.length} chains${signed}`)
}

export const exportAll: Run = async call => {
  const client = await clientOf(call)
  const chunks = client.stream('/audit/export', { query: { since: text(call, 'since') } })
  const file = text(call, 'output')
  // The log is JSON lines already; its texts are escaped by the server only as JSON asks, so it is for files.
  if (file !== undefined) await pipeline(chunks, createWriteStream(file, { mode: 0o600 }))
  else await writeOut(call, chunks)
  return exit.ok
}

async function writeOut(call: Invocation, chunks: AsyncIterable<Buffer>): Promise<void> {
  const decoder = new TextDecoder()
  for await (const chunk of chunks) call.out.raw(decoder.decode(chunk, { stream: true }))
}
