// The whole program on one screen: read the configuration, open the rooms, listen, close in reverse. Read
// this first; then session/session.ts, the order of every session. The rooms are opened in main/rooms.ts;
// what each gets from the others is in the files beside it.
import { setFlagsFromString } from 'node:v8'
import { systemClock } from './clock.ts'
import { publishLocalAdmin, mintLocalToken, withdrawLocalAdmin } from './api/local-admin.ts'
import { createFirstAdminToken, createIdentify } from './api/access.ts'
import { serveMetrics } from './api/metrics-server.ts'
import { createSallyportApi } from './api/routes.ts'
import { serveApi } from './api/server.ts'
import { createUpgrade } from './api/upgrade.ts'
import { readConfig } from './config.ts'
import type { Config } from './config.ts'
import { asSallyportError } from './errors.ts'
import { printAddress } from './input.ts'
import { createLog } from './log.ts'
import { requestOf } from './main/accounts.ts'
import { apiPorts } from './main/api.ts'
import { createConfirmations } from './main/confirmations.ts'
import { consoleFiles } from './main/console.ts'
import { readGiven } from './main/given-secret.ts'
import { addressOf } from './main/hooks.ts'
import { listenerHostKeys, locate } from './main/host-keys.ts'
import { openRooms } from './main/rooms.ts'
import type { Rooms } from './main/rooms.ts'
import { listenerKeys } from './main/tls.ts'
import type { ListenerKeys } from './main/tls.ts'
import { certified, openUserAuthority } from './main/user-authority.ts'
import { version } from './main/version.ts'
import { authorise, choicesFor } from './policy/authorise.ts'
import { readLoginName } from './policy/login-name.ts'
import type { ChannelKind } from './policy/types.ts'
import { defaultLimits, listenPostgres } from './proxy/postgres/listen.ts'
import { doorSetting, listenSsh } from './proxy/ssh/listen.ts'
import { ssh2 } from './proxy/ssh/ssh2.ts'
import { listenTcpTargets } from './proxy/tcp/listen.ts'
import { openWeb } from './proxy/web/listen.ts'
import type { Web } from './proxy/web/listen.ts'
import { run } from './session/session.ts'
import { createSteps } from './session/steps.ts'
import type { Steps } from './session/session.ts'

export interface Program {
  rooms: Rooms
  /**
   * Takes no new sessions, lets the running ones go on for `limits.drain`, cuts the rest, proves them gone.
   */
  close(): Promise<void>
}

/** Opens the program; when this resolves it serves. Throws SallyportError. */
export async function openProgram(config: Config): Promise<Program> {
  const log = createLog(config.log.level)
  const keys = listenerKeys(config, systemClock)
  const rooms = await openRooms(config, systemClock, log)
  try {
    const steps = rooms.meter.steps(createSteps(stepPorts(rooms)))
    const web = openPages(rooms, steps)
    const closeApi = await openApi(rooms, keys, web)
    const postgres = await openPostgres(rooms, keys, steps)
    const ssh = await openSsh(rooms, steps)
    const tcp = await openTcp(rooms, keys, steps)
    log.info({ node: config.node, store: rooms.database.store, version }, 'sallyport serves')
    return {
      rooms,
      async close() {
        const told = rooms.approvals.close()
        web.close()
        await Promise.all([told, postgres?.close(), ssh?.close(), tcp?.close()])
        await rooms.registry.drain(config.limits.drain * 1000)
        await closeApi()
        await rooms.close()
      }
    }
  } catch (thrown) {
    await rooms.close()
    throw thrown
  }
}

async function openApi(rooms: Rooms, keys: ListenerKeys, web: Web): Promise<() => Promise<void>> {
  const { config, clock, log } = rooms
  const { metrics } = config
  const metricsToken = metrics.token === undefined ? undefined : readGiven(metrics.token, 'metrics.token')
  const ports = apiPorts(rooms)
  const closeMetrics = await openMetrics(ports, metrics.listen)
  if (config.listen.http === undefined) {
    await rooms.nodes.advertise(undefined)
    return closeMetrics
  }
  const localToken = mintLocalToken()
  const app = createSallyportApi(ports, {
    localToken, loginTokenSeconds: config.limits.loginToken, console: consoleFiles(), metricsToken
  })
  const upgrade = createUpgrade({ ...web, app, identify: createIdentify(ports, localToken) })
  const server = await serveApi(app, config.listen.http, keys, clock, upgrade)
  const { advertise: url } = config.api
  await rooms.nodes.advertise(url === undefined ? undefined : { url, certificate: keys.certificate })
  await publishLocalAdmin(config.data, localToken, server.address)
  const first = await createFirstAdminToken(ports)
  if (first !== undefined) process.stderr.write(`one-time admin token (sallyport login --token): ${first}\n`)
  log.info({ address: printAddress(server.address) }, 'api listens')
  return async () => {
    await withdrawLocalAdmin(config.data)
    await server.close(1000)
    await closeMetrics()
  }
}

async function openMetrics(
  { health }: ReturnType<typeof apiPorts>, at: Config['metrics']['listen']
): Promise<() => Promise<void>> {
  if (at === undefined) return async () => undefined
  const server = await serveMetrics(health, at)
  return () => server.close()
}

async function openPostgres(rooms: Rooms, keys: ListenerKeys, steps: Steps) {
  const { config, clock, log } = rooms
  const at = config.listen.postgres
  if (at === undefined) return undefined
  const listener = await listenPostgres({
    ...at, clock, log, tls: { key: keys.key, cert: keys.certificate, required: config.tls.required },
    limits: limitsOf(config),
    onSession: front => serveSession(rooms, steps, front)
  })
  log.info({ address: `${at.host}:${listener.address.port}` }, 'postgres listens')
  return listener
}

async function openSsh(rooms: Rooms, steps: Steps) {
  const { config, clock, log } = rooms
  const at = config.listen.ssh
  if (at === undefined) return undefined
  const keys = listenerHostKeys(config.data, clock)
  const listener = await listenSsh({
    ...at, log, ...sshSessions(rooms), hostKeys: [keys.hostKey], certify: host => keys.certify(host),
    onSession: front => serveSession(rooms, steps, front)
  })
  const crypto = ssh2().nativeCrypto ? 'native' : 'javascript'
  log.info({ address: `${at.host}:${listener.address.port}`, 'ssh crypto': crypto }, 'ssh listens')
  if (!ssh2().hasKem) log.warn({}, 'ssh key exchange: not safe from quantum computers; Node 24.7 has ML-KEM')
  if (crypto !== 'native') log.warn({}, 'ssh crypto: javascript, at three times the CPU; see tool/native.ts')
  return listener
}

/** What sessions over SSH have in common, whether their client is ssh or a page of the console. */
function sshSessions({ config, clock, audit }: Rooms) {
  const { hashes, outputMax, outputPerSecond, fileCopyMax, fileCopiesMax } = config.recordings
  return {
    clock, limits: limitsOf(config),
    evidence: {
      hashes, outputKeptBytesMax: outputMax, outputBytesPerSecond: outputPerSecond,
      copies: { fileBytesMax: fileCopyMax, sessionBytesMax: fileCopiesMax }
    },
    onRefused: (session: string, what: string, right: ChannelKind | undefined) => {
      void audit.append('channel.refused', 'system', session, { what, right }).catch(() => undefined)
    }
  }
}

/** Sessions in a page of the console, over the API's own listener. */
function openPages(rooms: Rooms, steps: Steps): Web {
  const { clock } = rooms
  return openWeb({
    clock, terminal: doorSetting(sshSessions(rooms)),
    sql: { clock, timeouts: { ...defaultLimits, ...limitsOf(rooms.config) } },
    onSession: front => serveSession(rooms, steps, front)
  })
}

async function openTcp(rooms: Rooms, keys: ListenerKeys, steps: Steps) {
  const { config, clock, log, tickets } = rooms
  const at = config.listen.tcp
  if (at === undefined) return undefined
  const listener = await listenTcpTargets({
    ...at, clock, log, tickets, tls: { key: keys.key, cert: keys.certificate }, limits: limitsOf(config),
    onSession: front => serveSession(rooms, steps, front)
  })
  log.info({ address: `${at.host}:${listener.address.port}` }, 'tcp targets listen')
  return listener
}

/** What the limits of the configuration mean to each listener. */
function limitsOf({ limits }: Config) {
  const { loginGrace, hookConnect, connectionsMax } = limits
  const { unauthenticatedPerAddressMax, loginFailuresPerMinuteMax } = limits
  return {
    connectionsMax, unauthenticatedPerAddressMax, loginFailuresPerMinuteMax,
    loginGraceMs: loginGrace * 1000, connectMs: hookConnect * 1000
  }
}

async function serveSession<Upstream>(
  { log }: Rooms, steps: Steps, front: Parameters<typeof run<Upstream>>[0]
): Promise<void> {
  const { how, reason, reference, detail } = await run(front, steps)
  if (how === 'cut') log.info({ reason, reference, detail }, 'session ended')
}

function stepPorts(rooms: Rooms): Parameters<typeof createSteps>[0] {
  const {
    clock, config, registry, sessions, audit, recordings, ledger, declared, openSecret, templates, approvals
  } = rooms
  const authority = openUserAuthority(config.data, clock)
  const certifying = { authority, audit, sources: config.ssh.certificateSources }
  return {
    clock, node: config.node, registry, declared, authorise, choicesFor, sessions, openSecret,
    approvals, ...rooms.rules,
    namesCredential: (login, database) => readLoginName(login, database)?.credential !== undefined,
    authorities: config.ssh.userAuthorities,
    located: target => locate(addressOf(target), rooms.hostKeysOf),
    userOf: (login, database) => readLoginName(login, database)?.user,
    verifierOf: rooms.verifierOf,
    admits: ({ text, user, login }) => {
      const bearer = rooms.tickets.take(text)
      return bearer?.kind === 'web' && bearer.user === user && bearer.login === login
    },
    secondFactorOf: (name, address) => rooms.secondFactors.of(name, address),
    confirmations: createConfirmations(rooms),
    audit: (kind, actor, subject, detail) => audit.append(kind, actor, subject, detail),
    createRecording: head => recordings.create(head),
    issue: async (session, tell) => {
      const request = await requestOf({ ...rooms, template: id => templates.get(id) }, session, tell)
      return certified(certifying, await ledger.issue(request), request.spec.open, session)
    }
  }
}

/**
 * Serves until SIGINT or SIGTERM; a defect that nobody caught ends the process, and the next start recovers.
 */
export async function serve(config: Config): Promise<void> {
  // Sessions are many, long and mostly idle: the heap for new objects stays small. Grown by a rush of logins
  // it is not given back, and 2,000 idle sessions seem to take three times as much.
  setFlagsFromString('--semi-space-growth-factor=1')
  // Rejections that nobody handled come here too. What state the rooms are in is not known: nothing is
  // closed.
  process.on('uncaughtException', thrown => {
    const { reference, detail } = asSallyportError(thrown)
    const fields = { code: 'internal', reference, detail, stack: thrown.stack }
    createLog('error').error(fields, 'a defect ends this node')
    process.exit(1)
  })
  const program = await openProgram(config)
  await new Promise<void>(resolve => {
    process.once('SIGINT', () => resolve())
    process.once('SIGTERM', () => resolve())
  })
  await program.close()
}

if (import.meta.main) {
  try {
    await serve(readConfig())
    process.exit(0)
  } catch (thrown) {
    const { code, detail, problems, reference } = asSallyportError(thrown)
    process.stderr.write([`sallyport: ${code} ${reference}: ${detail ?? ''}`, ...problems, ''].join('\n'))
    process.exit(1)
  }
}
