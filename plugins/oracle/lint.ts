// What can be said about an Oracle template without a server. Its text was checked as Oracle's SQL already
// (src/jit/sql-dialect.ts); here is what a step must not say, because the plugin owns it or because it is no
// SQL, and what works and hurts.
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import type { Template } from '../../src/jit/template.ts'
import { orderAdvice, planSteps, stepsOf, verbProblems, withoutHoles } from '../steps.ts'
import { verbs } from './verbs.ts'

const misfits = new RegExp('^(?:' + [
  'begin', 'declare', 'call', 'exec', 'execute', 'commit', 'rollback', 'savepoint', 'set', 'lock', 'connect',
  'alter\\s+session', 'alter\\s+system', 'shutdown', 'startup'
].join('|') + ')\\b', 'i')
const strong = new RegExp('\\b(?:' + [
  'dba', 'sysdba', 'alter user', 'alter system', 'grant any', 'create any', 'become user',
  'exempt access policy'
].join('|') + ')\\b', 'i')

export function lint(template: Template): string[] {
  const problems = verbProblems(template, verbs, 'Oracle')
  for (const [path, { sql, with: options, do: verb }] of stepsOf(template)) {
    if (verb === 'drop-user' && !['yes', 'no', undefined].includes(options['cascade'])) {
      problems.push(`${path}.with.cascade: must be yes or no`)
    }
    if (sql === undefined) continue
    const text = withoutHoles(sql).trim()
    const found = misfits.exec(text)
    if (found !== null) problems.push(`${path}.sql: ${found[0].toUpperCase()} is not for a step`)
    if (/\bidentified\s+by\s+(?:HOLE\b|[^v"\s])/i.test(text)) {
      problems.push(`${path}.sql: write IDENTIFIED BY VALUES {{ verifier | literal }}, or "{{ password }}"`)
    }
  }
  return problems
}

export function advise(template: Template): string[] {
  const advice = orderAdvice(template, 'drop-user')
  for (const [path, { sql = '', with: options }] of stepsOf(template)) {
    const text = withoutHoles(sql)
    if (/^\s*grant\b/i.test(text) && strong.test(text)) {
      advice.push(`${path}.sql: with these rights a session can undo everything that we do`)
    }
    if (/\bidentified\s+by\s+"/i.test(text)) {
      advice.push(`${path}.sql: the password travels and is audited as it is: use TLS`)
    }
    if (/^\s*create\s+user\b/i.test(text) && !/\bprofile\s+sallyport_jit\b/i.test(text)) {
      advice.push(`${path}.sql: CREATE USER without PROFILE sallyport_jit is not known for ours`)
    }
    if (options['cascade'] === 'yes') advice.push(`${path}: CASCADE destroys whatever the account made`)
  }
  return advice
}

const samples: Variables = {
  username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', verifier: '********', password: 'masked'
}

export function plan(template: Template, variables: Variables): PlannedStep[] {
  return planSteps(template, { ...samples, ...variables }, verbs)
}
