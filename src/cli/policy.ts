// `policy what-if`: tries rules on what was recorded, before a grant has them. The file is a list of rules,
// or a document that has one under `rules`, such as a grant.
import type { LineOf, StreamAsked } from '../api/table.ts'
import { inertLine } from '../recording/inert.ts'
import { UsageError, exit } from './command.ts'
import type { Run } from './command.ts'
import { clientOf, text } from './connect.ts'
import { readDocuments } from './documents.ts'
import { Failure } from './failure.ts'

const at = '/rules/what-if'
type Rules = StreamAsked<typeof at>['body']['rules']

export const whatIf: Run = async call => {
  const file = text(call, 'file')
  if (file === undefined) throw new UsageError('--file is missing')
  const rules = rulesIn(file)
  const client = await clientOf(call)
  const body = {
    rules, session: text(call, 'session'), since: text(call, 'since'), until: text(call, 'until')
  }
  const all: LineOf<typeof at>[] = []
  for await (const found of client.lines(at, { body })) {
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

/** Whether they are rules is the server's to say. */
function rulesIn(file: string): Rules {
  const { values, problems } = readDocuments(file)
  if (problems.length > 0) throw new Failure('the rules cannot be read', { code: 'invalid', problems })
  const lists = values.map(value => Array.isArray(value) ? value : (value as { rules?: unknown }).rules)
    .filter(list => list !== undefined)
  if (lists.length === 1) return lists[0] as Rules
  const count = lists.length === 0 ? 'no' : 'several lists of'
  throw new Failure(`${file} has ${count} rules`, { code: 'invalid' })
}
