// The rooms of a running program and the order in which they open: keys, store, evidence, hooks, ledger. Each
// gets the ports that it declares and nothing else. `open` gives back what it took when a later room does not
// open.
import { createHmac, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { LoginPorts } from '../api/ports-login.ts'
import type { Cancel, Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { createHooks } from '../jit/hooks.ts'
import { rememberOutcomes } from '../jit/last-outcomes.ts'
import type { RememberingHooks } from '../jit/last-outcomes.ts'
import { mintName } from '../jit/names.ts'
import { createShelf } from '../jit/shelf.ts'
import type { Shelf } from '../jit/shelf.ts'
import { createLedger } from '../lease/ledger.ts'
import type { Ledger } from '../lease/ledger.ts'
import { ledgerLimits } from '../lease/limits.ts'
import type { Log } from '../log.ts'
import { createNodes } from '../nodes/nodes.ts'
import type { Nodes } from '../nodes/nodes.ts'
import type { Declared, SecretReference } from '../policy/types.ts'
import { openRecordings } from '../recording/recordings.ts'
import type { Recordings } from '../recording/recordings.ts'
import type { Fate } from '../recording/recover.ts'
import type { Secret } from '../secret.ts'
import { createRegistry } from '../session/registry.ts'
import type { Registry } from '../session/registry.ts'
import { createApplicationTokens } from '../store/application-tokens.ts'
import type { ApplicationTokens } from '../store/application-tokens.ts'
import { openAudit } from '../store/audit.ts'
import type { AuditLog } from '../store/audit.ts'
import { createAuditOutbox } from '../store/audit-outbox.ts'
import { openDatabase } from '../store/database.ts'
import type { Database } from '../store/database.ts'
import { openSigner } from '../store/keys.ts'
import type { Signer } from '../store/keys.ts'
import { createHostKeys } from '../store/host-keys.ts'
import { createIdempotencyKeys } from '../store/idempotency.ts'
import type { IdempotencyKeys } from '../store/idempotency.ts'
import { createLedgerStore } from '../store/ledger.ts'
import { createNodeRows } from '../store/nodes.ts'
import { createReceipts } from '../store/receipts.ts'
import type { Receipts } from '../store/receipts.ts'
import { createRenewals } from '../store/renewals.ts'
import { createRequests, withdrawAsked } from '../store/requests.ts'
import { createResources } from '../store/resources.ts'
import type { Resources } from '../store/resources.ts'
import { openSecrets } from '../store/sealing.ts'
import type { SecretStore } from '../store/sealing.ts'
import { createSecondFactors as createSecondFactorRows } from '../store/second-factors.ts'
import { createSessions } from '../store/sessions.ts'
import type { SessionRow, Sessions } from '../store/sessions.ts'
import { instanceId } from '../store/settings.ts'
import { createTemplates } from '../store/templates.ts'
import type { Templates } from '../store/templates.ts'
import { createTokens } from '../store/tokens.ts'
import type { Tokens } from '../store/tokens.ts'
import { createTickets } from '../proxy/tcp/tickets.ts'
import type { Tickets } from '../proxy/tcp/tickets.ts'
import { mockVerifier } from '../wire/postgres/verifier.ts'
import { shippedPlugins } from '../../plugins/shipped.ts'
import { createApprovals } from './approvals.ts'
import type { Approvals } from './approvals.ts'
import { startDeliveries } from './deliveries.ts'
import type { Deliveries } from './deliveries.ts'
import { createCodeGuard } from './code-guard.ts'
import { createLedgerHooks } from './hooks.ts'
import { createHostKeysOf } from './host-keys.ts'
import type { HostKeysOf } from './host-keys.ts'
import { createLogins } from './logins.ts'
import { createLiveSessions } from './live-sessions.ts'
import type { LiveSessions } from './live-sessions.ts'
import { createMeter } from './meter.ts'
import type { Meter } from './meter.ts'
import type { Secrets } from '../secrets/secrets.ts'
import { createRules } from './rules.ts'
import type { Rules } from './rules.ts'
import { createSecondFactors } from './second-factors.ts'
import type { SecondFactors } from './second-factors.ts'
import { maximums, openSecretRoom } from './secrets.ts'
import { shippedTemplates } from './templates.ts'
import { createVerifiers } from './verifiers.ts'
import type { VerifierOf } from './verifiers.ts'
import { version } from './version.ts'

export interface Rooms {
  config: Config
  clock: Clock
  log: Log
  meter: Meter
  signer: Signer
  database: Database
  audit: AuditLog
  checkpointFile: string
  resources: Resources
  templates: Templates
  tokens: Tokens
  applicationTokens: ApplicationTokens
  idempotency: IdempotencyKeys
  secrets: Secrets
  sessions: Sessions
  receipts: Receipts
  recordings: Recordings
  shelf: Shelf
  hooks: RememberingHooks
  ledger: Ledger
  registry: Registry
  liveSessions: LiveSessions
  nodes: Nodes
  approvals: Approvals
  deliveries: Deliveries
  rules: Rules
  declared(): Promise<Declared>
  openSecret(reference: SecretReference): Promise<Secret<string>>
  hostKeysOf: HostKeysOf
  verifierOf: VerifierOf
  secondFactors: SecondFactors
  logins: LoginPorts
  /** For the listener of TCP targets. */
  tickets: Tickets
  /** Closes in reverse. Never throws. */
  close(): Promise<void>
}

/** Opens everything that needs no listener. Throws SallyportError (`store-unavailable`, `seal-broken` …). */
export async function openRooms(config: Config, clock: Clock, log: Log): Promise<Rooms> {
  const closers: (() => Promise<unknown> | void)[] = []
  const close = async (): Promise<void> => {
    for (const act of closers.reverse()) {
      try {
        await act()
      } catch (thrown) {
        log.error({ error: String(thrown) }, 'a room did not close in order')
      }
    }
    closers.length = 0
  }
  try {
    return { ...await openAll(config, clock, log, closers), close }
  } catch (thrown) {
    await close()
    throw thrown
  }
}

async function openAll(
  config: Config, clock: Clock, log: Log, closers: (() => Promise<unknown> | void)[]
): Promise<Omit<Rooms, 'close'>> {
  const onNotice = (line: string): void => log.warn({}, line)
  // The audit chain is named by the first; sessions and ledger go on under another if we are declared dead.
  let boot = `${clock.now().getTime().toString(36)}-${randomBytes(4).toString('hex')}`
  const { node } = config
  const meter = createMeter(clock)
  closers.push(() => meter.close())
  const signer = openSigner(config.data)
  const database = await openDatabase({
    store: config.store.kind === 'pglite' ? 'pglite' : config.store.url.expose(),
    dataDir: config.store.kind === 'pglite' ? config.store.directory : config.data, clock, onNotice
  })
  closers.push(() => database.close())
  // Whoever needs the store hears that it is away; here only its clock matters.
  closers.push(repeatedly(clock, clockLookMs, () => database.now()))
  const { masterKey, oldMasterKeys } = config
  const secrets = await openSecrets({ database, masterKey, oldMasterKeys })
  const checkpointFile = join(config.data, 'checkpoints.jsonl')
  const instance = await instanceId(database)
  const audit = await openAudit({ database, clock, signer, node, boot, instance, checkpointFile, onNotice })
  closers.push(() => audit.close())
  if (oldMasterKeys.length > 0) await rotate(secrets, audit, log)
  const outbox = createAuditOutbox(database, `${node}/${boot}`)
  const deliveries = startDeliveries({ config, clock, log, audit, outbox, version })
  closers.push(() => deliveries.close())
  const resources = createResources(database, secrets, audit)
  const templates = createTemplates(database)
  await templates.ship(shippedTemplates(await templates.shipped()))
  const sessions = createSessions({ database, clock, node, boot: () => boot })
  closers.push(() => sessions.close())

  const recordings = openRecordings({
    dir: config.recordings.directory, signer, clock, mode: config.recordings.mode,
    limits: { reserveBytes: config.limits.recordingsReserve, reserveShare: 0 },
    onLost: (session, error) => {
      meter.recordingLost()
      log.error({ session, reference: error.reference, detail: error.detail }, 'a recording was lost')
      void audit.append('recording.lost', 'system', session, { detail: error.detail }).catch(() => undefined)
    }
  })
  closers.push(() => recordings.close())
  await recover(database, sessions, recordings, audit, log)

  const shelf = createShelf(shippedPlugins)
  const declared = (): Promise<Declared> => resources.declared()
  const openSecret = (reference: SecretReference): Promise<Secret<string>> => secrets.open(reference.secret)
  const connectMs = config.limits.hookConnect * 1000
  const hostKeysOf = createHostKeysOf(createHostKeys(database), audit, clock, connectMs)
  const registry = createRegistry(clock)
  const hooks = rememberOutcomes(meter.hooks(createHooks({
    shelf, clock, log: line => log.info({}, line), onRecovered: target => void ledger.recovered(target),
    limits: {
      connectMs, statementMs: config.limits.hookStatement * 1000,
      actionMs: config.limits.hookAction * 1000
    }
  })), clock)
  closers.push(() => hooks.close())
  const ledger: Ledger = createLedger({
    store: meter.ledgerStore(createLedgerStore(database, audit)),
    hooks: createLedgerHooks(hooks, shelf, { declared, openSecret, hostKeysOf }),
    clock, node, log, boot, onBoot: next => { boot = next },
    signer: { sign: bytes => ({ keyId: signer.keyId, signature: signer.sign(bytes).toString('base64') }) },
    audit,
    sessions: {
      cut: (session, error) => registry.cut(session, error), cutAll: error => registry.cutAll(error),
      closeFenced: () => interrupt(database, audit, () => sessions.interruptFenced())
    },
    secrets: {
      put: plain => secrets.put('account', plain),
      open: id => secrets.open(id),
      forget: id => secrets.remove(id)
    },
    mintName: ({ namePattern }) => mintName(namePattern),
    maximums: () => maximums({ declared, clock })
  })
  await ledger.start()
  closers.push(() => ledger.stop())

  const idempotency = createIdempotencyKeys(database, secrets, node, () => boot)
  closers.push(repeatedly(clock, sweepMs, () => idempotency.sweep()))

  const room = { clock, declared, openSecret, templates, ledger, audit, log }
  const opened = openSecretRoom(room, createRenewals(database, secrets, audit))
  closers.push(() => opened.close())

  const rules = createRules(clock, log)
  closers.push(() => rules.close())
  const requests = createRequests(database, audit)
  const approvals = createApprovals({
    clock, log, requests, changed: request => liveSessions.requestChanged(request)
  })
  const liveSessions = createLiveSessions({
    node, clock, log, database, registry, sessions, declared, validOf: user => requests.validOf(user),
    heard: request => approvals.heard(request)
  })

  // The same for the same name, on every node and after every restart: nothing tells a name that does not
  // exist.
  const signature = signer.sign(Buffer.from(instance))
  const keyFor = (what: string): Buffer =>
    createHmac('sha256', `sallyport ${what}`).update(signature).digest()
  const seed = keyFor('mock verifier')
  const nodes = createNodes({
    key: keyFor('nodes'), node, clock, rows: createNodeRows(database, ledgerLimits.nodeTtlMs),
    now: () => database.now()
  })
  return {
    config, clock, log, meter, signer, database, audit, checkpointFile, resources, templates,
    tokens: createTokens(database), idempotency, applicationTokens: createApplicationTokens(database, audit),
    secrets: opened.secrets, sessions, receipts: createReceipts(database), recordings, shelf, hooks, ledger,
    registry, liveSessions, nodes, approvals, deliveries, rules, declared, openSecret, hostKeysOf,
    verifierOf: createVerifiers(openSecret, name => mockVerifier(seed, name)),
    tickets: createTickets(clock),
    logins: createLogins({ config, clock, database, audit, key: keyFor('logins') }),
    secondFactors: createSecondFactors(
      createSecondFactorRows(database, secrets, audit), () => database.now(), createCodeGuard(clock))
  }
}

// F19: the store's clock and ours are compared as they are read; a jump of either is then in the log.
const clockLookMs = 30_000

// Answers are kept for ten minutes, and half a minute more.
const sweepMs = 30_000

/** Does something now and then again; what fails is tried again at the next time. */
function repeatedly(clock: Clock, everyMs: number, act: () => Promise<unknown>): () => void {
  let cancel: Cancel
  const look = (): void => {
    act().catch(() => undefined)
    cancel = clock.after(everyMs, look)
  }
  look()
  return () => cancel()
}

/**
 * A new master key with the old ones beside it: every value is wrapped anew; afterwards the old ones may go.
 */
async function rotate(secrets: SecretStore, audit: AuditLog, log: Log): Promise<void> {
  const { rewrapped, unopened } = await secrets.rotate()
  const detail = { masterKey: secrets.masterKeyId, rewrapped, unopened: unopened.length }
  if (rewrapped > 0 || unopened.length > 0) {
    await audit.append('master-key.rotated', 'system', 'store', detail)
  }
  if (unopened.length > 0) log.error(detail, 'some sealed values belong to no master key that was given')
  else log.info(detail, 'all sealed values are under the current master key: oldMasterKeys may be removed')
}

/** What the store says of a recording that was found open: a seal that it knows of must be there (R5). */
function fateIn(sessions: Sessions): (session: string) => Promise<Fate> {
  return async id => {
    const row = await sessions.get(id)
    if (row === undefined) return 'unfinished'
    if (row.recordingHead !== null) return 'sealed'
    return row.status === 'opening' || row.status === 'live' ? 'live' : 'unfinished'
  }
}

/**
 * After a crash: rows of sessions that nobody runs any more are closed, their recordings sealed as
 * interrupted.
 */
async function recover(
  database: Database, sessions: Sessions, recordings: Recordings, audit: AuditLog, log: Log
): Promise<void> {
  await interrupt(database, audit, () => sessions.interruptOlderBoots())
  for (const { session, outcome, summary, detail } of await recordings.recover(fateIn(sessions))) {
    log.warn({ session, outcome, detail }, 'the recording of an interrupted session')
    const kept = { outcome, detail, headHash: summary?.headHash }
    await audit.append('recording.recovered', 'system', session, kept)
    if (summary !== undefined) await sessions.recorded(session, summary)
  }
}

/** Closes rows of sessions, each with its event, and takes back what they had asked for. */
async function interrupt(
  database: Database, audit: AuditLog, close: () => Promise<readonly SessionRow[]>
): Promise<void> {
  await database.transaction(async tx => {
    const closed = await close()
    for (const { id, node, boot } of closed) {
      audit.appendIn(tx, 'session.interrupted', 'system', id, { node, boot })
    }
    await withdrawAsked(tx, audit, closed.map(({ id }) => id))
  })
}
