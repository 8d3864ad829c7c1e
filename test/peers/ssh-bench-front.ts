// The SSH front end on its own, as a program: `node test/peers/ssh-bench-front.ts` with a JSON setting on
// its standard input. Its steps know people with one key and one account at the target. No policy, no ledger,
// no hooks; recordings are real. For benchmarks, which must measure the proxy's process alone.
import { generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { systemClock } from '../../src/clock.ts'
import { SallyportError, asSallyportError } from '../../src/errors.ts'
import type { Grant } from '../../src/policy/authorise.ts'
import type { ChannelKind, User } from '../../src/policy/types.ts'
import { listenSsh } from '../../src/proxy/ssh/listen.ts'
import type { Ending } from '../../src/recording/recording.ts'
import { openRecordings } from '../../src/recording/recordings.ts'
import type { Recordings } from '../../src/recording/recordings.ts'
import { Secret } from '../../src/secret.ts'
import type { Claim } from '../../src/session/front.ts'
import { mintSessionId } from '../../src/session/id.ts'
import { run } from '../../src/session/session.ts'
import type { Steps } from '../../src/session/session.ts'

export interface SshPassThroughSetting {
  /** Ports of the target (on the loopback interface), by the name that somebody logs in with. */
  ports: Readonly<Record<string, number>>
  /** `ssh-ed25519 AAAA…`, of all of them. */
  hostKey: string
  /** Who logs in there, and with what. */
  username: string
  privateKey: string
  /** What people prove themselves with: a line of OpenSSH. */
  clientKey: string
  /** Our own host key, private. */
  ownKey: string
}

const channels: readonly ChannelKind[] = ['shell', 'exec', 'sftp', 'upload', 'download']

function stepsOf(setting: SshPassThroughSetting, recordings: Recordings): Steps {
  const controller = new AbortController()
  let claimed: Claim
  return {
    async authenticate(claim, prove) {
      claimed = claim
      const known = Object.hasOwn(setting.ports, claim.login)
      const challenge = { verifier: '', publicKeys: [setting.clientKey], authorities: [], name: claim.login }
      if (!known || await prove(challenge) === undefined) throw new SallyportError('auth-failed')
      return { name: claim.login } as User
    },
    doors: () => undefined,
    async authorise() {
      return { maxSessionSeconds: 3600 } as Grant
    },
    approve: async decision => decision as Grant,
    async open(grant) {
      let ending: Ending | undefined
      return {
        id: mintSessionId(systemClock), grant, signal: controller.signal,
        end: how => { ending ??= how },
        get ending(): Ending { return ending ?? { how: 'cut', reason: 'internal' } },
        [Symbol.asyncDispose]: async () => undefined
      }
    },
    async record(session) {
      const recording = await recordings.create({
        session: session.id, user: claimed.login, credential: setting.username, target: 'target',
        protocol: 'ssh', address: claimed.address, startedAt: systemClock.now().toISOString(), node: 'test'
      })
      recording.failed.addEventListener('abort', () => controller.abort(recording.failed.reason))
      return Object.assign(recording, {
        [Symbol.asyncDispose]: async () => { await recording.seal(session.ending) }
      })
    },
    async lease() {
      const { hostKey, username, privateKey, ports } = setting
      return {
        upstreaming: {
          target: {
            name: 'target', protocol: 'ssh', host: '127.0.0.1', port: ports[claimed.login]!,
            tls: { mode: 'disable' }, hostKeys: [hostKey]
          },
          database: undefined, username, allowReplication: false, channels, copyFiles: false,
          secret: { kind: 'private-key', privateKey: new Secret(privateKey) }
        },
        [Symbol.asyncDispose]: async () => undefined
      }
    }
  }
}

/** Runs until its standard input ends. Prints its port and process id as one line of JSON. */
async function main(): Promise<void> {
  // As the product's own main.
  setFlagsFromString('--semi-space-growth-factor=1')
  const [line] = await once(process.stdin, 'data') as [Buffer]
  const setting = JSON.parse(line.toString('utf8')) as SshPassThroughSetting
  const dir = mkdtempSync(join(tmpdir(), 'sallyport-pass-'))
  const key = generateKeyPairSync('ed25519').privateKey
  const recordings = openRecordings({
    dir, clock: systemClock, signer: { keyId: 'pass-through', sign: bytes => sign(null, bytes, key) },
    limits: { reserveBytes: 0, reserveShare: 0 }
  })
  const listener = await listenSsh({
    host: '127.0.0.1', port: 0, hostKeys: [setting.ownKey], clock: systemClock,
    certify: () => { throw new SallyportError('internal', { detail: 'nobody comes through here' }) },
    limits: { unauthenticatedPerAddressMax: 1000 },
    log: { info: () => undefined, warn: (fields, text) => console.error(text, fields) },
    onSession: front => run(front, stepsOf(setting, recordings)),
    onRefused: () => undefined
  })
  process.stdout.write(`${JSON.stringify({ port: listener.address.port, pid: process.pid })}\n`)
  process.stdin.resume().on('end', () => {
    rmSync(dir, { recursive: true, force: true })
    process.exit(0)
  })
}

main().catch((thrown: unknown) => {
  process.stderr.write(`${asSallyportError(thrown).message}\n`)
  process.exit(1)
})
