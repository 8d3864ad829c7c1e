// What the steps of a session are given to judge by the rules of its grant: policy's decision, the SQL
// parser, and how a text looks to those who have to agree to it.
import type { Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import { ruleKey } from '../policy/approvals.ts'
import { createRulebook } from '../policy/rules.ts'
import { inertLine } from '../recording/inert.ts'
import { maskSecrets } from '../recording/mask.ts'
import type { JudgePorts } from '../session/judge.ts'
import { createSqlParser } from './sql-parser.ts'

export interface Rules extends Pick<JudgePorts, 'rulebookOf' | 'parseSql' | 'shown' | 'keyOf'> {
  close(): Promise<void>
}

export function createRules(clock: Clock, log: Log): Rules {
  const parser = createSqlParser(clock, why => log.warn({ why }, 'the SQL parser is started anew'))
  return {
    rulebookOf: createRulebook, keyOf: ruleKey,
    parseSql: (sql, wantsText) => parser.parse(sql, wantsText),
    shown: text => inertLine(maskSecrets(text.replace(/\s+/g, ' ')).sql),
    close: () => parser.close()
  }
}
