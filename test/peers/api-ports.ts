// The ports of the API over plain maps: for tests of the API and of the command line that are not about the
// store. Templates, plugins, policy and verifiers are the real ones; only where rows live, and what targets
// answer, is not. A change that throws leaves nothing behind, as in the store.
import { readFileSync, readdirSync } from 'node:fs'
import { shippedPlugins } from '../../plugins/shipped.ts'
import type {
  ApiPorts, ApplicationTokenRow, KeyState, NewApplicationToken, ResourceChange, ResourceRow, StoredToken,
  TemplateRow
} from '../../src/api/ports.ts'
import { pageOf } from '../../src/api/pages.ts'
import type { AuditRow, LeaseRow, ReceiptRow, RequestRow, SessionRow } from '../../src/api/ports-records.ts'
import { systemClock } from '../../src/clock.ts'
import { SallyportError } from '../../src/errors.ts'
import { createShelf } from '../../src/jit/shelf.ts'
import { parseTemplate } from '../../src/jit/template.ts'
import { choicesFor, choicesOf } from '../../src/policy/authorise.ts'
import { printLoginName, readLoginName } from '../../src/policy/login-name.ts'
import type { Declared } from '../../src/policy/types.ts'
import type { Beginning } from '../../src/recording/moments.ts'
import type { Scene } from '../../src/recording/screenplay.ts'
import { Secret } from '../../src/secret.ts'
import { createSecrets } from '../../src/secrets/secrets.ts'
import { createVerifiers } from '../../src/main/verifiers.ts'
import { makeVerifier, mockVerifier, verifyPassword } from '../../src/wire/postgres/verifier.ts'
import type { PasskeyRow } from '../../src/store/passkeys.ts'
import { loginsOf, testOrigin } from './login-ports.ts'
import { requestsOf } from './request-ports.ts'

/** What a test may look at and prepare. */
export interface Memory {
  resources: Map<string, ResourceRow>
  secrets: Map<string, string>
  tokens: Map<string, StoredToken & { family?: string }>
  passkeys: Map<string, PasskeyRow>
  applicationTokens: Map<string, ApplicationTokenRow>
  /** Codes that still count, by user; a person has a second factor once it is confirmed. */
  secondFactors: Map<string, { confirmed: boolean, codes: string[] }>
  templates: TemplateRow[]
  sessions: SessionRow[]
  receipts: Map<string, ReceiptRow>
  leases: LeaseRow[]
  audit: AuditRow[]
  /** Sentences by `kind/name`: what the ledger still needs. */
  dependants: Map<string, string[]>
  failures: SallyportError[]
  killed: string[]
  throttled: boolean
  ready: boolean
  requests: RequestRow[]
  keys: Map<string, { request: string, known: KeyState }>
}

export function createMemory(): { memory: Memory, ports: ApiPorts } {
  const memory: Memory = {
    resources: new Map(), secrets: new Map(), tokens: new Map(), passkeys: new Map(),
    secondFactors: new Map(),
    applicationTokens: new Map(),
    templates: shippedRows(), sessions: [], receipts: new Map(), leases: [], audit: [],
    dependants: new Map(), failures: [], killed: [], throttled: false, ready: true, requests: [],
    keys: new Map()
  }
  const stored = storePorts(memory)
  const evidence = evidencePorts(memory)
  const ports: ApiPorts = {
    clock: systemClock, version: '0.0.0-test', node: 'test',
    shelf: createShelf(shippedPlugins),
    prove: (credential, signal, told) => {
      signal.throwIfAborted()
      const step = { name: 'create', passed: true, detail: '', milliseconds: 3 }
      told?.(step)
      return Promise.resolve({ passed: credential !== 'orders-broken', steps: [step] })
    },
    failed: error => memory.failures.push(error),
    ...stored,
    ...evidence,
    logins: loginsOf(memory.passkeys, (...event) => record(memory, ...event), testOrigin),
    secrets: createSecrets({
      clock: systemClock, declared: () => stored.policy.declared(),
      openSecret: reference => openIn(memory, reference),
      addressOf: ({ name, protocol, host, port, tls }) => ({ name, protocol, host, port, tls }),
      pin: () => Promise.reject(new SallyportError('hook-failed')),
      issue: () => Promise.reject(new SallyportError('hook-failed')),
      revoke: () => Promise.resolve(false),
      renewed: {
        list: () => Promise.resolve([]), open: () => Promise.reject(new SallyportError('seal-broken')),
        noteReader: () => Promise.resolve()
      },
      audit: (kind, actor, subject, detail) => evidence.audit.append(kind, actor, subject, detail)
    }),
    ssh: () => ({
      host: '127.0.0.1', port: 2222, hostKey: 'ssh-ed25519 AAAA', hostAuthority: 'ssh-ed25519 BBBB',
      userAuthority: 'ssh-ed25519 CCCC'
    }),
    postgres: () => ({ host: '127.0.0.1', port: 6432 }),
    tunnel: () => undefined,
    browserTicket: () => ({ ticket: 'ticket_0', expiresAt: new Date(0) }),
    requests: requestsOf(memory.requests),
    health: {
      ready: () => Promise.resolve(memory.ready),
      hooks: () => ({ queues: [], last: new Map() }),
      metrics: () => Promise.resolve('# HELP up Up.\n# TYPE up gauge\nup 1\n'),
      examine: () => Promise.resolve([{ name: 'store', status: 'ok', detail: 'answers in 1 ms' }])
    }
  }
  return { memory, ports }
}

function shippedRows(): TemplateRow[] {
  const folder = new URL('../../templates/postgres/', import.meta.url)
  return readdirSync(folder).filter(name => name.endsWith('.yaml')).sort().map(name => {
    const body = readFileSync(new URL(name, folder), 'utf8')
    const { id, plugin, action, sha256 } = parseTemplate(body)
    const createdAt = new Date('2026-01-01T00:00:00Z')
    return { id, version: 1, plugin, action, body, sha256, shipped: true, active: true, author: 'sallyport',
      createdAt }
  })
}

function openIn(memory: Memory, { secret }: { secret: string }): Promise<Secret<string>> {
  const value = memory.secrets.get(secret)
  if (value === undefined) return Promise.reject(new SallyportError('seal-broken'))
  return Promise.resolve(new Secret(value))
}

function storePorts(memory: Memory): Pick<ApiPorts,
'applicationTokens' | 'idempotency' | 'resources' | 'templates' | 'passwords' | 'secondFactors' | 'tokens'
| 'policy'> {
  const byKind = (kind?: string): ResourceRow[] =>
    [...memory.resources.values()].filter(row => kind === undefined || row.kind === kind)
  const open = (reference: { secret: string }): Promise<Secret<string>> => openIn(memory, reference)
  return {
    resources: {
      list: kind => Promise.resolve(byKind(kind)),
      page: (kind, { name = '', ...page }) => Promise.resolve(
        pageOf(byKind(kind).filter(row => row.name.includes(name)), row => row.name, page)),
      get: (kind, name) => Promise.resolve(memory.resources.get(`${kind}/${name}`)),
      changed: () => Promise.resolve(),
      change: act => changeAll(memory, open, act)
    },
    templates: {
      list: () => Promise.resolve([...new Map(memory.templates.map(row => [row.id, row])).values()]),
      get: (id, version) => Promise.resolve(memory.templates.findLast(row =>
        row.id === id && (version === undefined || row.version === version))),
      versions: id => Promise.resolve(memory.templates.filter(row => row.id === id)),
      save: text => {
        const version = memory.templates.filter(row => row.id === text.id).length + 1
        const row = { ...text, version, sha256: parseTemplate(text.body).sha256, active: true,
          createdAt: new Date(0) }
        memory.templates.push(row)
        return Promise.resolve(row)
      },
      setActive: (id, active) => {
        for (const row of memory.templates) if (row.id === id) row.active = active
        return Promise.resolve()
      }
    },
    passwords: {
      makeVerifier: password => makeVerifier(password.expose()),
      matches: (verifier, password) => verifyPassword(password.expose(), verifier),
      verifierOf: createVerifiers(open, name => mockVerifier(Buffer.alloc(32, 7), name)),
      admit: () => {
        if (memory.throttled) throw new SallyportError('auth-throttled')
      },
      tried: () => undefined
    },
    secondFactors: secondFactorsOf(memory),
    applicationTokens: applicationTokensOf(memory),
    idempotency: idempotencyOf(memory),
    tokens: {
      add: (hash, token) => Promise.resolve(void memory.tokens.set(hash, token)),
      supersede: (hash, by, roles) => {
        const old = memory.tokens.get(hash)
        if (old === undefined || old.supersededAt !== undefined) return Promise.resolve(false)
        const at = systemClock.now()
        memory.tokens.set(by, { ...old, roles, createdAt: at, family: old.family ?? hash })
        old.supersededAt = at
        return Promise.resolve(true)
      },
      find: hash => Promise.resolve(alive(memory.tokens.get(hash))),
      redeem: hash => {
        const row = alive(memory.tokens.get(hash))
        if (row?.oneTime !== true) return Promise.resolve(undefined)
        memory.tokens.delete(hash)
        return Promise.resolve(row)
      },
      remove: hash => {
        const family = memory.tokens.get(hash)?.family ?? hash
        for (const [each, row] of memory.tokens) {
          if (each === hash || each === family || row.family === family) memory.tokens.delete(each)
        }
        return Promise.resolve()
      },
      removeOf: user => {
        for (const [hash, row] of memory.tokens) if (row.user === user) memory.tokens.delete(hash)
        return Promise.resolve()
      },
      hasOneTime: () => Promise.resolve([...memory.tokens.values()].some(row => row.oneTime))
    },
    policy: {
      declared: () => Promise.resolve(declaredOf(byKind)), readLoginName, printLoginName, choicesOf,
      choicesFor
    }
  }
}

function applicationTokensOf({ applicationTokens: all }: Memory): ApiPorts['applicationTokens'] {
  const rowOf = ({ id, application, ttlSeconds }: NewApplicationToken, createdBy: string) => {
    const createdAt = systemClock.now()
    const expiresAt = new Date(createdAt.getTime() + ttlSeconds * 1000)
    return { id, application, createdAt, createdBy, expiresAt, lastUsedAt: null }
  }
  const add = (token: NewApplicationToken, by: string) => {
    const row = rowOf(token, by)
    all.set(token.hash, row)
    return Promise.resolve(row)
  }
  return {
    add,
    rotate: async (token, old, overlapSeconds, by) => {
      const row = [...all.values()].find(({ id }) => id === old)
      if (row === undefined) return undefined
      row.expiresAt = new Date(systemClock.now().getTime() + overlapSeconds * 1000)
      return add(token, by)
    },
    find: hash => {
      const row = all.get(hash)
      return Promise.resolve(row !== undefined && row.expiresAt > systemClock.now() ? row : undefined)
    },
    list: application => Promise.resolve([...all.values()].filter(row => row.application === application)),
    remove: (_, id) => {
      const hash = [...all].find(([, row]) => row.id === id)?.[0]
      return Promise.resolve(hash !== undefined && all.delete(hash))
    },
    removeOf: application => {
      for (const [hash, row] of all) if (row.application === application) all.delete(hash)
      return Promise.resolve()
    }
  }
}

function idempotencyOf({ keys }: Memory): ApiPorts['idempotency'] {
  const settle = (principal: string, key: string, known: KeyState): Promise<void> => {
    const row = keys.get(`${principal} ${key}`)
    if (row !== undefined) row.known = known
    return Promise.resolve()
  }
  return {
    claim: (principal, key, request) => {
      const row = keys.get(`${principal} ${key}`)
      if (row === undefined) keys.set(`${principal} ${key}`, { request, known: { state: 'running' } })
      const known: KeyState = row?.known ?? { state: 'new' }
      return Promise.resolve(row === undefined || row.request === request ? known : { state: 'other' })
    },
    done: (principal, key, said, answer) => settle(principal, key, { state: 'done', said, answer }),
    free: (principal, key) => Promise.resolve(void keys.delete(`${principal} ${key}`)),
    doubt: (principal, key) => settle(principal, key, { state: 'unknown' })
  }
}

function secondFactorsOf({ secondFactors: all }: Memory): ApiPorts['secondFactors'] {
  const uses = ({ codes }: { codes: string[] }, code: string): boolean => {
    const at = codes.indexOf(code)
    if (at >= 0) codes.splice(at, 1)
    return at >= 0
  }
  return {
    of: user => {
      const factor = all.get(user)
      const check = (code: string): Promise<boolean> => Promise.resolve(uses(factor!, code))
      return Promise.resolve(factor?.confirmed === true ? { check } : undefined)
    },
    enrol: user => {
      if (all.get(user)?.confirmed === true) return Promise.resolve(undefined)
      all.set(user, { confirmed: false, codes: ['111111', '222222'] })
      return Promise.resolve(`otpauth://totp/Sallyport:${user}?secret=AAAA`)
    },
    confirm: (user, code) => {
      const factor = all.get(user)
      if (factor === undefined || factor.confirmed) return Promise.resolve('none' as const)
      factor.confirmed = uses(factor, code)
      return Promise.resolve(factor.confirmed ? 'confirmed' as const : 'wrong' as const)
    },
    remove: user => Promise.resolve(all.delete(user)),
    list: () => Promise.resolve([...all].map(([user, { confirmed }]) => ({ user, confirmed })))
  }
}

function alive<T extends StoredToken>(row: T | undefined): T | undefined {
  return row !== undefined && row.expiresAt.getTime() > systemClock.now().getTime() ? row : undefined
}

function declaredOf(byKind: (kind: string) => ResourceRow[]): Declared {
  const named = <T>(kind: string): Map<string,
  T> => new Map(byKind(kind).map(row => [row.name, row.spec as T]))
  return {
    targets: named('target'), credentials: named('credential'), users: named('user'),
    grants: [...named<Declared['grants'][0]>('grant').values()],
    environments: named('environment'), secrets: named('secret'), profiles: named('profile'),
    applications: named('application')
  }
}

async function changeAll<T>(
  memory: Memory, open: ResourceChange['open'], act: (change: ResourceChange) => Promise<T>
): Promise<T> {
  const before = { resources: new Map(memory.resources), secrets: new Map(memory.secrets),
    audit: memory.audit.length }
  const change: ResourceChange = {
    list: () => Promise.resolve([...memory.resources.values()]),
    put: (kind, name, spec, updatedBy) => {
      const old = memory.resources.get(`${kind}/${name}`)
      const now = systemClock.now()
      memory.resources.set(`${kind}/${name}`, {
        kind, name, spec: structuredClone(spec), version: (old?.version ?? 0) + 1,
        createdAt: old?.createdAt ?? now,
        updatedAt: now, updatedBy
      })
      return Promise.resolve()
    },
    delete: (kind, name) => Promise.resolve(void memory.resources.delete(`${kind}/${name}`)),
    seal: (kind, plain) => {
      const secret = `${kind}-${memory.secrets.size + 1}-${memory.audit.length}`
      memory.secrets.set(secret, plain.expose())
      return Promise.resolve({ secret })
    },
    open,
    forget: ({ secret }) => Promise.resolve(void memory.secrets.delete(secret)),
    audit: (kind, actor, subject, detail) => Promise.resolve(record(memory, kind, actor, subject, detail))
  }
  try {
    return await act(change)
  } catch (thrown) {
    memory.resources = before.resources
    memory.secrets = before.secrets
    memory.audit.length = before.audit
    throw thrown
  }
}

function record(memory: Memory, kind: string, actor: string, subject: string, detail: unknown): void {
  const seq = memory.audit.length + 1
  const at = systemClock.now().toISOString()
  memory.audit.push({ chain: 'test/1', seq, at, kind, actor, subject, detail, prev: '', hash: `h${seq}` })
}

function evidencePorts(
  memory: Memory
): Pick<ApiPorts, 'sessions' | 'recordings' | 'nodes' | 'leases' | 'orphans' | 'audit'> {
  const there = (session: string): void => {
    if (!memory.sessions.some(row => row.id === session)) throw new SallyportError('not-found')
  }
  const leaseOf = (id: string): LeaseRow => {
    const row = memory.leases.find(each => each.id === id)
    if (row === undefined) throw new SallyportError('not-found')
    return row
  }
  return {
    sessions: {
      list: ({ user, status, limit }) => Promise.resolve(memory.sessions.filter(row =>
        (user === undefined || row.user === user) && (status === undefined || row.status === status)).slice(0,
        limit)),
      get: id => Promise.resolve(memory.sessions.find(row => row.id === id)),
      receipts: ids => Promise.resolve(new Map([...memory.receipts].filter(([id]) => ids.includes(id)))),
      accountStates: accounts => Promise.resolve(new Map(accounts.map(account => [account, 'proved-gone']))),
      kill: (id, by) => {
        memory.killed.push(`${id} by ${by}`)
        return Promise.resolve(memory.sessions.some(row => row.id === id && row.status === 'live'))
      }
    },
    nodes: {
      holding: session => Promise.reject(new SallyportError('not-found', { detail: session })),
      others: () => Promise.resolve([]),
      admit: () => Promise.reject(new SallyportError('auth-required'))
    },
    recordings: {
      publicKey: () => 'PEM',
      has: session => memory.sessions.some(row => row.id === session),
      raw: (session, { start, end } = { start: 0, end: 9 }) =>
        (there(session), pieces(Buffer.from('0123456789').subarray(start, end + 1))),
      scenes: session => (there(session), played()),
      follow: (session, signal) => (there(session), live(signal)),
      live: (session, { after, lane = 1 }, signal) => (there(session), begun(after, lane, signal)),
      piece: (session, fromMs) => (there(session), Promise.resolve({
        durationMs: undefined, columns: 80, rows: 24, picture: '', scenes: [], untilMs: fromMs, last: true
      })),
      linesFrom: (session, fromMs, before) => (there(session), pieces(`{"from":${fromMs},"n":${before}}\n`)),
      export: (session, format) => (there(session), pieces(`${format} of ${session}\n`)),
      fileCopy: (session, number) => (there(session), pieces(Buffer.from([number, 0xff]))),
      verify: (session, expected) => Promise.resolve({
        state: expected.headHash === 'cafe' ? 'sealed' : 'interrupted', session, head: undefined,
        close: undefined,
        bytes: 10, frames: 2, seals: 1, verifiedBytes: 10, headHash: 'cafe', keyId: 'k', brokenAt: undefined,
        problem: undefined
      }),
      whatIf: ({ rules }) => pieces({ done: true, sessions: 1, judged: rules.length, found: 0 }),
      search: ({ query }) => pieces({
        session: memory.sessions[0]?.id ?? '', path: 'p', at: '2026-11-21T00:00:00.000Z', atMs: 1, lane: 0,
        offset: 32,
        kind: 'statement', text: `select '${query}'`,
        head: {
          session: '', user: 'alice', credential: 'orders-rw', target: 'orders', protocol: 'postgres',
          address: '',
          startedAt: '', node: 'test'
        }
      })
    },
    leases: {
      list: ({ owner }) => Promise.resolve(memory.leases.filter(row =>
        owner === undefined || row.owner === owner)),
      show: id => Promise.resolve(memory.leases.find(row => row.id === id)),
      renew: (id, seconds) => {
        const row = leaseOf(id)
        if (seconds * 1000 > row.renewableMs) throw new SallyportError('invalid',
          { problems: ['ttl: past the maximum'] })
        return Promise.resolve({ ...row, renewals: row.renewals + 1 })
      },
      revoke: id => Promise.resolve(leaseOf(id).status === 'active'),
      revokeAll: () => Promise.resolve(0),
      history: (_, page) => Promise.resolve(pageOf(
        [{ id: 1, at: new Date(0), kind: 'issued', actor: 'alice', detail: {} }], event => event.id, page)),
      dependants: (kind, name) => Promise.resolve(memory.dependants.get(`${kind}/${name}`) ?? [])
    },
    orphans: {
      scan: () => Promise.resolve({ orphans: [], unreachable: [] }),
      reap: () => Promise.resolve({ orphans: [], unreachable: [] })
    },
    audit: {
      append: (kind, actor, subject, detail) => Promise.resolve(record(memory, kind, actor, subject, detail)),
      list: ({ limit }) => Promise.resolve(memory.audit.toReversed().slice(0, limit)),
      verify: checkpoint => Promise.resolve({
        valid: checkpoint === undefined, events: memory.audit.length, checkpoints: 1, unsigned: 0, heads: [],
        problems: checkpoint === undefined ? [] : ['chain test/1, row 1: rolled back']
      }),
      export: () => Promise.resolve(pieces(...memory.audit.map(event => `${JSON.stringify({ event })}\n`)))
    }
  }
}

async function* pieces<T>(...all: T[]): AsyncGenerator<T> {
  yield* all
}

async function* played(): AsyncGenerator<Scene> {
  yield { kind: 'text', atMs: 0, text: 'app=> select 1\r\n' }
  // What no filter of ours should let through to a terminal.
  yield { kind: 'text', atMs: 5, text: '-- SELECT 1, \x1b]52;c;ZWNobyBoaQ==\x07\x9b31m1 row\r\n' }
  yield { kind: 'end', atMs: 9, text: 'ended: client-closed' }
}

async function* begun(count: number, lane: number, signal: AbortSignal): AsyncGenerator<Beginning | Scene> {
  const screen = { columns: 80, rows: 24, picture: 'so far', lane }
  yield { kind: 'begin', atMs: 1, count, screen, lanes: [lane], lately: [] }
  yield* live(signal)
}

async function* live(signal: AbortSignal): AsyncGenerator<Scene> {
  yield { kind: 'text', atMs: 1, text: 'so far\r\n' }
  await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
}
