// `policy what-if`: tries rules on what was recorded, before a grant has them. The file is a list of rules,
// or a document that has one under `rules`, such as a grant.
import type { WhatIfLine } from '../api/ports-records.ts'
import { inertLine } from '../recording/inert.ts'
import { UsageError, exit } from './command.ts'
import type { Run } from './command.ts'
import { clientOf, text } from './connect.ts'
import { readDocuments } from './documents.ts'
import { Failure } from './failure.ts'

export const whatIf: Run = async call => {
  const file = text(call, 'file')
  if (file === undefined) throw new UsageError('--file is missing')
  const rules = rulesIn(file)
  const client = await clientOf(call)
  const body = {
    rules, session: text(call, 'session'), since: text(call, 'since'), until: text(call, 'until')
  }
  const all: WhatIfLine[] = []
  for await (const line of linesOf(client.stream('/rules/what-if', undefined, undefined, body))) {
    const found = JSON.parse(line) as WhatIfLine
    if (call.json) all.push(found)
    else if ('done' in found) {
      const { sessions, judged, found: count } = found
      call.out.aside(`${count} of ${judged} statements, commands and files in ${sessions} sessions`)
    } else {
      const { session, atMs, user, target, then, rule, kinds, what } = found
      const seconds = `${(atMs / 1000).toFixed(3)}s`.padStart(10)
      const why = `rule ${rule ?? 'none'}${kinds.length === 0 ? '' : ` (${kinds.join(', ')})`}`
      call.out.line(inertLine(`${session}  ${seconds}  ${user}@${target}  ${then}, ${why}: ${what}`))
    }
  }
  if (call.json) call.out.json(all)
  return exit.ok
}

function rulesIn(file: string): unknown {
  const { values, problems } = readDocuments(file)
  if (problems.length > 0) throw new Failure('the rules cannot be read', { code: 'invalid', problems })
  const lists = values.map(value => Array.isArray(value) ? value : (value as { rules?: unknown }).rules)
    .filter(list => list !== undefined)
  if (lists.length === 1) return lists[0]
  const count = lists.length === 0 ? 'no' : 'several lists of'
  throw new Failure(`${file} has ${count} rules`, { code: 'invalid' })
}

async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
}
