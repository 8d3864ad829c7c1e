// What this node counts, and where. Each figure is fed by a thin layer around the port at which the thing
// happens (a step of a session, a hook, a move of the ledger), so that no room knows of metrics; what is a
// state and not an event (leases, breakers, memory) is asked for when somebody scrapes. A scrape while the
// store is away answers all the same, and says so.
import { readdirSync } from 'node:fs'
import type { Cancel, Clock } from '../clock.ts'
import { asSallyportError } from '../errors.ts'
import type { Hooks } from '../jit/hook.ts'
import { accountStates } from '../lease/states.ts'
import type { LedgerStore } from '../lease/store-port.ts'
import { createMetrics } from '../metrics.ts'
import type { Metrics } from '../metrics.ts'
import type { Claim } from '../session/front.ts'
import type { OpenSession, Steps } from '../session/session.ts'
import type { Rooms } from './rooms.ts'

export interface Meter {
  metrics: Metrics
  steps(steps: Steps): Steps
  hooks(hooks: Hooks): Hooks
  ledgerStore(store: LedgerStore): LedgerStore
  recordingLost(): void
  /** Told how a whole verification of the audit log came out. */
  auditVerified(valid: boolean): void
  /** Everything, as Prometheus reads it. Never throws. */
  print(rooms: MeteredRooms, version: string): Promise<string>
  close(): void
}

type MeteredRooms = Pick<Rooms,
  'config' | 'clock' | 'database' | 'audit' | 'deliveries' | 'registry' | 'ledger' | 'hooks' | 'recordings'
  | 'sessions'>

/** Accounts whose removal has begun here and is not proved yet: an hour in which a large target is away. */
const removalsMax = 100_000
/** How often the delay of the event loop is looked at. */
const loopLookMs = 250

const hookBounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
const proofBounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86_400]
const loopBounds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

export function createMeter(clock: Clock): Meter {
  const metrics = createMetrics()
  const lost = metrics.counter('sallyport_recordings_lost_total', 'Recordings that failed.')
  const auditValid = metrics.gauge('sallyport_audit_valid',
    'What the last whole verification of the audit log said; absent before the first.')
  const auditVerifiedAt = metrics.gauge('sallyport_audit_verified_timestamp_seconds',
    'When the audit log was last verified as a whole.')
  const gauges = declareGauges(metrics)
  const countCpu = cpuCounter(metrics)
  const stopLooking = watchLoop(clock, metrics)
  return {
    metrics,
    steps: meteredSteps(metrics),
    hooks: meteredHooks(metrics, clock),
    ledgerStore: meteredStore(metrics, clock),
    recordingLost: () => lost.add(),
    auditVerified(valid) {
      auditValid.set(valid ? 1 : 0)
      auditVerifiedAt.set(clock.now().getTime() / 1000)
    },
    async print(rooms, version) {
      gauges.build.set(1, [version, process.version, rooms.config.node])
      look(gauges, rooms)
      countCpu()
      await askStore(gauges, rooms)
      return metrics.print()
    },
    close: stopLooking
  }
}

type Gauges = ReturnType<typeof declareGauges>

function declareGauges(metrics: Metrics) {
  const gauge = (name: string, help: string, labels?: readonly string[]) =>
    metrics.gauge(name, help, labels)
  return {
    build: gauge('sallyport_build_info', 'Version of this node.', ['version', 'runtime', 'node']),
    live: gauge('sallyport_sessions_live', 'Sessions that run on this node.', ['protocol']),
    rows: gauge('sallyport_session_rows_waiting', 'Ends of sessions that the store must still be told.'),
    storeUp: gauge('sallyport_store_up', 'Whether the store answered this scrape.'),
    storeTrip: gauge('sallyport_store_round_trip_seconds', 'The shortest question to the store and back.'),
    leases: gauge('sallyport_leases_live', 'Leases that are live, in the whole installation.'),
    accounts: gauge('sallyport_accounts',
      'Accounts that are not proved gone, in the whole installation, by state.', ['state']),
    oldest: gauge('sallyport_oldest_unproved_removal_seconds',
      'Since when the oldest account that nobody wants waits for its proof; 0: none waits.'),
    breakers: gauge('sallyport_target_breaker', 'Circuit breaker of a target: 0 closed, 1 half-open, 2 open.',
      ['target']),
    busy: gauge('sallyport_hooks_running', 'Hooks that run now, on all targets.'),
    waiting: gauge('sallyport_hooks_waiting', 'Hooks that wait for their turn, on all targets.'),
    recordings: gauge('sallyport_recordings_open', 'Recordings that are being written.'),
    recorderLag: gauge('sallyport_recorder_waiting_bytes', 'Recorded and not yet in a file.'),
    recorderSlow: gauge('sallyport_recorder_slow', 'Whether the disk of the recordings holds sessions up.'),
    auditSeq: gauge('sallyport_audit_chain_length', 'Events in the audit chain of this start of the node.'),
    auditWaiting: gauge('sallyport_audit_events_waiting', 'Audit events that the store has not taken yet.'),
    receiverFailing: gauge('sallyport_audit_receiver_failing',
      'Whether a receiver of audit events does not take them.', ['receiver']),
    receiverBehind: gauge('sallyport_audit_receiver_events_waiting',
      'Audit events that a receiver has not got yet.', ['receiver']),
    receiverOldest: gauge('sallyport_audit_receiver_oldest_waiting_seconds',
      'Age of the oldest audit event that a receiver has not got; 0: it has all.', ['receiver']),
    receiverRefused: gauge('sallyport_audit_receiver_events_refused',
      'Audit events that a receiver refuses, and that are tried again.', ['receiver']),
    receiverGivenUp: gauge('sallyport_audit_receiver_events_given_up',
      'Audit events that a receiver refused until they were given up.', ['receiver']),
    memory: gauge('process_resident_memory_bytes', 'Memory of the process.'),
    heap: gauge('sallyport_heap_used_bytes', 'Objects of JavaScript.'),
    started: gauge('process_start_time_seconds', 'When the process started.'),
    files: gauge('process_open_fds', 'Open files and sockets.')
  }
}

/** What this process knows by itself. */
function look(gauges: Gauges, { clock, registry, sessions, hooks, recordings, audit }: MeteredRooms): void {
  const live = new Map([['ssh', 0], ['postgres', 0], ['tcp', 0]])
  for (const { claim: { protocol } } of registry.list()) live.set(protocol, (live.get(protocol) ?? 0) + 1)
  for (const [protocol, count] of live) gauges.live.set(count, [protocol])
  gauges.rows.set(sessions.waiting())
  const recorder = recordings.stats()
  gauges.recordings.set(recorder.open)
  gauges.recorderLag.set(recorder.waitingBytes)
  gauges.recorderSlow.set(recorder.slow ? 1 : 0)
  gauges.auditSeq.set(audit.head().seq)
  gauges.auditWaiting.set(audit.waiting())
  lookAtHooks(gauges, hooks)
  const { rss, heapUsed } = process.memoryUsage()
  gauges.memory.set(rss)
  gauges.heap.set(heapUsed)
  gauges.started.set(Math.round(clock.now().getTime() / 1000 - process.uptime()))
  const files = openFiles()
  if (files !== undefined) gauges.files.set(files)
}

function lookAtHooks(gauges: Gauges, hooks: Hooks): void {
  const level = { 'closed': 0, 'half-open': 1, 'open': 2 } as const
  const health = hooks.health()
  gauges.breakers.clear()
  // The failing ones first: where there are more targets than series, they are the ones with a name.
  for (const { target, breaker } of health.toSorted((one, two) => level[two.breaker] - level[one.breaker])) {
    gauges.breakers.set(level[breaker], [target])
  }
  gauges.busy.set(health.reduce((sum, { running }) => sum + running, 0))
  gauges.waiting.set(health.reduce((sum, { waiting }) => sum + waiting, 0))
}

/** What only the store knows; absent while it is away, never stale. */
async function askStore(
  gauges: Gauges, { clock, database, ledger, deliveries }: MeteredRooms
): Promise<void> {
  const { storeTrip, leases, accounts: states, oldest } = gauges
  const { receiverFailing, receiverBehind, receiverOldest, receiverRefused, receiverGivenUp } = gauges
  for (const gauge of [
    storeTrip, leases, states, oldest,
    receiverFailing, receiverBehind, receiverOldest, receiverRefused, receiverGivenUp
  ]) gauge.clear()
  const startedMs = clock.monotonicMs()
  try {
    await database.now()
    gauges.storeTrip.set((clock.monotonicMs() - startedMs) / 1000)
    const { accounts, holds, oldestUnwantedSeconds } = await ledger.gauges()
    gauges.leases.set(holds)
    for (const state of accountStates) {
      if (state !== 'proved-gone') gauges.accounts.set(accounts[state] ?? 0, [state])
    }
    gauges.oldest.set(oldestUnwantedSeconds)
    for (const { receiver, failure, behind } of await deliveries.look()) {
      receiverFailing.set(failure === undefined ? 0 : 1, [receiver])
      receiverBehind.set(behind.events, [receiver])
      receiverOldest.set(behind.oldestSeconds, [receiver])
      receiverRefused.set(behind.aside, [receiver])
      receiverGivenUp.set(behind.givenUp, [receiver])
    }
    gauges.storeUp.set(1)
  } catch {
    gauges.storeUp.set(0)
  }
}

function cpuCounter(metrics: Metrics): () => void {
  const cpu = metrics.counter('process_cpu_seconds_total', 'CPU time of the process.')
  let counted = 0
  return () => {
    const { user, system } = process.cpuUsage()
    const seconds = (user + system) / 1e6
    cpu.add([], seconds - counted)
    counted = seconds
  }
}

function openFiles(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    // Only Linux says it so cheaply.
    return undefined
  }
}

function watchLoop(clock: Clock, metrics: Metrics): () => void {
  const delay = metrics.histogram('sallyport_event_loop_delay_seconds',
    'By how much a timer was late, looked at four times a second.', loopBounds)
  let cancel: Cancel
  const arm = (): void => {
    const dueMs = clock.monotonicMs() + loopLookMs
    cancel = clock.after(loopLookMs, () => {
      delay.observe(Math.max(0, clock.monotonicMs() - dueMs) / 1000)
      arm()
    })
  }
  arm()
  return () => cancel()
}

function meteredSteps(metrics: Metrics): Meter['steps'] {
  const opened = metrics.counter('sallyport_sessions_opened_total', 'Sessions that came on the books.',
    ['protocol'])
  const ended = metrics.counter('sallyport_sessions_ended_total',
    'Sessions that are over, by how and why (a code of the table of errors, or whose side closed).',
    ['protocol', 'how', 'code'])
  const refused = metrics.counter('sallyport_sessions_refused_total',
    'Logins and sessions that were refused before there was a session, by code.',
    ['protocol', 'step', 'code'])
  const counting = async <T>(step: string, claim: Claim, act: () => Promise<T>): Promise<T> => {
    try {
      return await act()
    } catch (thrown) {
      refused.add([claim.protocol, step, asSallyportError(thrown).code])
      throw thrown
    }
  }
  const untilEnded = (session: OpenSession, { protocol }: Claim): OpenSession => ({
    id: session.id, grant: session.grant, signal: session.signal,
    end: ending => session.end(ending),
    get ending() { return session.ending },
    [Symbol.asyncDispose]: async () => {
      ended.add([protocol, session.ending.how, session.ending.reason])
      await session[Symbol.asyncDispose]()
    }
  })
  return steps => ({
    ...steps,
    authenticate: (claim, prove, person) =>
      counting('authenticate', claim, () => steps.authenticate(claim, prove, person)),
    authorise: (user, claim) => counting('authorise', claim, () => steps.authorise(user, claim)),
    approve: (decision, claim, person) =>
      counting('approve', claim, () => steps.approve(decision, claim, person)),
    open: (grant, claim, tell) => counting('open', claim, async () => {
      const session = await steps.open(grant, claim, tell)
      opened.add([claim.protocol])
      return untilEnded(session, claim)
    })
  })
}

function meteredHooks(metrics: Metrics, clock: Clock): Meter['hooks'] {
  const took = metrics.histogram('sallyport_hook_seconds',
    'How long hooks took, their waiting for the target included, by plugin, verb and outcome.', hookBounds,
    ['plugin', 'verb', 'outcome'])
  const timed = async <T>(plugin: string, verb: string, act: () => Promise<T>): Promise<T> => {
    const startedMs = clock.monotonicMs()
    const tell = (outcome: string): void =>
      took.observe((clock.monotonicMs() - startedMs) / 1000, [plugin, verb, outcome])
    try {
      const result = await act()
      tell('done')
      return result
    } catch (thrown) {
      tell('failed')
      throw thrown
    }
  }
  return hooks => ({
    async run(job) {
      const result = await hooks.run(job)
      took.observe(result.tookMs / 1000, [job.pluginId, job.action, result.state])
      return result
    },
    verify: job => timed(job.pluginId, 'verify', () => hooks.verify(job)),
    probe: (plugin, ...rest) => timed(plugin, 'probe', () => hooks.probe(plugin, ...rest)),
    listOwned: (plugin, access) => timed(plugin, 'list-owned', () => hooks.listOwned(plugin, access)),
    health: () => hooks.health(),
    close: () => hooks.close()
  })
}

function meteredStore(metrics: Metrics, clock: Clock): Meter['ledgerStore'] {
  const outcomes = metrics.counter('sallyport_removals_total',
    'Attempts to remove an account, by the state that it was left in.', ['state'])
  const proof = metrics.histogram('sallyport_removal_proof_seconds',
    'From the end of the last lease of an account to the proof that it is gone, both on this node.',
    proofBounds)
  /** Monotonic instants since which nobody wants an account. */
  const since = new Map<string, number>()
  const unwanted = (account: string): void => {
    if (since.size < removalsMax && !since.has(account)) since.set(account, clock.monotonicMs())
  }
  return store => ({
    ...store,
    async end(request) {
      const ended = await store.end(request)
      if (ended.claim !== undefined) unwanted(ended.claim.accountId)
      return ended
    },
    async expire(limit) {
      const ended = await store.expire(limit)
      for (const { accountId } of ended) unwanted(accountId)
      return ended
    },
    async finish(claimant, claim, result) {
      const outcome = await store.finish(claimant, claim, result)
      outcomes.add([outcome === 'fenced' ? 'overtaken' : result.state])
      const startedMs = since.get(claim.accountId)
      if (outcome === 'done' && result.state === 'proved-gone' && startedMs !== undefined) {
        proof.observe((clock.monotonicMs() - startedMs) / 1000)
        since.delete(claim.accountId)
      }
      return outcome
    }
  })
}
