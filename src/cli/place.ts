// Where the server is and as whom to speak to it, found without loading anything heavy. In this order: what
// the environment says (SALLYPORT_SERVER, SALLYPORT_TOKEN, SALLYPORT_CA), a login of this person at that
// server, and on the serving machine the owner-only file of the data folder, which makes the caller its
// local admin.
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { systemClock } from '../clock.ts'
import { Failure } from './failure.ts'

const defaultConfigFile = 'sallyport.yaml'
const defaultHttp = '127.0.0.1:8443'

/**
 * What of the configuration says where things are; the server's own reading (src/config.ts) checks the
 * rest.
 */
export interface Local {
  data: string
  /** `https://host:port` as this machine reaches it. */
  server: string
  /** The local admin's token, where it can be read. */
  token: string | undefined
  /** PEM of the authority that signs the server's certificate. */
  ca: string | undefined
}

export interface Login {
  server: string
  user: string
  token: string
  /** ISO 8601. */
  expiresAt: string
  ca?: string | undefined
}

export interface Connection {
  server: string
  ca: string | undefined
  token: string | undefined
  /** Words for messages: where the token comes from. */
  as: 'environment' | 'login' | 'local admin' | 'nobody'
}

/**
 * Reads where this machine's server keeps its things; throws Failure when the file is no YAML or is
 * missing.
 */
export async function localPlace(config: string | undefined): Promise<Local> {
  const file = resolve(config ?? defaultConfigFile)
  const read = await readLoosely(file, config !== undefined)
  const data = resolve(dirname(file), typeof read['data'] === 'string' ? read['data'] : './data')
  const http = (read['listen'] as Record<string, unknown> | undefined)?.['http']
  const [token, address] = (readQuietly(join(data, 'local-admin.token')) ?? '').split('\n')
  const server = address?.startsWith('https://') === true ? address : `https://${asText(http)}`
  return {
    data, server: reachable(server), token: token === '' ? undefined : token,
    ca: readQuietly(join(data, 'tls', 'ca.pem'))
  }
}

async function readLoosely(file: string, named: boolean): Promise<Record<string, unknown>> {
  if (!existsSync(file)) {
    if (named) throw new Failure(`there is no configuration file ${file}`)
    return {}
  }
  const { parse } = await import('yaml')
  try {
    const read: unknown = parse(readFileSync(file, 'utf8'))
    return typeof read === 'object' && read !== null ? read as Record<string, unknown> : {}
  } catch (thrown) {
    throw new Failure(`${file} is no YAML: ${(thrown as Error).message.split('\n')[0]}`)
  }
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : defaultHttp
}

// A server that listens on every address is reached on the one that never leaves the machine.
function reachable(server: string): string {
  return server.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:')
}

function readQuietly(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** Decides how to connect; `wanted` is `--server`. */
export async function findConnection(
  config: string | undefined, wanted: string | undefined, environment: NodeJS.ProcessEnv = process.env
): Promise<Connection> {
  const { SALLYPORT_SERVER: server, SALLYPORT_TOKEN: token, SALLYPORT_CA: caFile } = environment
  const ca = caFile === undefined ? undefined : readFileSync(caFile, 'utf8')
  const local = await localPlace(config)
  const asked = wanted ?? server
  if (token !== undefined && token !== '') {
    return { server: asked ?? local.server, ca: ca ?? local.ca, token, as: 'environment' }
  }
  const logins = readLogins(environment)
  const here = asked === undefined || asked === local.server
  const login = findLogin(logins, asked ?? local.server)
  if (login !== undefined) {
    const trusted = ca ?? login.ca ?? (here ? local.ca : undefined)
    return { server: login.server, ca: trusted, token: login.token, as: 'login' }
  }
  if (here && local.token !== undefined) {
    return { server: local.server, ca: ca ?? local.ca, token: local.token, as: 'local admin' }
  }
  // Nothing runs here: whoever has logged in somewhere else means that place.
  const [latest] = logins.filter(isValid)
  if (asked === undefined && local.ca === undefined && latest !== undefined) {
    return { server: latest.server, ca: ca ?? latest.ca, token: latest.token, as: 'login' }
  }
  const trusted = ca ?? (here ? local.ca : undefined)
  return { server: asked ?? local.server, ca: trusted, token: undefined, as: 'nobody' }
}

// ---- logins of this person, newest first, in one file of theirs

function loginFile(environment: NodeJS.ProcessEnv): string {
  const { XDG_CONFIG_HOME: given = '' } = environment
  // Empty is the same as not set.
  const base = given !== '' ? given : join(environment['HOME'] ?? homedir(), '.config')
  return join(base, 'sallyport', 'logins.json')
}

export function readLogins(environment: NodeJS.ProcessEnv = process.env): Login[] {
  const text = readQuietly(loginFile(environment))
  if (text === undefined) return []
  try {
    const read: unknown = JSON.parse(text)
    return Array.isArray(read) ? read as Login[] : []
  } catch {
    return []
  }
}

export function findLogin(logins: readonly Login[], server: string): Login | undefined {
  return logins.find(login => login.server === server && isValid(login))
}

function isValid({ expiresAt }: Login): boolean {
  return Date.parse(expiresAt) > systemClock.now().getTime()
}

/** Replaces the login at a server, or takes it away; the file is its owner's only. */
export function writeLogin(
  server: string, login: Login | undefined, environment: NodeJS.ProcessEnv = process.env
): void {
  const file = loginFile(environment)
  const others = readLogins(environment).filter(each => each.server !== server && isValid(each))
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const fresh = `${file}.${process.pid}`
  const logins = login === undefined ? others : [login, ...others]
  writeFileSync(fresh, JSON.stringify(logins, null, 2), { mode: 0o600 })
  chmodSync(fresh, 0o600)
  renameSync(fresh, file)
}
