// What a command is, and how a command line becomes one: a table of words, options and a function that is
// loaded only when its command runs, over `parseArgs` of Node. Everything that is wrong with a command line
// ends here, with one sentence, the usage and exit code 2, before anything was done.
import { parseArgs } from 'node:util'
import type { Output } from './output.ts'

export interface Option {
  type: 'string' | 'boolean'
  short?: string
  /** What stands for the value in the help: `FILE`. */
  value?: string
  describe: string
}

/** What a command gets. */
export interface Invocation {
  args: readonly string[]
  options: Readonly<Record<string, string | boolean | undefined>>
  /** The configuration file that was named with `--config`. */
  config: string | undefined
  json: boolean
  out: Output
}

/** Exit codes of every command. */
export const exit = { ok: 0, failed: 1, usage: 2 } as const

export type Run = (call: Invocation) => Promise<number>

export interface Command {
  /** `['sessions', 'list']`. */
  words: readonly string[]
  /** As in the help: `KIND [NAME]`. Capitals are required, brackets optional; `WORD…` is one or more. */
  args: string
  summary: string
  /** More lines for its own help. */
  details?: readonly string[]
  options?: Readonly<Record<string, Option>>
  load(): Promise<Run>
}

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
  readonly command: Command | undefined

  constructor(message: string, command?: Command) {
    super(message)
    this.command = command
  }
}

export const commonOptions: Readonly<Record<string, Option>> = {
  json: { type: 'boolean', describe: 'print JSON for programs instead of text for people' },
  config: { type: 'string', value: 'FILE', describe: 'the configuration (default: sallyport.yaml here)' },
  help: { type: 'boolean', short: 'h', describe: 'print this' }
}

export type Parsed =
  | { kind: 'help', command: Command | undefined, group: string | undefined }
  | { kind: 'run', command: Command, args: string[], options: Invocation['options'] }

/** Reads a command line (without `node` and the program); throws UsageError. Options may stand anywhere. */
export function parseCommandLine(commands: readonly Command[], line: readonly string[]): Parsed {
  const { positionals, values } = parseLoosely(commands, line)
  const asksHelp = values['help'] === true || positionals[0] === 'help'
  const spoken = positionals[0] === 'help' ? positionals.slice(1) : positionals
  const command = commands.find(each => each.words.every((word, at) => spoken[at] === word))
  if (command === undefined) return withoutCommand(commands, spoken, asksHelp)
  if (asksHelp) return { kind: 'help', command, group: undefined }
  const options = parseOptions(command, line)
  const args = spoken.slice(command.words.length)
  checkArguments(command, args)
  return { kind: 'run', command, args, options }
}

// Which command it is must be known before its options are: so first with the options of all.
function parseLoosely(
  commands: readonly Command[], line: readonly string[]
): { positionals: string[], values: Record<string, unknown> } {
  const all: Record<string, Option> = { ...commonOptions }
  for (const { options } of commands) Object.assign(all, options)
  return parseArgs({ args: [...line], options: typesOf(all), allowPositionals: true, strict: false })
}

function withoutCommand(commands: readonly Command[], spoken: readonly string[], asksHelp: boolean): Parsed {
  const [first] = spoken
  if (first === undefined) {
    if (asksHelp) return { kind: 'help', command: undefined, group: undefined }
    throw new UsageError('say what to do')
  }
  const group = commands.filter(each => each.words[0] === first && each.words.length > 1)
  if (group.length > 0 && (asksHelp || spoken.length === 1)) {
    if (asksHelp) return { kind: 'help', command: undefined, group: first }
    throw new UsageError(`${first}: one of ${group.map(each => each.words[1]).join(', ')}`)
  }
  const words = spoken.slice(0, group.length > 0 ? 2 : 1).join(' ')
  throw new UsageError(`there is no command ${JSON.stringify(words)}`)
}

function parseOptions(command: Command, line: readonly string[]): Invocation['options'] {
  const options = typesOf({ ...command.options, ...commonOptions })
  try {
    return parseArgs({ args: [...line], options, allowPositionals: true, strict: true }).values
  } catch (thrown) {
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    const [first = message] = message.split(/\. |\n/)
    throw new UsageError(first.charAt(0).toLowerCase() + first.slice(1), command)
  }
}

function typesOf(options: Readonly<Record<string, Option>>): Record<string, Pick<Option, 'type' | 'short'>> {
  return Object.fromEntries(Object.entries(options).map(([name, { type, short }]) =>
    [name, { type, ...(short === undefined ? {} : { short }) }]))
}

function checkArguments(command: Command, args: readonly string[]): void {
  const places = command.args.split(' ').filter(place => place !== '')
  const required = places.filter(place => !place.startsWith('['))
  if (args.length < required.length) throw new UsageError(`${required[args.length]} is missing`, command)
  // `[WORD…]` and `WORD…`: the words of another program, whatever they are.
  const isOpen = /…\]?$/.test(places.at(-1) ?? '')
  if (args.length > places.length && !isOpen) {
    throw new UsageError(`unexpected argument ${JSON.stringify(args[places.length])}`, command)
  }
  for (const [at, arg] of args.slice(0, isOpen ? places.length - 1 : undefined).entries()) {
    if (arg === '') throw new UsageError(`${places[at]} is empty`, command)
  }
}

/** `sallyport sessions list [options]`. */
export function usageOf(command: Command): string {
  const args = command.args === '' ? '' : ` ${command.args}`
  return `sallyport ${command.words.join(' ')}${args} [options]`
}

/** The help of one command. */
export function helpOf(command: Command): string {
  const options = Object.entries({ ...command.options, ...commonOptions })
  const heads = options.map(([name, { short, value }]) =>
    `${short === undefined ? '    ' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`)
  const width = Math.max(...heads.map(head => head.length))
  const lines = options.map(([, { describe }], at) => `  ${heads[at]!.padEnd(width)}  ${describe}`)
  return [
    usageOf(command), '', sentence(command.summary), ...(command.details ?? []), '', ...lines, ''
  ].join('\n')
}

/** The list of all commands, or of those that begin with a word. */
export function overview(commands: readonly Command[], group: string | undefined): string {
  const shown = commands.filter(({ words }) => group === undefined || words[0] === group)
  const heads = shown.map(({ words, args }) => `${words.join(' ')}${args === '' ? '' : ` ${args}`}`)
  const width = Math.max(...heads.map(head => head.length))
  return [
    'sallyport COMMAND [options]', '',
    ...shown.map(({ summary }, at) => `  ${heads[at]!.padEnd(width)}  ${summary}`), '',
    'Every command has --json, --config FILE and --help.',
    'Exit codes: 0 done, 1 failed, 2 wrong usage.', ''
  ].join('\n')
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
}
