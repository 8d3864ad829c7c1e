// Runs a command line: reads it, loads the one command that it names, and turns what comes of it into text
// and an exit code: 0 done, 1 failed, 2 wrong usage. The commands speak only to the API, so they start
// without the store, the server or a schema; two are an exception, because they are about this machine:
// `serve` is the server, and `doctor` reads the configuration as the server would.
import { readFileSync } from 'node:fs'
import { UsageError, exit, helpOf, overview, parseCommandLine, usageOf } from './command.ts'
import type { Parsed } from './command.ts'
import { commands } from './commands.ts'
import { asFailure } from './failure.ts'
import { createOutput } from './output.ts'
import type { Output, Sink } from './output.ts'

/** Runs one command line (without `node` and the program) and returns its exit code. Never throws. */
export async function run(line: readonly string[], stdout: Sink, stderr: Sink): Promise<number> {
  const out = createOutput(stdout, stderr)
  if (line.includes('--version') && line.length === 1) {
    out.line(version())
    return exit.ok
  }
  let parsed: Parsed
  try {
    parsed = parseCommandLine(commands, line)
  } catch (thrown) {
    return usageFailed(out, thrown as UsageError)
  }
  if (parsed.kind === 'help') {
    out.raw(parsed.command === undefined ? overview(commands, parsed.group) : helpOf(parsed.command))
    return exit.ok
  }
  return carryOut(parsed, out)
}

async function carryOut(
  { command, args, options }: Extract<Parsed, { kind: 'run' }>, out: Output
): Promise<number> {
  const json = options['json'] === true
  const config = typeof options['config'] === 'string' ? options['config'] : undefined
  try {
    const act = await command.load()
    return await act({ args, options, config, json, out })
  } catch (thrown) {
    if (thrown instanceof UsageError) return usageFailed(out, new UsageError(thrown.message, command))
    return failed(out, json, thrown)
  }
}

function usageFailed(out: Output, { message, command }: UsageError): number {
  out.aside(`sallyport: ${message}`)
  const usage = command === undefined ? 'sallyport COMMAND [options]; see sallyport --help' : usageOf(command)
  out.aside(`usage: ${usage}`)
  return exit.usage
}

function failed(out: Output, json: boolean, thrown: unknown): number {
  const { message, code, reference, problems, hint } = asFailure(thrown)
  if (json) out.json({ error: { code, message, reference: reference ?? null, problems, hint: hint ?? null } })
  out.aside(`sallyport: ${message}${reference === undefined ? '' : ` [${code} ${reference}]`}`)
  for (const problem of problems) out.aside(`  ${problem}`)
  if (hint !== undefined) out.aside(`  hint: ${hint}`)
  return exit.failed
}

function version(): string {
  const manifest = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version
}
