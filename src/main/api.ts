// The ports of the API, over the rooms that are open. Nothing is decided here: each member names the room
// that answers, and reshapes where two rooms say the same thing in different words.
import { statfsSync } from 'node:fs'
import { hostname } from 'node:os'
import type { ApiPorts, SshDoor, TunnelDoor } from '../api/ports.ts'
import type { HealthCheck } from '../api/ports-records.ts'
import { SallyportError } from '../errors.ts'
import type { Address } from '../input.ts'
import { choicesFor, choicesOf } from '../policy/authorise.ts'
import { printLoginName, readLoginName } from '../policy/login-name.ts'
import { createPenalties } from '../proxy/penalties.ts'
import { exportAudit, listAudit, verifyStoredAudit } from '../store/audit-read.ts'
import { describeProblem } from '../store/audit-verify.ts'
import { makeVerifier, verifyPassword } from '../wire/postgres/verifier.ts'
import type { Delivery } from './deliveries.ts'
import { createEvidence } from './evidence.ts'
import { listenerHostKeys } from './host-keys.ts'
import type { Rooms } from './rooms.ts'
import { createProve } from './prove.ts'
import { revokeWithdrawn } from './secrets.ts'
import { createOrphans, examineTargets } from './targets.ts'
import { openUserAuthority } from './user-authority.ts'
import { version } from './version.ts'

export function apiPorts(rooms: Rooms): ApiPorts {
  const {
    clock, config, database, resources, templates, tokens, sessions, receipts, ledger, audit
  } = rooms
  const penalties = createPenalties(clock, config.limits.loginFailuresPerMinuteMax)
  return {
    clock, version, node: config.node, shelf: rooms.shelf, tokens,
    applicationTokens: rooms.applicationTokens, idempotency: rooms.idempotency,
    resources: {
      ...resources,
      async changed() {
        await resources.changed()
        await rooms.liveSessions.declaredChanged()
        // Each revocation waits for its target: whoever declared it does not.
        void revokeWithdrawn(rooms)
      }
    },
    templates: {
      ...templates,
      save: ({ id, plugin, action, body, author }) =>
        templates.save({ id, plugin, action, body, author, shipped: false })
    },
    prove: createProve(rooms),
    passwords: {
      makeVerifier: password => makeVerifier(password.expose()),
      matches: (verifier, password) => verifyPassword(password.expose(), verifier),
      verifierOf: rooms.verifierOf,
      admit(address) {
        if (penalties.throttled(address)) throw new SallyportError('auth-throttled', { detail: address })
      },
      tried(address, succeeded) {
        if (!succeeded) penalties.failed(address)
      }
    },
    policy: { declared: rooms.declared, readLoginName, printLoginName, choicesOf, choicesFor },
    ssh: () => sshDoor(rooms),
    tunnel: () => tunnelDoor(rooms),
    browserTicket: (user, login) => rooms.tickets.issue(user, { kind: 'web', user, login }),
    postgres: () => config.listen.postgres === undefined ? undefined : reachedAt(config.listen.postgres),
    secondFactors: rooms.secondFactors,
    logins: rooms.logins,
    sessions: {
      ...sessions,
      receipts: ids => receipts.newestOf(ids),
      kill: (id, by) => rooms.liveSessions.kill(id, by)
    },
    recordings: createEvidence(
      config.recordings.directory, clock, rooms.signer.publicKey, rooms.rules),
    nodes: rooms.nodes,
    leases: ledger,
    requests: rooms.approvals,
    secrets: rooms.secrets,
    orphans: createOrphans(rooms, rooms.hooks, ledger),
    audit: {
      append: (kind, actor, subject, detail) => audit.append(kind, actor, subject, detail),
      list: filter => listAudit(database, filter),
      async verify(exported) {
        await audit.checkpoint()
        const verdict = await verifyStoredAudit({
          database, checkpointFile: rooms.checkpointFile, publicKeys: [rooms.signer.publicKey], exported
        })
        rooms.meter.auditVerified(verdict.valid)
        return { ...verdict, problems: verdict.problems.map(describeProblem) }
      },
      async export(filter) {
        await audit.checkpoint()
        return exportAudit(database, filter)
      }
    },
    health: {
      ready: async () => {
        if (rooms.registry.draining()) return false
        await database.now()
        return true
      },
      metrics: () => rooms.meter.print(rooms, version),
      examine: signal => examine(rooms, signal),
      hooks: () => ({ queues: rooms.hooks.health(), last: rooms.hooks.lastOutcomes() })
    },
    failed: (error, request) => rooms.log.error({
      code: error.code, reference: error.reference, detail: error.detail, request
    }, 'request failed')
  }
}

function sshDoor({ config, clock }: Rooms): SshDoor | undefined {
  const at = config.listen.ssh
  if (at === undefined) return undefined
  const { publicKey, authority } = listenerHostKeys(config.data, clock)
  const { line: userAuthority } = openUserAuthority(config.data, clock)
  return { ...reachedAt(at), hostKey: publicKey, hostAuthority: authority, userAuthority }
}

function tunnelDoor({ config, tickets }: Rooms): TunnelDoor | undefined {
  const at = config.listen.tcp
  if (at === undefined) return undefined
  return {
    ...reachedAt(at), issue: (user, login) => tickets.issue(user, { kind: 'session', user, login })
  }
}

/** Whoever listens on every address is reached by the name of the machine. */
function reachedAt({ host, port }: Address): Address {
  return { host: host === '0.0.0.0' || host === '::' ? hostname() : host, port }
}

async function examine(rooms: Rooms, signal: AbortSignal): Promise<HealthCheck[]> {
  const { config, database, ledger, hooks } = rooms
  const storeNow = await database.now()
  const skewMs = Math.abs(storeNow.getTime() - rooms.clock.now().getTime())
  const { bavail, bsize } = statfsSync(config.recordings.directory)
  const freeMebibytes = Math.floor(bavail * bsize / 1024 / 1024)
  const gauges = await ledger.gauges()
  const { stuck = 0, quarantined = 0, unreachable = 0 } = gauges.accounts
  const left = stuck + quarantined + unreachable
  const recorder = rooms.recordings.stats()
  return [
    { name: 'store', status: 'ok', detail: `${database.store} answers` },
    {
      name: 'clock', status: skewMs > 5000 ? 'warning' : 'ok',
      detail: `this node and the store differ by ${skewMs} ms`
    },
    {
      name: 'recordings', status: bavail * bsize > config.limits.recordingsReserve ? 'ok' : 'failed',
      detail: `${freeMebibytes} MiB free, ${recorder.open} open, ${recorder.lost} lost`
        + (recorder.slow ? ', slow' : '')
    },
    {
      name: 'removals', status: left > 0 ? 'failed' : 'ok',
      detail: left > 0
        ? `${stuck} stuck, ${quarantined} quarantined, ${unreachable} unreachable: see \`leases list\``
        : `nothing waits; ${gauges.holds} leases are live`
    },
    ...(await rooms.nodes.look(signal)).map(({ node, url, problem }) => ({
      name: `node ${node}`, status: problem === undefined ? 'ok' as const : 'warning' as const,
      detail: problem ?? `answers at ${url}`
    })),
    ...hooks.health().filter(each => each.breaker !== 'closed').map(each => ({
      name: `hooks of ${each.target}`, status: 'warning' as const,
      detail: `wait for the target: ${each.lastError ?? 'failing'}`
    })),
    ...(await rooms.deliveries.look()).map(deliveryCheck),
    ...await examineTargets(rooms, hooks, openUserAuthority(config.data, rooms.clock).line, signal)
  ]
}

function deliveryCheck({ receiver, failure, behind }: Delivery): HealthCheck {
  const { events, oldestSeconds, aside, givenUp, givenUpAt } = behind
  const words = [
    `${events} events wait${failure === undefined ? '' : `: ${failure}`}`,
    ...events + aside > 0 ? [`the oldest is ${Math.round(oldestSeconds)} s old`] : [],
    ...aside > 0 ? [`${aside} refused, and tried again`] : [],
    ...givenUp > 0 ? [`${givenUp} given up, last ${givenUpAt?.toISOString()}: see \`audit list\``] : []
  ]
  const status = failure !== undefined ? 'failed' : aside + givenUp > 0 ? 'warning' : 'ok'
  return { name: `audit to ${receiver}`, status, detail: words.join('; ') }
}
