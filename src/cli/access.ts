// `login`, `logout`, `whoami` and `ssh-config`. A password is never an argument, where every process of the
// machine could read it: it is asked for without an echo, or read from standard input or SALLYPORT_PASSWORD.
// The one-time code is asked for when the server says that it wants one.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { userInfo } from 'node:os'
import { Writable } from 'node:stream'
import type { CallerJson, IssuedJson, SshDoorJson } from '../api/client-types.ts'
import { createClient } from './client.ts'
import type { Client } from './client.ts'
import { exit } from './command.ts'
import type { Run } from './command.ts'
import { Failure } from './failure.ts'
import { clientOf, flag, text } from './connect.ts'
import { findConnection, localPlace, readLogins, writeLogin } from './place.ts'

export const login: Run = async call => {
  const found = await findConnection(call.config, text(call, 'server'))
  const caFile = text(call, 'ca')
  const local = await localPlace(call.config)
  const known = found.server === local.server ? local.ca : found.ca
  const ca = caFile === undefined ? known : readFileSync(caFile, 'utf8')
  const client = createClient({ server: found.server, ca, token: undefined, as: 'nobody' })
  const oneTime = text(call, 'token')
  const issued = oneTime === undefined
    ? await withPassword(client, await askedFor(call.args[0] ?? userInfo().username))
    : await client.post<IssuedJson>('/redeem', { token: oneTime })
  const { name, roles, token, expiresAt } = issued
  const kept = { server: found.server, user: name, token, expiresAt }
  writeLogin(found.server, ca === undefined ? kept : { ...kept, ca })
  if (call.json) call.out.json({ server: found.server, name, roles, expiresAt })
  else call.out.line(`logged in to ${found.server} as ${name} (${roles.join(', ')}) until ${expiresAt}`)
  return exit.ok
}

export const logout: Run = async call => {
  const connection = await findConnection(call.config, text(call, 'server'))
  const entry = readLogins().find(each => each.server === connection.server)
  if (entry === undefined) throw new Failure(`you are not logged in to ${connection.server}`)
  writeLogin(connection.server, undefined)
  // Forgotten here whatever the server says; a token that it does not know any more is no failure either.
  const client = createClient({ ...connection, token: entry.token, as: 'login' })
  const told = await client.post('/logout', { token: entry.token }).then(() => true, () => false)
  if (call.json) call.out.json({ server: connection.server, done: true, serverTold: told })
  else call.out.line(`logged out of ${connection.server}${told ? '' : ' (the server did not confirm it)'}`)
  return exit.ok
}

export const whoami: Run = async call => {
  const client = await clientOf(call)
  const { name, roles, how } = await client.get<CallerJson>('/whoami')
  const { server } = client.connection
  if (call.json) call.out.json({ name, roles, how, server })
  else call.out.list([['name', name], ['roles', roles.join(', ')], ['how', how], ['server', server]])
  return exit.ok
}

/** What stock ssh needs to reach targets by their own names, believing the authority of the proxy. */
export const sshConfig: Run = async call => {
  const client = await clientOf(call)
  const door = await client.get<SshDoorJson>('/ssh-config')
  const { name, how } = await client.get<CallerJson>('/whoami')
  if (call.json) {
    call.out.json(door)
    return exit.ok
  }
  const { host, port, hostKey, hostAuthority, userAuthority, targets } = door
  if (flag(call, 'user-ca')) {
    call.out.line(userAuthority)
    return exit.ok
  }
  if (flag(call, 'known-hosts')) {
    call.out.line(`[${host}]:${port} ${hostKey}`)
    if (targets.length > 0) call.out.line(`@cert-authority ${targets.join(',')} ${hostAuthority}`)
    return exit.ok
  }
  const user = how === 'local' ? 'YOUR-NAME' : name
  call.out.line(['Host sallyport', `  HostName ${host}`, `  Port ${port}`, `  User ${user}`].join('\n'))
  if (targets.length > 0) call.out.line(`Host ${targets.join(' ')}\n  ProxyJump sallyport`)
  return exit.ok
}

interface Given {
  user: string
  password: string
  code?: string
}

async function withPassword(client: Client, given: Given): Promise<IssuedJson> {
  try {
    return await client.post<IssuedJson>('/login', given)
  } catch (thrown) {
    const wantsCode = thrown instanceof Failure && thrown.code === 'second-factor-required'
    if (!wantsCode || given.code !== undefined || !process.stdin.isTTY) throw thrown
    const code = await ask(`one-time code of ${given.user}: `, process.stderr)
    return client.post<IssuedJson>('/login', { ...given, code })
  }
}

async function askedFor(user: string): Promise<Given> {
  const { SALLYPORT_PASSWORD: password, SALLYPORT_CODE: code } = process.env
  const known = code === undefined ? { user } : { user, code }
  if (password !== undefined) return { ...known, password }
  if (process.stdin.isTTY) return { ...known, password: await askSilently(`password of ${user}: `) }
  const [given = '', second = ''] = readFileSync(0, 'utf8').split('\n').map(line => line.replace(/\r$/, ''))
  if (given === '') throw new Failure('no password on standard input')
  return second === '' ? { ...known, password: given } : { user, password: given, code: second }
}

/** A question to the person at the terminal. */
export async function ask(question: string, output: Writable): Promise<string> {
  const lines = createInterface({ input: process.stdin, output, terminal: true })
  try {
    return await lines.question(question)
  } finally {
    lines.close()
  }
}

async function askSilently(question: string): Promise<string> {
  process.stderr.write(question)
  try {
    return await ask('', new Writable({ write: (_chunk, _encoding, done) => done() }))
  } finally {
    process.stderr.write('\n')
  }
}
