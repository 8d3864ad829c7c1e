// What can be said about a MySQL template without a server. Its SQL must read alike under PostgreSQL's rules,
// by which holes are checked, and under the mode that the plugin pins: so backquotes, backslashes, comments
// and dollar signs are refused, and nothing is lost by that. Passwords in clear are refused too; advice is
// what works and hurts.
import { SallyportError } from '../../src/errors.ts'
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import type { Template } from '../../src/jit/template.ts'
import { orderAdvice, planSteps, stepsOf, verbProblems, withoutHoles } from '../steps.ts'
import { verbs } from './verbs.ts'

const unshared: readonly (readonly [RegExp, string])[] = [
  [/`/, 'a backquote: write "name"'], [/\\/, 'a backslash: it is no escape here'],
  [/#|--|\/\*/, 'a comment: write it in YAML'], [/\$/, 'a dollar sign'], [/@@/, 'a system variable']
]
const misfits = new RegExp('^(?:' + [
  'set', 'use', 'begin', 'start', 'commit', 'rollback', 'savepoint', 'release', 'prepare', 'execute',
  'deallocate', 'lock', 'unlock', 'load', 'handler', 'xa', 'kill', 'do', 'delimiter'
].join('|') + ')\\b', 'i')
const strong = /\b(?:super|file|create user|grant option|set user|connection admin|shutdown|process)\b/i

/** Text that both readers take alike. @throws SallyportError('invalid') */
export function assertShared(sql: string, step: string): void {
  for (const [form, what] of unshared) {
    if (form.test(sql)) throw new SallyportError('invalid', { detail: `step "${step}" would send ${what}` })
  }
}

export function lint(template: Template): string[] {
  const problems = verbProblems(template, verbs, 'MySQL')
  for (const [path, { sql }] of stepsOf(template)) {
    if (sql === undefined) continue
    const text = withoutHoles(sql)
    for (const [form, what] of unshared) if (form.test(text)) problems.push(`${path}.sql: ${what}`)
    if (misfits.test(text.trim())) {
      problems.push(`${path}.sql: ${text.trim().split(/\s/, 1)[0]?.toUpperCase()} is not for a step`)
    }
    if (/\bidentified\s+by\b/i.test(text) || /\bpassword\s*\(/i.test(text)) {
      problems.push(`${path}.sql: a clear password would be in the log of the target: write `
        + 'IDENTIFIED WITH mysql_native_password AS {{ verifier | literal }}')
    }
  }
  return problems
}

export function advise(template: Template): string[] {
  const advice = orderAdvice(template, 'drop-account')
  for (const [path, step] of stepsOf(template)) {
    const text = withoutHoles(step.sql ?? '')
    if (/^\s*grant\b/i.test(text)) {
      if (/\ball\b[^"]*\bon\s+\*\.\*/i.test(text) || strong.test(text)) {
        advice.push(`${path}.sql: with these rights a session can undo everything that we do`)
      }
      if (/\bon\s+"[^"]*[_%][^"]*"\s*\.\s*\*/i.test(text)) {
        advice.push(`${path}.sql: _ and % in the name of a database stand for any character in GRANT`)
      }
    }
  }
  const opens = (template.action === 'create' || template.action === 'enable') && template.proof === 'login'
  if (opens && !template.steps.some(step => step.do === 'arm-deadline')) {
    advice.push('steps: no arm-deadline: nothing ends logins if all of us are gone')
  }
  return advice
}

const samples: Variables = {
  username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', verifier: '********'
}

export function plan(template: Template, variables: Variables): PlannedStep[] {
  return planSteps(template, { ...samples, ...variables }, verbs)
}
