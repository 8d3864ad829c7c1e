// `doctor`: whether everything is in order, also when the server is down or the configuration is what is
// wrong. The part that this machine can see by itself is looked at here; the rest (store, targets and
// missing rights, clock) is asked of the server. Every finding is a sentence, and one that is not in order
// says what to do.
import { existsSync, readdirSync, statSync, statfsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { CheckJson } from '../api/client-types.ts'
import type { Config } from '../config.ts'
import { createClient } from './client.ts'
import { exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { text } from './connect.ts'
import { asFailure } from './failure.ts'
import { bytesText } from './output.ts'
import { findConnection } from './place.ts'

const nodeMajorMin = 24

export const doctor: Run = async call => {
  const checks: CheckJson[] = [nodeCheck(process.versions.node)]
  const config = await configCheck(call, checks)
  const server = await serverChecks(call)
  if (config !== undefined) {
    checks.push(...fileChecks(config), ...diskChecks(config), ...await portChecks(config, server.running))
  }
  checks.push(...server.checks)
  const healthy = checks.every(check => check.status !== 'failed')
  if (call.json) call.out.json({ healthy, checks })
  else {
    for (const { name, status, detail } of checks) call.out.line(`${status.padEnd(7)}  ${name}: ${detail}`)
    call.out.line(healthy ? 'everything is in order' : 'not in order')
  }
  return healthy ? exit.ok : exit.failed
}

function check(name: string, status: CheckJson['status'], detail: string): CheckJson {
  return { name, status, detail }
}

export function nodeCheck(version: string): CheckJson {
  if (Number(version.split('.')[0]) >= nodeMajorMin) return check('node', 'ok', version)
  return check('node', 'failed', `${version}: Node ${nodeMajorMin} or later is needed`)
}

async function configCheck(call: Invocation, checks: CheckJson[]): Promise<Config | undefined> {
  const { readConfig } = await import('../config.ts')
  try {
    const config = readConfig(call.config)
    checks.push(check('configuration', 'ok', config.file ?? 'no file: defaults'))
    return config
  } catch (thrown) {
    const { message, problems } = asFailure(thrown)
    checks.push(check('configuration', 'failed', [message, ...problems].join('; ')))
    return undefined
  }
}

/** Keys are for their owner alone; the folders around them too. */
export function fileChecks(config: Config): CheckJson[] {
  const { data, masterKey } = config
  if (!existsSync(data)) return [check('data folder', 'warning', `${data} is not there yet: serve makes it`)]
  const guarded = [data, join(data, 'local-admin.token'), ...keysIn(join(data, 'tls')), ...keysIn(data)]
  if (masterKey.kind === 'file') guarded.push(masterKey.file)
  const found: CheckJson[] = []
  for (const path of new Set(guarded.filter(existsSync))) {
    const { mode, uid } = statSync(path)
    const open = `${path} can be read by others: chmod go= ${path}`
    if ((mode & 0o077) !== 0) found.push(check('file modes', 'failed', open))
    const foreign = uid !== (process.getuid?.() ?? 0)
    if (foreign) found.push(check('file owners', 'warning', `${path} belongs to another user than you`))
  }
  if (found.length > 0) return found
  return [check('file modes', 'ok', `${data} and its keys are for their owner alone`)]
}

function keysIn(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder).filter(name => name.includes('key')).map(name => join(folder, name))
}

function diskChecks(config: Config): CheckJson[] {
  const { directory } = config.recordings
  if (!existsSync(directory)) return [check('disk', 'warning', `${directory} is not there: serve makes it`)]
  const { bavail, bsize } = statfsSync(directory)
  const free = bavail * bsize
  const reserve = config.limits.recordingsReserve
  const words = `${bytesText(free)} free for recordings, ${bytesText(reserve)} are kept in reserve`
  if (free < reserve) return [check('disk', 'failed', `${words}: no session starts`)]
  return [check('disk', free < reserve * 2 ? 'warning' : 'ok', words)]
}

async function portChecks(config: Config, running: boolean): Promise<CheckJson[]> {
  const checks: CheckJson[] = []
  for (const [name, address] of Object.entries(config.listen)) {
    if (address === undefined || address.port === 0 || running) continue
    const reason = await whyNotFree(address)
    const words = `${address.host}:${address.port}`
    checks.push(reason === undefined
      ? check(`port ${name}`, 'ok', `${words} is free`)
      : check(`port ${name}`, 'failed', `${words} cannot be listened on (${reason})`))
  }
  return checks
}

function whyNotFree({ host, port }: { host: string, port: number }): Promise<string | undefined> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', thrown => resolve((thrown as NodeJS.ErrnoException).code ?? thrown.message))
    server.listen(port, host, () => server.close(() => resolve(undefined)))
  })
}

async function serverChecks(call: Invocation): Promise<{ running: boolean, checks: CheckJson[] }> {
  try {
    const client = createClient(await findConnection(call.config, text(call, 'server')))
    const { server } = client.connection
    const { status, version } = await client.get('/health')
    const words = `${server} runs ${version} and is ${status}`
    const found = check('server', status === 'ready' ? 'ok' : 'failed', words)
    return { running: true, checks: [found, ...await examined(client)] }
  } catch (thrown) {
    const { message, code, hint } = asFailure(thrown)
    const words = hint === undefined ? message : `${message}: ${hint}`
    return { running: code !== 'unreachable', checks: [check('server', 'failed', words)] }
  }
}

async function examined(client: ReturnType<typeof createClient>): Promise<CheckJson[]> {
  try {
    return (await client.get('/doctor')).checks
  } catch (thrown) {
    const { message, hint } = asFailure(thrown)
    return [check('store and targets', 'failed', hint === undefined ? message : `${message}: ${hint}`)]
  }
}
