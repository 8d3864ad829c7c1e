// Live sessions, on whichever node they are: ended by an admin, or because their grant or their approval was
// taken away. Each node can cut only its own, so it tells the others through the store. A node that cuts says
// so: whoever asked hears "done" or "no answer", never a guess. What was said while a node was not listening
// is made good when it listens again, by looking at what is declared and approved; an end that nobody heard
// of is asked for again.
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { Approval } from '../policy/approvals.ts'
import { isStillGranted } from '../policy/authorise.ts'
import type { Declared } from '../policy/types.ts'
import type { Registry } from '../session/registry.ts'
import type { Database } from '../store/database.ts'
import type { Sessions } from '../store/sessions.ts'

const channel = 'sallyport'
// A notification takes milliseconds; a node that loses its connection listens again after one second.
const answerMs = 3_000
// PostgreSQL takes 8,000 bytes; names have at most 63 characters.
const signalBytesMax = 1_024

/** What one node tells the others. */
type Signal =
  | { type: 'kill', session: string, by: string }
  | { type: 'cut', session: string }
  | { type: 'declared' }
  | { type: 'request', request: string }

export interface LiveSessions {
  /** False when it is not alive on any node. Throws `node-silent` when its node did not answer. */
  kill(session: string, by: string): Promise<boolean>
  /** What is declared has changed: sessions whose grant is gone end, here and everywhere. */
  declaredChanged(): Promise<void>
  /** A request was decided: who waits for it goes on, and sessions end that had it and have it no more. */
  requestChanged(request: string): Promise<void>
}

export interface LiveSessionsPorts {
  node: string
  clock: Clock
  log: Log
  database: Database
  registry: Registry
  sessions: Pick<Sessions, 'get'>
  declared(): Promise<Declared>
  /** Requests of a user that are approved now. */
  validOf(user: string): Promise<readonly Approval[]>
  /** Told of every request that was changed, on any node. */
  heard(request: string): void
}

/** Listens until the database is closed. */
export function createLiveSessions(ports: LiveSessionsPorts): LiveSessions {
  const { node, clock, log, database, registry, sessions } = ports
  const waiting = new Map<string, Set<(cut: boolean) => void>>()
  const send = (signal: Signal): Promise<void> => database.notify(channel, JSON.stringify(signal))
  const cut = (session: string, by: string): boolean =>
    registry.cut(session, new SallyportError('session-killed', { detail: `by ${by}` }))

  const hear = async (signal: Signal): Promise<void> => {
    if (signal.type === 'declared') await cutWithdrawn(ports)
    else if (signal.type === 'request') await requestHeard(ports, signal.request)
    else if (signal.type === 'cut') waiting.get(signal.session)?.forEach(tell => tell(true))
    else if (cut(signal.session, signal.by)) await send({ type: 'cut', session: signal.session })
  }
  const guarded = (act: Promise<void>): void => {
    act.catch((thrown: unknown) => log.warn({ error: String(thrown) }, 'another node was not followed'))
  }
  database.listen(channel, {
    heard(text) {
      const signal = readSignal(text)
      if (signal !== undefined) guarded(hear(signal))
    },
    began: () => guarded(cutWithdrawn(ports))
  })

  const answered = (session: string): { answer: Promise<boolean>, forget: () => void } => {
    const tells = waiting.get(session) ?? new Set()
    waiting.set(session, tells)
    let tell: (cut: boolean) => void = () => undefined
    const answer = new Promise<boolean>(resolve => { tell = resolve })
    tells.add(tell)
    const cancel = clock.after(answerMs, () => tell(false))
    const forget = (): void => {
      cancel()
      tells.delete(tell)
      if (tells.size === 0) waiting.delete(session)
    }
    return { answer, forget }
  }

  return {
    async kill(session, by) {
      if (cut(session, by)) return true
      const row = await sessions.get(session)
      if (row === undefined || row.node === node || !['opening', 'live'].includes(row.status)) return false
      const { answer, forget } = answered(session)
      try {
        await send({ type: 'kill', session, by })
        if (await answer) return true
      } finally {
        forget()
      }
      throw new SallyportError('node-silent', { detail: `session ${session} is on node ${row.node}` })
    },
    async declaredChanged() {
      await cutWithdrawn(ports)
      await send({ type: 'declared' })
    },
    async requestChanged(request) {
      await requestHeard(ports, request)
      await send({ type: 'request', request })
    }
  }
}

async function requestHeard(ports: LiveSessionsPorts, request: string): Promise<void> {
  ports.heard(request)
  if (ports.registry.list().some(({ grant }) => grant.request === request)) await cutWithdrawn(ports)
}

/** What somebody has just taken away ends now, not at the next login. */
async function cutWithdrawn({ declared, registry, clock, validOf }: LiveSessionsPorts): Promise<void> {
  if (registry.list().length === 0) return
  const now = await declared()
  for (const { id, grant } of registry.list()) {
    const approvals = grant.request === undefined ? [] : await validOf(grant.user.name)
    if (isStillGranted(now, grant, clock.now(), approvals)) continue
    registry.cut(id, new SallyportError('grant-withdrawn'))
  }
}

/** Undefined for what this version does not know: a newer node may say more. */
function readSignal(text: string): Signal | undefined {
  if (text.length > signalBytesMax) return undefined
  try {
    const { type, session, by, request } = JSON.parse(text) as Record<string, unknown>
    if (type === 'declared') return { type }
    if (type === 'request') return typeof request === 'string' ? { type, request } : undefined
    if (typeof session !== 'string') return undefined
    if (type === 'cut') return { type, session }
    return type === 'kill' && typeof by === 'string' ? { type, session, by } : undefined
  } catch {
    return undefined
  }
}
