// What can be said about a template without a host. Problems are steps that this plugin has no use for,
// unknown verbs and options, and roles that nobody declares; advice is what works and hurts: a removal that
// skips a rung, a rule of sudo that is as good as root, a value that a script would run a second time.
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { verbs } from './verbs.ts'

const samples: Variables = {
  username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', public_key: '********'
}

export function lint(template: Template): string[] {
  const problems: string[] = []
  for (const [path, step] of steps(template)) problems.push(...stepProblems(path, step))
  const used = [...template.steps, ...template.undo].map(step => verbs[step.do ?? ''])
  const takesRoles = used.some(verb => verb?.roles === true && verb.call !== 'jit_make_account')
  const declared = template.variables['roles']
  if (takesRoles && declared === undefined) {
    problems.push('variables.roles: a verb takes the groups of this variable: declare it')
  }
  if (declared !== undefined && !declared.list) problems.push('variables.roles: set list: true')
  if (template.action === 'create' && template.steps[0]?.do !== 'make-account') {
    problems.push('steps[0]: must be make-account, which keeps uids from being used twice')
  }
  if (template.injection === 'certificate') {
    if (template.action === 'delete' || template.action === 'disable') {
      problems.push('injection: is for create and enable')
    }
    if (used.some(verb => verb?.call === 'jit_place_key')) {
      problems.push('injection: with a certificate the host gets no key: leave place-key out')
    }
    if (template.proof === 'privileges') {
      problems.push('injection: with proof: privileges the account keeps its own login')
    }
  }
  const sudo = template.steps.some(step => step.do === 'place-sudo-rule' || step.do === 'remove-sudo-rule')
  if (template.proof === 'privileges' && declared === undefined && !sudo) {
    problems.push('proof: privileges looks at the groups in the variable `roles`, or at a sudo rule')
  }
  return problems
}

function stepProblems(path: string, step: Step): string[] {
  const problems: string[] = []
  if (step.sql !== undefined) problems.push(`${path}.sql: a host has no SQL; write script or do`)
  if (step.ignore.length > 0) problems.push(`${path}.ignore: is for sql steps; a script says \`|| true\``)
  if (step.do === undefined) return problems
  const verb = verbs[step.do]
  if (verb === undefined) {
    return [...problems, `${path}.do: there is no ${step.do}; there are ${Object.keys(verbs).join(', ')}`]
  }
  for (const option of Object.keys(step.with)) {
    if (!verb.options.includes(option)) problems.push(`${path}.with.${option}: ${step.do} has no such option`)
  }
  for (const option of verb.required) {
    if (step.with[option] === undefined) problems.push(`${path}.with.${option}: ${step.do} needs it`)
  }
  return problems
}

export function advise(template: Template): string[] {
  const advice: string[] = []
  for (const [path, step] of steps(template)) {
    if (/\beval\b|\b(?:ba|da)?sh\s+-c\b/.test(step.script ?? '')) {
      advice.push(`${path}.script: eval and sh -c read a value as shell text again: pass it as an argument`)
    }
    if (/\b(?:useradd|adduser|userdel|deluser)\b/.test(step.script ?? '')) {
      advice.push(`${path}.script: accounts are made and removed with make-account and remove-account`)
    }
    if (/\bNOPASSWD:\s*ALL\b|\)\s*ALL\s*$/.test(step.with['rule'] ?? '')) {
      advice.push(`${path}.with.rule: this rule is root: its sessions can undo everything that we do`)
    }
  }
  const at = (verb: string): number => template.steps.findIndex(step => step.do === verb)
  const { action, proof, injection } = template
  if (action === 'create' && injection === 'secret' && at('place-key') === -1) {
    advice.push('steps: no place-key: nobody can log in with the key of the session')
  }
  if ((action === 'delete' || action === 'disable') && proof === 'login') {
    const shut = at('refuse-logins')
    if (shut === -1) advice.push('steps: no refuse-logins: new sessions can begin while old ones are ended')
    if (at('end-processes') === -1 || at('end-processes') < shut) {
      advice.push('steps: end processes (end-processes) after refuse-logins: expiry ends none')
    }
  }
  if (action === 'delete') {
    for (const verb of ['remove-jobs', 'hand-over-files', 'remove-account']) {
      if (at(verb) === -1) advice.push(`steps: no ${verb}: what the account left stays`)
    }
  }
  return advice
}

/** What would be sent, secrets masked; names that nobody supplied yet are shown as samples. */
export function plan(template: Template, variables: Variables): PlannedStep[] {
  return template.steps.map(step => {
    const rendered = renderStep(template, step, { ...samples, ...variables }, { masked: true })
    const options = Object.entries(rendered.with).map(([name, value]) => `; ${name}: ${value}`).join('')
    const verb = `${step.do ?? ''}: ${verbs[step.do ?? '']?.plan ?? 'unknown'}${options}`
    return { name: step.name, text: rendered.script ?? verb }
  })
}

function steps({ steps: all, undo }: Template): [string, Step][] {
  return [
    ...all.map((step, index): [string, Step] => [`steps[${index}]`, step]),
    ...undo.map((step, index): [string, Step] => [`undo[${index}]`, step])
  ]
}
