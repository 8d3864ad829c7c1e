// What can be said about a template without a target. Problems are statements that cannot work within a
// fenced transaction, unknown verbs, and passwords in clear; advice is what works and hurts: rights that make
// a session's account stronger than its proxy, a GRANT where IN ROLE would do, a removal that skips a rung.
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { ownVariables } from './run.ts'
import { verbs } from './verbs.ts'

/**
 * Statements that end, open or escape the transaction that carries the fence, or wait for data of a client.
 */
const misfits = new RegExp('^(?:' + [
  'begin', 'start', 'commit', 'end', 'abort', 'rollback', 'savepoint', 'release', 'prepare', 'discard',
  'listen', 'unlisten', 'copy', 'vacuum', 'checkpoint', 'reset', 'cluster',
  'set\\s+(?:session\\s+)?(?:authorization|role)'
].join('|') + ')\\b', 'i')
const notInTransaction = /^(?:create|drop|alter)\s+(?:database|tablespace|system)\b/i
const strong = ['SUPERUSER', 'CREATEROLE', 'CREATEDB', 'REPLICATION', 'BYPASSRLS']
const hostRoles = /\bpg_(?:execute_server_program|read_server_files|write_server_files)\b/i

const samples: Variables = {
  username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', verifier: '********'
}

export function lint(template: Template): string[] {
  const problems: string[] = []
  for (const [path, step] of steps(template)) {
    const verb = step.do === undefined ? undefined : verbs[step.do]
    if (step.do !== undefined && verb === undefined) {
      problems.push(`${path}.do: there is no ${step.do}; there are ${Object.keys(verbs).join(', ')}`)
    }
    for (const option of Object.keys(step.with)) {
      if (verb !== undefined && !verb.options.includes(option)) {
        problems.push(`${path}.with.${option}: ${step.do} has no such option`)
      }
    }
    if (step.script !== undefined) problems.push(`${path}.script: PostgreSQL has no shell; write sql or do`)
    if (step.sql !== undefined) {
      problems.push(...sqlProblems(step.sql).map(problem => `${path}.sql: ${problem}`))
    }
  }
  const first = template.steps[0]
  if (template.action === 'create' && (first?.sql === undefined || first.eachDatabase)) {
    problems.push('steps[0]: the role must be made by the first statements')
  }
  if (template.proof === 'privileges' && !Object.hasOwn(template.variables, 'roles')) {
    problems.push('variables.roles: `proof: privileges` looks at the roles of this variable: declare it')
  }
  return problems
}

function sqlProblems(sql: string): string[] {
  const text = words(sql)
  const problems: string[] = []
  if (misfits.test(text)) {
    const word = text.split(/\s/, 1)[0]?.toUpperCase()
    problems.push(`${word} is not for a step: each group of steps is one transaction`)
  }
  if (notInTransaction.test(text)) problems.push('this statement does not run within a transaction')
  const ofRole = /^(?:create|alter)\s+(?:role|user|group)\b/i.test(text)
  for (const [, value] of (ofRole ? text : '').matchAll(/\bpassword\s+(\S+)/gi)) {
    if (value !== 'HOLE:verifier' && !/^null\b/i.test(value ?? '')) {
      problems.push(
        'PASSWORD takes {{ verifier | literal }} or NULL: a clear password would be in the log of the target'
      )
    }
  }
  return problems
}

export function advise(template: Template): string[] {
  const advice: string[] = []
  const everything = template.steps.map(step => step.sql ?? '').map(words)
  for (const [path, step] of steps(template)) {
    const text = words(step.sql ?? '')
    for (const word of strong) {
      if (new RegExp(`\\b${word}\\b`, 'i').test(text)) {
        advice.push(`${path}.sql: ${word} lets the account outlive or escape its session`)
      }
    }
    if (hostRoles.test(text)) {
      advice.push(`${path}.sql: this role reaches the files or programs of the target's host`)
    }
    if (template.action === 'create' && /^grant\b/i.test(text)) {
      advice.push(
        `${path}.sql: GRANT collides when many sessions start at once; give roles with IN ROLE in CREATE ROLE`
      )
    }
  }
  const does = (verb: string): number => template.steps.findIndex(step => step.do === verb)
  const says = (form: RegExp): number => everything.findIndex(text => form.test(text))
  if (template.action === 'create') {
    if (says(/\bvalid\s+until\b/i) === -1) {
      advice.push('steps: no VALID UNTIL: nothing ends logins if all of us are gone')
    }
    if (says(/\bconnection\s+limit\b/i) === -1) advice.push('steps: no CONNECTION LIMIT')
  }
  const closing = template.action === 'delete' || template.action === 'disable'
  if (closing && template.proof === 'login') {
    const shut = says(/\bnologin\b/i)
    if (shut === -1) advice.push('steps: no NOLOGIN: new sessions can begin while the old ones are ended')
    if (does('terminate-sessions') === -1 || does('terminate-sessions') < shut) {
      advice.push(
        'steps: end sessions (terminate-sessions) after NOLOGIN: neither NOLOGIN nor DROP ROLE ends one'
      )
    }
    if (does('wait-for-none') === -1) advice.push('steps: no wait-for-none: a session may still be ending')
  }
  if (template.action === 'delete' && does('clean-databases') === -1) {
    advice.push('steps: no clean-databases: DROP ROLE fails as soon as the account owns something')
  }
  return advice
}

/** What would be sent, secrets masked; names that nobody supplied yet are shown as samples. */
export function plan(template: Template, variables: Variables): PlannedStep[] {
  const known = { ...samples, ...variables, ...ownVariables }
  return template.steps.map(step => {
    const rendered = renderStep(template, step, known, { masked: true })
    const options = Object.entries(rendered.with).map(([name, value]) => `; ${name}: ${value}`).join('')
    const verb = `${step.do ?? ''}: ${verbs[step.do ?? '']?.plan ?? 'unknown'}${options}`
    const where = step.eachDatabase ? ' -- in every database' : ''
    return { name: step.name, text: rendered.sql === undefined ? verb : `${rendered.sql.trim()}${where}` }
  })
}

function steps({ steps: all, undo }: Template): [string, Step][] {
  return [
    ...all.map((step, index): [string, Step] => [`steps[${index}]`, step]),
    ...undo.map((step, index): [string, Step] => [`undo[${index}]`, step])
  ]
}

/** A statement as words: strings, quoted names and comments gone, holes as one word each. */
function words(sql: string): string {
  return sql
    .replaceAll(/\{%.*?%\}/gs, ' ')
    .replaceAll(/\{\{\s*([a-z0-9_]+)\s*\|\s*(?:literal|ident|identlist)\s*\}\}/g, 'HOLE:$1')
    .replaceAll(/\{\{.*?\}\}/gs, 'BARE')
    .replaceAll(/--[^\n]*/g, ' ').replaceAll(/\/\*.*?\*\//gs, ' ')
    .replaceAll(/'(?:[^']|'')*'/g, "''").replaceAll(/"(?:[^"]|"")*"/g, '""')
    .trim()
}
