// Sessions in pages of the console without a browser: the API's own listener, its cookies and tickets, the
// pipeline and the fronts are the real ones; targets do what a test tells them, a page says what a test tells
// it, and a recording's every write is the test's. The pages' clock stands still unless it is moved.
import { once } from 'node:events'
import { WebSocket } from 'ws'
import type { ClientOptions } from 'ws'
import { createIdentify, hashToken, mintToken, replaceToken } from '../../src/api/access.ts'
import { cookieName } from '../../src/api/cookie.ts'
import { createSallyportApi } from '../../src/api/routes.ts'
import { serveApi } from '../../src/api/server.ts'
import { createUpgrade, socketPath } from '../../src/api/upgrade.ts'
import { systemClock } from '../../src/clock.ts'
import { SallyportError } from '../../src/errors.ts'
import { createLog } from '../../src/log.ts'
import { createRules } from '../../src/main/rules.ts'
import { authorise, choicesFor } from '../../src/policy/authorise.ts'
import { readLoginName } from '../../src/policy/login-name.ts'
import type { ChannelKind } from '../../src/policy/types.ts'
import { doorSetting } from '../../src/proxy/ssh/listen.ts'
import { createTickets } from '../../src/proxy/tcp/tickets.ts'
import { openWeb } from '../../src/proxy/web/listen.ts'
import type { Ending, SealSummary } from '../../src/recording/recording.ts'
import type { Front } from '../../src/session/front.ts'
import { createRegistry } from '../../src/session/registry.ts'
import type { Registry } from '../../src/session/registry.ts'
import { run } from '../../src/session/session.ts'
import { createSteps } from '../../src/session/steps.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'
import { sessionRow } from './api-bench.ts'
import { createMemory } from './api-ports.ts'
import { fakePassword, startFakeTarget } from './fake-target.ts'
import type { FakeOptions, FakeTarget } from './fake-target.ts'
import { noConsole } from './no-console.ts'
import { handClock } from './raw-postgres.ts'
import type { HandClock } from './raw-postgres.ts'
import { tape } from './relay-world.ts'
import type { Tape } from './relay-world.ts'
import { CountingRecording } from './ssh-pass-through.ts'
import { startSshTarget } from './ssh-target.ts'
import type { SshTarget, TargetScript } from './ssh-target.ts'

export interface WebWorld extends AsyncDisposable {
  clock: HandClock
  target: SshTarget
  database: FakeTarget
  registry: Registry
  endings: Ending[]
  /** Live recordings that somebody follows. */
  followed: Set<string>
  /** A warning to every session that is open. */
  tell(line: string): void
  /** Kinds of audit events, with why. */
  audited: string[]
  /** Of the sessions from now on. */
  tape: Tape
  /** A browser of this person's, logged in: its cookie. */
  cookie(user: string): string
  /** The one that takes its place after a while. */
  replaced(cookie: string): Promise<string>
  ticket(cookie: string): Promise<string>
  /** A WebSocket as a page of ours opens it; `headers` change what the browser says. */
  dial(
    cookie: string | undefined, headers?: Record<string, string>, options?: ClientOptions, path?: string
  ): WebSocket
  /** … and its first words, with a ticket that is good. */
  open(user: string, first?: Record<string, unknown>, options?: ClientOptions): Promise<OpenPage>
}

/** What a page hears, in order. */
export interface OpenPage {
  socket: WebSocket
  words: Record<string, unknown>[]
  bytes: Buffer
  /** Until it was said. */
  heard(type: string): Promise<Record<string, unknown>>
  say(words: Record<string, unknown>): void
  /** Code and reason of the close. */
  closed(): Promise<[code: number, reason: string]>
}

export interface WebWorldOptions {
  script?: TargetScript | undefined
  fake?: FakeOptions
}

export async function webWorld({ script, fake }: WebWorldOptions = {}): Promise<WebWorld> {
  const clock = handClock()
  const target = await startSshTarget(script)
  const database = await startFakeTarget(fake)
  const { memory, ports } = createMemory()
  declare(memory, target, database)
  const tickets = createTickets(clock)
  ports.browserTicket = (user, login) => tickets.issue(user, { kind: 'web', user, login })
  const [endings, audited]: [Ending[], string[]] = [[], []]
  const followed = new Set<string>()
  const { follow } = ports.recordings
  ports.recordings.follow = (session, signal) => {
    followed.add(session)
    signal.addEventListener('abort', () => followed.delete(session), { once: true })
    return follow(session, signal)
  }
  const registry = createRegistry(systemClock)
  const open = new Set<Front<unknown>>()
  const world = { tape: tape() }
  const steps = createSteps({
    clock: systemClock, node: 'test', registry, authorise, choicesFor, authorities: [],
    declared: () => ports.policy.declared(),
    approvals: {
      validOf: async () => [], ask: async () => 'none', askFor: async () => 'none',
      leave: async () => undefined, decided: async () => 'denied'
    },
    confirmations: noConsole,
    ...createRules(systemClock, createLog('error')),
    userOf: login => readLoginName(login)?.user,
    namesCredential: login => readLoginName(login)?.credential !== undefined,
    located: async ({ name, protocol, host, port, database: of, tls, hostKeys }) =>
      ({ name, protocol, host, port, database: of, tls, hostKeys }),
    openSecret: async () => ({ expose: () => fakePassword }) as never,
    verifierOf: () => Promise.reject(new Error('nobody is asked for a password')),
    secondFactorOf: () => Promise.reject(new Error('nobody is asked for a code')),
    admits: ({ text, user, login }) => {
      const bearer = tickets.take(text)
      return bearer?.kind === 'web' && bearer.user === user && bearer.login === login
    },
    sessions: {
      open: async () => undefined, live: async () => undefined, recorded: async () => undefined,
      ended: async (_id, ending) => { endings.push(ending) }
    },
    audit: async (kind, actor, _subject, detail) => {
      audited.push(`${kind} ${actor} ${String(detail['why'] ?? detail['client'] ?? '')}`)
    },
    createRecording: async ({ session }) => world.tape.wrap(sealing(new CountingRecording(session))),
    issue: () => Promise.reject(new SallyportError('internal', { detail: 'no account is made here' }))
  })
  const web = openWeb({
    clock,
    async onSession(front) {
      open.add(front)
      await run(front, steps)
      open.delete(front)
    },
    terminal: doorSetting({ clock: systemClock, onRefused: () => undefined }),
    sql: { clock: systemClock, timeouts: { connectMs: 5000, tlsMs: 5000, loginMs: 5000 } }
  })
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'test', names: ['127.0.0.1'], validFrom: new Date('2020-01-01'),
    validUntil: new Date('2050-01-01')
  })
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  const upgrade = createUpgrade({ ...web, app, identify: createIdentify(ports, undefined) })
  const at = { host: '127.0.0.1', port: 0 }
  const server = await serveApi(app, at, { key: privateKey, certificate }, systemClock, upgrade)
  const host = `127.0.0.1:${server.address.port}`

  const cookie = (user: string): string => {
    const token = mintToken()
    const expiresAt = new Date('2100-01-01T00:00:00Z')
    memory.tokens.set(hashToken(token), { user, roles: ['user'], expiresAt, oneTime: false })
    return `${cookieName}=${token}`
  }
  const replaced = async (old: string): Promise<string> => {
    const token = await replaceToken(ports, old.split('=')[1]!, { name: '', roles: ['user'], how: 'token' })
    return `${cookieName}=${token}`
  }
  const ticket = async (of: string): Promise<string> => {
    const origin = `https://${host}`
    const answer = await app.request(`https://${host}/api/v1/browser/tickets`, {
      method: 'POST', headers: { host, origin, cookie: of }
    }, { incoming: { socket: { remoteAddress: '127.0.0.1' } } })
    return (await answer.json() as { ticket: string }).ticket
  }
  const dial = (
    of: string | undefined, headers: Record<string, string> = {}, options: ClientOptions = {},
    path = socketPath
  ): WebSocket => new WebSocket(`wss://${host}${path}`, {
    rejectUnauthorized: false, ...options,
    headers: { origin: `https://${host}`, ...of === undefined ? {} : { cookie: of }, ...headers }
  })
  return Object.assign(world, {
    clock, target, database, registry, endings, audited, followed,
    tell(line: string) { for (const front of open) front.tell(line) },
    cookie, replaced, ticket, dial,
    async open(user: string, first: Record<string, unknown> = {}, options?: ClientOptions) {
      const of = cookie(user)
      const page = pageOf(dial(of, {}, options))
      await once(page.socket, 'open')
      const words = { type: 'open', protocol: 'ssh', login: `${user}+deploy@web01`, columns: 80, rows: 24 }
      page.say({ ...words, ticket: await ticket(of), ...first })
      return page
    },
    async [Symbol.asyncDispose]() {
      web.close()
      registry.cutAll(new SallyportError('shutting-down'))
      await Promise.all([server.close(0), target.stop(), database.stop()])
    }
  })
}

export function pageOf(socket: WebSocket): OpenPage {
  const page: OpenPage = {
    socket, words: [], bytes: Buffer.alloc(0),
    async heard(type) {
      for (;;) {
        const found = page.words.find(words => (words['type'] ?? words['kind']) === type)
        if (found !== undefined) {
          page.words.splice(page.words.indexOf(found), 1)
          return found
        }
        if (socket.readyState === socket.CLOSED) throw new Error(`closed before it said ${type}`)
        await new Promise(resolve => setTimeout(resolve, 2))
      }
    },
    say: words => socket.send(JSON.stringify(words)),
    closed: () => closing
  }
  const closing = new Promise<[number, string]>(resolve => {
    socket.once('close', (code, reason) => resolve([code, reason.toString()]))
  })
  socket.on('error', () => undefined)
  socket.on('message', (data, isBinary) => {
    if (isBinary) page.bytes = Buffer.concat([page.bytes, data as Buffer])
    else page.words.push(JSON.parse((data as Buffer).toString()) as Record<string, unknown>)
  })
  return page
}

/** What the server answers to a request for a WebSocket that it refuses. */
export async function refusalOf(socket: WebSocket): Promise<number | undefined> {
  socket.on('error', () => undefined)
  const [, response] = await once(socket, 'unexpected-response') as [unknown, { statusCode?: number }]
  socket.terminate()
  return response.statusCode
}

function sealing(recording: CountingRecording) {
  const summary = async (ending: Ending): Promise<SealSummary> => ({
    session: recording.session, sealed: true, path: '', bytes: 0, frames: recording.frames, headHash: '',
    ending
  })
  return Object.assign(recording, { seal: summary as never })
}

const channels: readonly ChannelKind[] = ['shell']

function declare(
  memory: ReturnType<typeof createMemory>['memory'], target: SshTarget, database: FakeTarget
): void {
  const at = new Date(0)
  const put = (kind: string, name: string, spec: object): void => {
    const row = { kind, name, version: 1, createdAt: at, updatedAt: at, updatedBy: 'local' }
    memory.resources.set(`${kind}/${name}`, { ...row, spec: { name, ...spec } })
  }
  const tls = { mode: 'disable' }
  for (const user of ['alice', 'bob', 'otto']) {
    put('user', user, { roles: [user === 'otto' ? 'auditor' : 'user'], publicKeys: [], disabled: false })
  }
  memory.sessions.push(sessionRow())
  put('target', 'web01', {
    protocol: 'ssh', host: '127.0.0.1', port: target.port, database: '', tls, hostKeys: [target.hostKey]
  })
  put('target', 'orders', {
    protocol: 'postgres', host: '127.0.0.1', port: database.port, database: 'o', tls
  })
  put('credential', 'deploy', { target: 'web01', username: 'deploy', password: { secret: 's' } })
  put('credential', 'orders-ro', { target: 'orders', username: 'reader', password: { secret: 's' } })
  put('grant', 'both', {
    users: ['alice', 'bob'], credentials: ['deploy', 'orders-ro'], replication: false, channels
  })
}
