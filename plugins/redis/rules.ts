// What an account may do on Redis, as a template's lists say it: commands, keys and channels, one rule an
// item. A rule is one word of a known form, so that no value can bring a second one. An account that could
// change ACLs or settings would outlive its session: what a template openly asks for is refused at save, and
// what it really got is asked of the server (ACL DRYRUN) before anybody can log in.
import { SallyportError } from '../../src/errors.ts'
import { listOf } from '../steps.ts'
import type { Rung } from '../steps.ts'

const commandForm = /^[+-](?:@[a-z]{1,40}|[a-z0-9._|-]{1,80})$/
const patternForm = /^[\x21-\x7e]{1,512}$/
const keyMark = /^(?:~|%[RW]{1,2}~)/

/** Categories and commands with which an account could make itself stay. */
const strong = [
  '@all', '@admin', '@dangerous', 'acl', 'config', 'module', 'debug', 'replicaof', 'slaveof',
  'failover', 'cluster', 'shutdown', 'migrate'
]
/** What takes all of them away again. */
const cures = ['-@all', '-@admin', '-@dangerous']

/** Commands that no account may have, in a form that the server can judge without carrying them out. */
export const forbidden: readonly (readonly string[])[] = [
  ['ACL', 'SETUSER', 'x'], ['ACL', 'LOAD'], ['CONFIG', 'SET', 'x', 'y'], ['MODULE', 'LOAD', 'x'],
  ['DEBUG', 'SLEEP', '0'], ['REPLICAOF', 'NO', 'ONE'], ['SHUTDOWN']
]

/** Those of the rules that reach too far, in their order. */
export function tooStrong(commands: readonly string[]): string[] {
  let found: string[] = []
  for (const rule of commands.map(one => one.toLowerCase())) {
    if (cures.includes(rule)) found = []
    else if (strong.includes(rule.slice(1).split('|', 1)[0] ?? '') && rule.startsWith('+')) found.push(rule)
  }
  return found
}

/** The lists of the template as words of ACL SETUSER. @throws SallyportError('invalid') */
export function rulesOf(rung: Pick<Rung, 'template' | 'variables'>): string[] {
  const commands = listOf(rung, 'commands')
  const refuse = (name: string): never => {
    throw new SallyportError('invalid', { detail: `${name}: an item is not one rule` })
  }
  for (const rule of commands) if (!commandForm.test(rule)) refuse('commands')
  const [word] = tooStrong(commands)
  if (word !== undefined) {
    throw new SallyportError('invalid', { detail: `commands: ${word} lets the account outlive its session` })
  }
  const patterns = (name: string, mark: string, has: RegExp): string[] => listOf(rung, name).map(pattern => {
    if (!patternForm.test(pattern)) refuse(name)
    return has.test(pattern) ? pattern : `${mark}${pattern}`
  })
  return [...patterns('keys', '~', keyMark), ...patterns('channels', '&', /^&/), ...commands]
}
