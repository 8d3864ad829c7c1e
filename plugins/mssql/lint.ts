// What can be said about a SQL Server template without a server. Its text was checked as T-SQL already
// (src/jit/sql-dialect.ts); here is what a step must not say, because the plugin owns it, and passwords in
// clear: the server would see them in each trace that is not filtered.
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import type { Template } from '../../src/jit/template.ts'
import { orderAdvice, planSteps, stepsOf, verbProblems, withoutHoles } from '../steps.ts'
import { verbs } from './verbs.ts'

const misfits = new RegExp('^(?:' + [
  'use', 'go', 'set', 'begin', 'commit', 'rollback', 'save', 'kill', 'exec', 'execute', 'declare', 'revert',
  'shutdown', 'reconfigure', 'waitfor', 'backup', 'restore', 'dbcc', 'bulk', 'openrowset'
].join('|') + ')\\b', 'i')
const strong = new RegExp('\\b(?:' + [
  'sysadmin', 'securityadmin', 'serveradmin', 'control server', 'alter any login', 'impersonate any login',
  'unsafe assembly'
].join('|') + ')\\b', 'i')

export function lint(template: Template): string[] {
  const problems = verbProblems(template, verbs, 'SQL Server')
  for (const [path, { sql }] of stepsOf(template)) {
    if (sql === undefined) continue
    const text = withoutHoles(sql)
    const [word = ''] = text.trim().split(/\s/, 1)
    if (misfits.test(text.trim())) problems.push(`${path}.sql: ${word.toUpperCase()} is not for a step`)
    if (/\bpassword\s*=/i.test(text) && !/\bpassword\s*=\s*\S+\s+hashed\b/i.test(text)) {
      problems.push(`${path}.sql: the server would see a clear password: write `
        + 'PASSWORD = {{ verifier | binary }} HASHED, CHECK_POLICY = OFF')
    }
  }
  return problems
}

export function advise(template: Template): string[] {
  const advice = orderAdvice(template, 'drop-login')
  for (const [path, { sql = '' }] of stepsOf(template)) {
    if (strong.test(withoutHoles(sql))) {
      advice.push(`${path}.sql: with these rights a session can undo everything that we do`)
    }
  }
  const creates = template.action === 'create' && template.steps.some(
    ({ sql = '' }) => /^\s*create\s+login\b/i.test(sql) && !/\bsid\s*=\s*\{\{\s*sid\s*\|/i.test(sql))
  if (creates) advice.push('steps: CREATE LOGIN without SID = {{ sid | binary }} is not known for ours')
  if (template.action === 'delete' && !template.steps.some(step => step.do === 'drop-users')) {
    advice.push('steps: no drop-users: users of a dropped login stay in their databases')
  }
  return advice
}

const samples: Variables = {
  username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', verifier: '********',
  sid: '0x00000000000000000000000000000000'
}

export function plan(template: Template, variables: Variables): PlannedStep[] {
  return planSteps(template, { ...samples, ...variables }, verbs)
}
