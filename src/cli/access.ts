// `login`, `logout`, `whoami` and `ssh-config`. Without a name the login is confirmed in the console, by
// whatever proves a person there; the program only waits. A password or the first token is never an argument,
// where every process of the machine could read it: it is asked for without an echo, or read from standard
// input or the environment. The one-time code is asked for when the server says that it wants one.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { hostname, userInfo } from 'node:os'
import { Writable } from 'node:stream'
import type { IssuedJson } from '../api/client-types.ts'
import { createClient } from './client.ts'
import type { Client } from './client.ts'
import { pause } from '../clock.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { Failure } from './failure.ts'
import { clientOf, flag, text } from './connect.ts'
import { findConnection, localPlace, readLogins, writeLogin } from './place.ts'

/** What a server means by "slow down". */
const slowerSeconds = 5

export const login: Run = async call => {
  const found = await findConnection(call.config, text(call, 'server'))
  const caFile = text(call, 'ca')
  const local = await localPlace(call.config)
  const known = found.server === local.server ? local.ca : found.ca
  const ca = caFile === undefined ? known : readFileSync(caFile, 'utf8')
  const client = createClient({ server: found.server, ca, token: undefined, as: 'nobody' })
  const issued = await logIn(call, client)
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
  const told = await client.post('/logout', { body: { token: entry.token } }).then(() => true, () => false)
  if (call.json) call.out.json({ server: connection.server, done: true, serverTold: told })
  else call.out.line(`logged out of ${connection.server}${told ? '' : ' (the server did not confirm it)'}`)
  return exit.ok
}

export const whoami: Run = async call => {
  const client = await clientOf(call)
  const { name, roles, how } = await client.get('/whoami')
  const { server } = client.connection
  if (call.json) call.out.json({ name, roles, how, server })
  else call.out.list([['name', name], ['roles', roles.join(', ')], ['how', how], ['server', server]])
  return exit.ok
}

/** What stock ssh needs to reach targets by their own names, believing the authority of the proxy. */
export const sshConfig: Run = async call => {
  const client = await clientOf(call)
  const door = await client.get('/ssh-config')
  const { name, how } = await client.get('/whoami')
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

async function logIn(call: Invocation, client: Client): Promise<IssuedJson> {
  const [user] = call.args
  if (user?.startsWith('sally_') === true) {
    throw new UsageError('every process can read a command line: `login --token` asks for the token, or '
      + 'reads it from standard input or SALLYPORT_ONE_TIME_TOKEN')
  }
  if (flag(call, 'token')) return client.post('/redeem', { body: { token: await oneTimeToken() } })
  const { SALLYPORT_PASSWORD: password } = process.env
  if (user === undefined && password === undefined) return confirmedElsewhere(call, client)
  return withPassword(client, await askedFor(user ?? userInfo().username))
}

async function oneTimeToken(): Promise<string> {
  const { SALLYPORT_ONE_TIME_TOKEN: token } = process.env
  if (token !== undefined) return token
  const given = process.stdin.isTTY ? await askSilently('one-time token: ') : readFileSync(0, 'utf8')
  return given.trim()
}

/** RFC 8628: asks again and again, as seldom as the server says. */
async function confirmedElsewhere(call: Invocation, client: Client): Promise<IssuedJson> {
  const what = `sallyport login by ${userInfo().username} on ${hostname()}`.slice(0, 100)
  const began = await client.post('/device/code', { body: { what } })
  call.out.aside(`open ${began.verificationUriComplete} and confirm ${began.userCode}, within ten minutes`)
  for (let seconds = began.intervalSeconds; ;) {
    await pause(seconds * 1000)
    try {
      return await client.post('/device/token', { body: { deviceCode: began.deviceCode } })
    } catch (thrown) {
      const code = thrown instanceof Failure ? thrown.code : undefined
      if (code === 'slow-down') seconds += slowerSeconds
      else if (code !== 'authorization-pending') throw thrown
    }
  }
}

interface Given {
  user: string
  password: string
  code?: string
}

async function withPassword(client: Client, given: Given): Promise<IssuedJson> {
  try {
    return await client.post('/login', { body: given })
  } catch (thrown) {
    const wantsCode = thrown instanceof Failure && thrown.code === 'second-factor-required'
    if (!wantsCode || given.code !== undefined || !process.stdin.isTTY) throw thrown
    const code = await ask(`one-time code of ${given.user}: `, process.stderr)
    return client.post('/login', { body: { ...given, code } })
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
