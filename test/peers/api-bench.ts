// The API over plain maps, asked without a network: one caller of each kind with a token, two sessions, and
// `ask`. For tests of the routes; the store and the sockets have tests of their own.
import { hashToken, mintApplicationToken, mintToken } from '../../src/api/access.ts'
import type { Bindings } from '../../src/api/api.ts'
import type { ApiPorts } from '../../src/api/ports.ts'
import type { SessionRow } from '../../src/api/ports-records.ts'
import type { Route } from '../../src/api/route.ts'
import { allRoutes, createSallyportApi } from '../../src/api/routes.ts'
import type { Role } from '../../src/policy/types.ts'
import { Secret } from '../../src/secret.ts'
import { createMemory } from './api-ports.ts'
import type { Memory } from './api-ports.ts'

export const sessionId = '01hzzzzzzzaaaaaaaaaaaaaaaa'
/** The kinds of callers: three of people, one of applications, and the token of the metrics. */
export const roles: readonly Role[] = ['user', 'auditor', 'admin', 'application', 'metrics']
const metricsToken = new Secret('a-token-for-whoever-scrapes')

export interface Bench {
  memory: Memory
  routes: readonly Route[]
  ports: ApiPorts
  tokens: Readonly<Record<Role, string>>
  ask(method: string, path: string, how?: Ask): Promise<Answer>
}

export interface Ask {
  token?: string | undefined
  body?: unknown
  headers?: Record<string, string>
}

export interface Refusal {
  code: string
  problems: string[]
  detail?: string
  hint?: string
}

export interface Answer {
  status: number
  type: string
  text: string
  json: Record<string, unknown> & { error: Refusal }
  headers: Headers
}

export function bench(): Bench {
  const { memory, ports } = createMemory()
  const later = new Date('2100-01-01T00:00:00Z')
  const tokens = Object.fromEntries(roles.map(role => {
    if (role === 'metrics') return [role, metricsToken.expose()]
    if (role === 'application') return [role, applicationToken(memory, later)]
    const token = mintToken()
    const user = `the-${role}`
    const login = { method: 'password', at: ports.clock.now() }
    memory.tokens.set(hashToken(token), { user, roles: ['admin'], expiresAt: later, oneTime: false, login })
    const at = new Date(0)
    memory.resources.set(`user/the-${role}`, {
      kind: 'user', name: `the-${role}`, version: 1, createdAt: at, updatedAt: at, updatedBy: 'local',
      spec: { name: `the-${role}`, roles: [role], publicKeys: [], disabled: false }
    })
    return [role, token]
  })) as Record<Role, string>
  memory.sessions.push(sessionRow(), { ...sessionRow(), id: '01hzzzzzzzbbbbbbbbbbbbbbbb', user: 'the-user' })
  const options = { localToken: undefined, loginTokenSeconds: 60, metricsToken }
  const app = createSallyportApi(ports, options)
  const bindings: Bindings = { incoming: { socket: { remoteAddress: '192.0.2.7' } } }
  return {
    memory, ports, tokens, routes: allRoutes(ports, options),
    async ask(method, path, { token, body, headers = {} } = {}) {
      const answer = await app.request(`https://sallyport.test${path}`, {
        method, headers: {
          host: 'sallyport.test', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers
        },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) })
      }, bindings)
      // A live tail has no end: it is enough that it began.
      const endless = /\/watch(?:\?|$)/.test(path) && answer.status === 200
      const text = endless ? await firstPiece(answer) : await answer.text()
      const type = answer.headers.get('content-type') ?? ''
      const json = JSON.parse(type.startsWith('application/json') ? text : '{}') as Answer['json']
      return { status: answer.status, type, text, json, headers: answer.headers }
    }
  }
}

async function firstPiece({ body }: Response): Promise<string> {
  const reader = body!.getReader()
  const { value } = await reader.read()
  await reader.cancel()
  return new TextDecoder().decode(value)
}

/** Of the application `billing`. */
export function applicationToken(memory: Memory, expiresAt: Date): string {
  const token = mintApplicationToken()
  const at = new Date(0)
  memory.applicationTokens.set(hashToken(token), {
    id: 'token-1', application: 'billing', createdAt: at, createdBy: 'local', expiresAt, lastUsedAt: null
  })
  memory.resources.set('application/billing', {
    kind: 'application', name: 'billing', version: 1, createdAt: at, updatedAt: at, updatedBy: 'local',
    spec: { name: 'billing', disabled: false }
  })
  return token
}

export function sessionRow(): SessionRow {
  return {
    id: sessionId, user: 'alice', credential: 'orders-rw', target: 'orders', protocol: 'postgres',
    grant: 'devs',
    address: '192.0.2.1', database: 'app', node: 'n1', status: 'ended', account: 'a1',
    accountName: 'sally_0000001',
    startedAt: new Date('2026-11-21T10:00:00Z'), expiresAt: new Date('2026-11-21T18:00:00Z'),
    endedAt: new Date('2026-11-21T10:05:00Z'), reason: 'client-closed', recording: '2026/11/21/x.spr',
    recordingHead: 'cafe', recordingBytes: 10
  }
}
