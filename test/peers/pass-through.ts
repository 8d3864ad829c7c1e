// The PostgreSQL front end on its own: a listener whose steps know one user with one password, and one role
// on the target. No policy, no ledger, no hooks; recordings are real. Journeys with stock clients and hostile
// peers run against it, so that what they find is the front's doing. Also a program: `node
// test/peers/pass-through.ts` with a JSON setting on its standard input, for benchmarks that must measure the
// proxy's process alone.
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { systemClock } from '../../src/clock.ts'
import type { Clock } from '../../src/clock.ts'
import { SallyportError, asSallyportError } from '../../src/errors.ts'
import type { Injectable, TargetAddress } from '../../src/jit/plugin.ts'
import type { Grant } from '../../src/policy/authorise.ts'
import type { User } from '../../src/policy/types.ts'
import { listenPostgres } from '../../src/proxy/postgres/listen.ts'
import type { PostgresListenOptions, PostgresListener } from '../../src/proxy/postgres/listen.ts'
import type { FrontLog } from '../../src/proxy/turn-away.ts'
import { openRecordings } from '../../src/recording/recordings.ts'
import type { Recordings } from '../../src/recording/recordings.ts'
import type { Ending, Recording } from '../../src/recording/recording.ts'
import { Secret } from '../../src/secret.ts'
import type { Claim } from '../../src/session/front.ts'
import { mintSessionId } from '../../src/session/id.ts'
import { run } from '../../src/session/session.ts'
import type { Steps } from '../../src/session/session.ts'
import { makeVerifier, mockVerifier } from '../../src/wire/postgres/verifier.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'

export interface PassThroughOptions {
  target: Omit<TargetAddress, 'name' | 'protocol'>
  /** Who logs in at the target, whatever the client is called. */
  role: string
  /** Who logs in there as this client, instead of `role`. */
  roleOf?: ((login: string) => Promise<string>) | undefined
  password: string
  /** The same from keys instead of a password. */
  keys?: { clientKey: Uint8Array, serverKey: Uint8Array } | undefined
  /** What the client must know. Default: `pass-through`. */
  clientPassword?: string | undefined
  /** Rounds of the client's own hashing; one is enough where a test logs in hundreds of times. */
  iterations?: number | undefined
  database?: string | undefined
  allowReplication?: boolean | undefined
  listen?: Partial<PostgresListenOptions> | undefined
  /** No TLS at all. */
  plain?: boolean | undefined
  /** Runs while the person waits for the account. */
  preparing?: ((tell: (line: string) => void) => Promise<void>) | undefined
  /** Stands between the front and the recording. */
  wrapRecording?: ((recording: Recording) => Recording) | undefined
}

export interface LiveSession {
  claim: Claim
  recording: Recording
  cut(error: SallyportError): void
  tell(line: string): void
}

export interface PassThrough extends AsyncDisposable {
  readonly port: number
  readonly listener: PostgresListener
  /** PEM of the listener's own certificate. */
  readonly certificate: string
  readonly password: string
  readonly recordingsDir: string
  readonly recordings: Recordings
  /** Sessions that are alive, by their login name; the last one of that name. */
  readonly live: Map<string, LiveSession>
  readonly endings: Ending[]
  /** Log lines of the listener. */
  readonly log: string[]
  /** The next ending; of the past ones the first that nobody has taken yet. */
  ended(): Promise<Ending>
  stop(): Promise<void>
}

export const clientPassword = 'pass-through'

/** Starts it on a free port of the loopback interface. */
export async function startPassThrough(options: PassThroughOptions): Promise<PassThrough> {
  const clock: Clock = options.listen?.clock ?? systemClock
  const recordingsDir = mkdtempSync(join(tmpdir(), 'sallyport-pass-'))
  const key = generateKeyPairSync('ed25519').privateKey
  const recordings = openRecordings({
    dir: recordingsDir, clock: systemClock,
    signer: { keyId: 'pass-through', sign: bytes => sign(null, bytes, key) },
    limits: { reserveBytes: 0, reserveShare: 0 }
  })
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'pass-through', names: ['localhost', '127.0.0.1'],
    validFrom: new Date('2020-01-01'), validUntil: new Date('2050-01-01')
  })
  const password = options.clientPassword ?? clientPassword
  const [verifier, seed] = [await makeVerifier(password, { iterations: options.iterations }), randomBytes(32)]
  const live = new Map<string, LiveSession>()
  const endings: Ending[] = []
  const waiting: ((ending: Ending) => void)[] = []
  let taken = 0
  const log: string[] = []
  const keep = (fields: Record<string, unknown>, message: string): void => {
    log.push(`${message} ${JSON.stringify(fields)}`)
  }
  const logging: FrontLog = { info: keep, warn: keep }
  const listener = await listenPostgres({
    host: '127.0.0.1', port: 0, clock, log: logging,
    ...options.plain === true ? {} : { tls: { cert: certificate, key: privateKey } },
    ...options.listen,
    onSession: async front => {
      const steps = stepsOf(options, { verifier, seed, recordings, live, clock })
      const ending = await run(front, steps)
      endings.push(ending)
      const next = waiting.shift()
      if (next !== undefined) {
        taken++
        next(ending)
      }
    }
  })
  const stop = async (): Promise<void> => {
    for (const session of live.values()) session.cut(new SallyportError('shutting-down'))
    await listener.close()
    await recordings.close()
    rmSync(recordingsDir, { recursive: true, force: true })
  }
  return {
    port: listener.address.port, listener, certificate, password, recordingsDir, recordings, live, endings,
    log,
    ended: () => new Promise(resolve => {
      const past = endings[taken]
      if (past === undefined) return waiting.push(resolve)
      taken++
      return resolve(past)
    }),
    stop,
    [Symbol.asyncDispose]: stop
  }
}

interface Shared {
  verifier: string
  seed: Buffer
  recordings: Recordings
  live: Map<string, LiveSession>
  clock: Clock
}

function stepsOf(options: PassThroughOptions, shared: Shared): Steps {
  const { verifier, seed, recordings, live, clock } = shared
  const controller = new AbortController()
  const id = mintSessionId(clock)
  let claimed: Claim
  let tellClient: (line: string) => void = () => undefined
  return {
    async authenticate(claim, prove) {
      claimed = claim
      const known = !claim.login.startsWith('nobody')
      const asked = known ? verifier : mockVerifier(seed, claim.login)
      const proved = await prove({ verifier: asked, publicKeys: [], authorities: [], name: claim.login })
      if (proved === undefined || !known) throw new SallyportError('auth-failed', { detail: claim.login })
      return { name: claim.login } as User
    },
    doors: () => undefined,
    async authorise() {
      return { maxSessionSeconds: 3600 } as Grant
    },
    approve: async decision => decision as Grant,
    async open(grant, _claim, tell) {
      tellClient = tell
      let ending: Ending = { how: 'cut', reason: 'internal' }
      let stated = false
      return {
        id, grant, signal: controller.signal,
        end: how => {
          if (!stated) ending = how
          stated = true
        },
        get ending() { return ending },
        [Symbol.asyncDispose]: async () => { live.delete(claimed.login) }
      }
    },
    async record(session) {
      const made = await recordings.create({
        session: session.id, user: claimed.login, credential: options.role, target: 'target',
        protocol: 'postgres', address: claimed.address, startedAt: clock.now().toISOString(), node: 'test'
      })
      const recording = options.wrapRecording?.(made) ?? made
      recording.failed.addEventListener('abort', () => controller.abort(recording.failed.reason))
      live.set(claimed.login, {
        claim: claimed, recording, cut: error => controller.abort(error), tell: line => tellClient(line)
      })
      return Object.assign(recording, {
        [Symbol.asyncDispose]: async () => { await recording.seal(session.ending) }
      })
    },
    async lease(_session, tell) {
      await options.preparing?.(tell)
      const username = await options.roleOf?.(claimed.login) ?? options.role
      const secret: Injectable = options.keys === undefined
        ? { kind: 'password', password: new Secret(options.password) }
        : {
            kind: 'scram-keys', clientKey: new Secret(options.keys.clientKey),
            serverKey: new Secret(options.keys.serverKey)
          }
      return {
        upstreaming: {
          target: { name: 'target', protocol: 'postgres', ...options.target },
          database: options.database ?? claimed.database, username, secret,
          allowReplication: options.allowReplication ?? false, channels: [], copyFiles: false
        },
        [Symbol.asyncDispose]: async () => undefined
      }
    }
  }
}

/** For benchmarks: runs until its standard input ends. Prints its port and process id as one line of JSON. */
async function main(): Promise<void> {
  // As the product's own main: the heap for new objects stays small, or 2,000 idle sessions seem to take
  // twice.
  setFlagsFromString('--semi-space-growth-factor=1')
  const [line] = await once(process.stdin, 'data') as [Buffer]
  const given = JSON.parse(line.toString('utf8')) as PassThroughOptions & { keysBase64?: [string, string] }
  const [clientKey, serverKey] = (given.keysBase64 ?? []).map(key => Buffer.from(key, 'base64'))
  const keys = clientKey === undefined || serverKey === undefined ? undefined : { clientKey, serverKey }
  const options: PassThroughOptions = { ...given, keys }
  const passThrough = await startPassThrough(options)
  process.stdout.write(`${JSON.stringify({ port: passThrough.port, pid: process.pid })}\n`)
  process.stdin.resume().on('end', () => void passThrough.stop().then(() => process.exit(0)))
}

if (import.meta.main) {
  main().catch((thrown: unknown) => {
    process.stderr.write(`${asSallyportError(thrown).message}\n`)
    process.exit(1)
  })
}
