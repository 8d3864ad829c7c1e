// Runs rules over what was recorded: which statements, commands and files of past sessions they would have
// warned of, refused or put to others. The same decision as in a session, over the same parser, from the
// newest day back; nothing is changed.
import type { WhatIfLine, WhatIfRequest } from '../api/ports-records.ts'
import { createRulebook } from '../policy/rules.ts'
import type { Finding, Rulebook } from '../policy/rules.ts'
import { ruleActions } from '../policy/types.ts'
import { acts } from '../recording/acts.ts'
import type { Act } from '../recording/acts.ts'
import { listRecordings, openRecording, timeOf } from '../recording/catalog.ts'
import { inertLine } from '../recording/inert.ts'
import { touches } from '../wire/ssh/sftp.ts'
import type { Rules } from './rules.ts'

const shownMax = 200

type Parse = Rules['parseSql']

/** One line for each thing that a rule would have said something to, and a last one with the numbers. */
export async function* whatIf(
  dir: string, parse: Parse, { rules, signal, ...filters }: WhatIfRequest
): AsyncGenerator<WhatIfLine> {
  const book = createRulebook(rules)
  let [sessions, judged, found] = [0, 0, 0]
  for (const { session, head } of listRecordings(dir, filters)) {
    if (signal.aborted) return
    sessions++
    using file = openRecording(dir, session)
    for await (const act of acts(file)) {
      const finding = await judge(book, parse, act)
      if (finding === undefined) continue
      judged++
      const { then, rule, kinds } = finding
      if (then === 'allow') continue
      found++
      const at = timeOf(head, act.atMs)
      const { user, target } = head
      yield {
        session, user: inertLine(user), target: inertLine(target), at, atMs: act.atMs, on: act.on, then,
        rule: rule ?? null, kinds, what: inertLine(wordsOf(act).replace(/\s+/g, ' ')).slice(0, shownMax)
      }
    }
  }
  yield { done: true, sessions, judged, found }
}

/** Undefined where no rule is about such things. */
async function judge({ sql, command, file }: Rulebook, parse: Parse, act: Act): Promise<Finding | undefined> {
  switch (act.on) {
    case 'sql': {
      if (sql === undefined) return undefined
      const { text, isWhole, isCall } = act
      if (isCall) return sql.judge([{ text, kinds: ['function-call', 'unparsed'] }], text)
      return isWhole ? sql.judge(await parse(text, sql.wantsText), text) : sql.judge(undefined, undefined)
    }
    case 'command': {
      const finding = command?.(act.text)
      // What is typed cannot be held back: the session would have ended.
      const isStrict = finding?.then === 'refuse' || finding?.then === 'approve'
      return finding !== undefined && act.isTyped && isStrict ? { ...finding, then: 'end' } : finding
    }
    case 'file': {
      if (file === undefined) return undefined
      const { op, home } = act
      const direction = op === 'download' ? op : op === 'list' || op === 'open' ? 'look' : 'upload'
      return touches(act)
        .flatMap(({ path, how: { isSource = false, isTree } = {} }) => [
          file(direction, path, { home, isTree }),
          ...isSource ? [file('download', path, { home, isTree })] : []
        ])
        .sort((one, other) => ruleActions.indexOf(other.then) - ruleActions.indexOf(one.then))[0]
    }
  }
}

function wordsOf(act: Act): string {
  if (act.on !== 'file') return act.text
  return `${act.op} ${act.path}${act.to === undefined ? '' : ` → ${act.to}`}`
}
