// Verbs of the templates: what each does, the options that it takes, and the call of the shell library that
// it becomes. Options are checked here, before anything is sent; what a template could get wrong and a host
// could not forgive (the order within a rung, links, uids, the marker) is in the library and has no option.
import type { Variables } from '../../src/jit/plugin.ts'
import type { Template } from '../../src/jit/template.ts'
import { UnfitValue } from '../../src/jit/sql-text.ts'

type Options = Readonly<Record<string, string>>

interface Verb {
  /** Takes the list in the variable `roles`. */
  roles?: boolean
  required: readonly string[]
  options: readonly string[]
  /** For a dry run. */
  plan: string
  call: string
  /** @throws UnfitValue */
  values(options: Options, roles: readonly string[]): readonly string[]
}

const dayMs = 86_400_000
const groupForm = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/
const pathForm = /^(?:\/[A-Za-z0-9_][A-Za-z0-9_.+-]*)+$/
const keyForm = /^(?:ssh-[a-z0-9-]+|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+=*$/
// Words with an optional quoted value, as in authorized_keys; `restrict` first: it takes what is not named.
const keyOptionsForm = /^restrict(?:,[a-z0-9-]+(?:="[A-Za-z0-9_.:\/*?!, @=-]*")?)*$/
// What may follow the account in a rule of sudoers: printable, on one line.
const sudoForm = /^[A-Za-z0-9_][\x20-\x7e]{0,1000}$/

export const verbs: Readonly<Record<string, Verb>> = {
  'make-account': {
    roles: true, required: ['until'], options: ['until', 'shell', 'home'], call: 'jit_make_account',
    plan: 'makes it with a uid and a group that were never used, a home, no password and a last day',
    values: ({ until, shell = '/bin/bash', home = '/home' }, roles) =>
      [fit(shell, pathForm, 'shell'), fit(home, pathForm, 'home'), lastDay(until), words(roles)]
  },
  'place-key': {
    required: ['key', 'until'], options: ['key', 'until', 'options'], call: 'jit_place_key',
    plan: 'puts its key into /etc/ssh/jit_keys, where only root writes',
    values: ({ key, until, options = 'restrict,pty' }) =>
      [fit(options, keyOptionsForm, 'options'), fit(key, keyForm, 'key'), seconds(until)]
  },
  'allow-logins': {
    required: ['until'], options: ['until'], call: 'jit_allow_logins',
    plan: 'sets its last day', values: ({ until }) => [lastDay(until)]
  },
  'add-to-groups': {
    roles: true, required: [], options: [], call: 'jit_add_to_groups',
    plan: 'makes it a member of its roles', values: (_options, roles) => [words(roles)]
  },
  'place-sudo-rule': {
    required: ['rule'], options: ['rule'], call: 'jit_place_sudo',
    plan: 'puts its rule into /etc/sudoers.d, after visudo has read it',
    values: ({ rule }) => [fit(rule, sudoForm, 'rule')]
  },
  'refuse-logins': {
    required: [], options: [], call: 'jit_refuse_logins',
    plan: 'expires it, which stops password, key, cron and at, and takes its key away', values: () => []
  },
  'end-processes': {
    required: [], options: ['seconds'], call: 'jit_end_processes',
    plan: 'freezes and kills what runs with its uid or began with its login, until two looks find none',
    values: ({ seconds: limit = '8' }) => [fit(limit, /^[1-9][0-9]?$/, 'seconds')]
  },
  'remove-jobs': {
    required: [], options: [], call: 'jit_remove_jobs',
    plan: 'takes away crontab, at jobs, sudo rules, shared memory', values: () => []
  },
  'hand-over-files': {
    required: [], options: ['seconds'], call: 'jit_hand_over_files',
    plan: 'gives its files outside of its home to a uid that nobody has, without setuid bits, and lists them',
    values: ({ seconds: limit = '8' }) => [fit(limit, /^[1-9][0-9]?$/, 'seconds')]
  },
  'remove-account': {
    required: [], options: [], call: 'jit_remove_account',
    plan: 'removes home, account and group', values: () => []
  },
  'take-from-groups': {
    roles: true, required: [], options: [], call: 'jit_take_from_groups',
    plan: 'takes it out of its roles', values: (_options, roles) => [words(roles)]
  },
  'remove-sudo-rule': {
    required: [], options: [], call: 'jit_remove_sudo', plan: 'takes its sudo rule away', values: () => []
  }
}

/** The list in the variable `roles`, or its default. */
export function rolesOf(template: Template, variables: Variables): readonly string[] {
  const roles = variables['roles'] ?? template.variables['roles']?.default
  return Array.isArray(roles) ? roles.map(String) : []
}

function fit(value: string | undefined, form: RegExp, name: string): string {
  if (value !== undefined && form.test(value)) return value
  throw new UnfitValue(`the option ${name} is not one that this verb takes`)
}

function words(roles: readonly string[]): string {
  if (roles.every(role => groupForm.test(role))) return roles.join(' ')
  throw new UnfitValue('a role is not the name of a group')
}

function seconds(until: string | undefined): string {
  const atMs = Date.parse(until ?? '')
  if (Number.isNaN(atMs)) throw new UnfitValue('the option until is no time')
  return String(Math.ceil(atMs / 1000))
}

/** Accounts end with whole days of UTC, at the beginning of the one that is named: hence the next. */
function lastDay(until: string | undefined): string {
  const atMs = Date.parse(until ?? '')
  if (Number.isNaN(atMs)) throw new UnfitValue('the option until is no time')
  return String(Math.floor(atMs / dayMs) + 1)
}
