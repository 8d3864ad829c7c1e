// Scripts as they are sent: the shell library of this folder, what is known of the account as quoted
// variables, and the steps, each in a subshell of its own. All of it is one compound command, so that a shell
// which got half of it runs nothing. And the report that comes back, read.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SallyportError } from '../../src/errors.ts'
import type { AccountRef, Action, Residue } from '../../src/jit/plugin.ts'
import { quoteShell } from '../../src/jit/shell-text.ts'
import type { Answer } from './link.ts'

/** A step: its name, for when it fails, and shell text. */
export interface Part {
  name: string
  text: string
}

const common = library('common')
const parts = {
  opening: library('opening'), ladder: library('ladder'), look: library('look'), probe: library('probe')
}

// One line for each: comments and indentation stay here.
function library(name: string): string {
  return readFileSync(join(import.meta.dirname, `${name}.sh`), 'utf8')
    .split('\n').filter(line => !/^\s*(?:#|$)/.test(line)).join('\n')
}

/** What Debian, Red Hat, SUSE and Alpine accept alike, with the capitals that some sites have. */
const nameForm = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/
const idForm = /^[A-Za-z0-9._-]{1,100}$/

/** @throws SallyportError('invalid') */
export function assertAccount({ name, accountId }: AccountRef): void {
  if (!nameForm.test(name)) {
    throw new SallyportError('invalid', { detail: 'the name of the account is not one that Linux takes' })
  }
  if (!idForm.test(accountId)) {
    throw new SallyportError('invalid', { detail: 'the id of the account does not fit into its marker' })
  }
}

/** A script about one account. */
export function accountScript(
  account: AccountRef, action: Action | 'look', deadline: number, needs: readonly (keyof typeof parts)[],
  steps: readonly Part[]
): string {
  const variables = {
    name: account.name, id: account.accountId, epoch: String(account.epoch), kind: account.kind, action,
    deadline: String(deadline)
  }
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${quoteShell(value)}`)
  return script([...lines, ...needs.map(need => parts[need])], steps)
}

/** A script about the host. */
export function hostScript(needs: readonly (keyof typeof parts)[], text: string): string {
  const nobody = "name='' id='' epoch=0 kind=create action=look deadline=0"
  return script([nobody, ...needs.map(need => parts[need])], [{ name: '', text }])
}

function script(before: readonly string[], steps: readonly Part[]): string {
  const told = steps.map(({ name, text }) => name === '' ? text : `jit_step ${quoteShell(name)}\n${text}`)
  return [
    '{ exec < /dev/null 3>&1 1>&2', 'set -euf', 'set +f', 'umask 077',
    'PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root', 'export PATH LC_ALL HOME',
    'unset IFS CDPATH ENV',
    'cd /', common, ...before, ...told, 'jit_say end', '}', ''
  ].join('\n')
}

/** Text of a template, kept from the report and from the lock: what it leaves running must not hold them. */
export function foreignPart(name: string, text: string): Part {
  return { name, text: `( exec 3>&- 9>&-\n${text}\n)` }
}

/** A call of a function of the library, every argument quoted. */
export function callPart(name: string, call: string, values: readonly string[] = []): Part {
  return { name, text: [call, ...values.map(quoteShell)].join(' ') }
}

export interface Report {
  /** The script came to its end. */
  ended: boolean
  changed: boolean
  residue: readonly Residue[]
  conflict: string | undefined
  refused: { retryable: boolean, why: string } | undefined
  /** The step that was under way last. */
  step: string
  /** Lines that begin with this word, without it. */
  all(word: string): readonly (readonly string[])[]
}

const fates: readonly string[] = ['removed', 'reassigned', 'left']

export function readReport({ lines }: Answer): Report {
  const all = (word: string): (readonly string[])[] => lines.filter(([first]) => first === word)
    .map(line => line.slice(1))
  const [conflict] = all('conflict').flat()
  const [kind, why] = all('refused')[0] ?? []
  return {
    ended: lines.at(-1)?.[0] === 'end', changed: all('unchanged').length === 0,
    residue: all('residue').map(([what = '', name = '', fate = '']) =>
      ({ kind: what, name, fate: fates.includes(fate) ? fate as Residue['fate'] : 'left' })),
    conflict, refused: kind === undefined ? undefined : { retryable: kind === 'retry', why: why ?? '' },
    step: all('step').at(-1)?.[0] ?? 'begin', all
  }
}
