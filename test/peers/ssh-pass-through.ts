// The SSH front end on its own: a listener whose steps know some people and one account on the target. No
// policy, no ledger, no hooks; a recording only counts, so thousands of connections cost no store. Hostile
// peers run against it, so that what they find is the front's doing.
import { randomBytes } from 'node:crypto'
import { systemClock } from '../../src/clock.ts'
import { SallyportError } from '../../src/errors.ts'
import type { Injectable } from '../../src/jit/plugin.ts'
import type { Grant } from '../../src/policy/authorise.ts'
import type { User } from '../../src/policy/types.ts'
import { listenSsh } from '../../src/proxy/ssh/listen.ts'
import type { SshListenOptions, SshListener } from '../../src/proxy/ssh/listen.ts'
import type { FrontLog } from '../../src/proxy/turn-away.ts'
import type { Ending, Recording } from '../../src/recording/recording.ts'
import { Secret } from '../../src/secret.ts'
import type { ChannelKind, Claim } from '../../src/session/front.ts'
import { mintSessionId } from '../../src/session/id.ts'
import { run } from '../../src/session/session.ts'
import type { Steps } from '../../src/session/session.ts'
import { makeVerifier, mockVerifier } from '../../src/wire/postgres/verifier.ts'
import { generateSshKey } from '../../src/wire/ssh/key.ts'

export interface Person {
  password?: string
  publicKeys?: readonly string[]
}

export interface SshPassThroughOptions {
  target: { host: string, port: number, hostKeys: readonly string[], protocol?: 'tcp' }
  secret?: Injectable
  /** Who may log in; default: alice, with `personPassword`. */
  people?: Readonly<Record<string, Person>>
  authorities?: readonly string[]
  channels?: readonly ChannelKind[]
  channelsMax?: number
  listen?: Partial<SshListenOptions>
  /** Runs while the person waits for the account. */
  preparing?: (tell: (line: string) => void) => Promise<void>
  recordingOf?: (session: string) => Recording
}

export interface SshPassThrough extends AsyncDisposable {
  readonly port: number
  readonly listener: SshListener
  readonly endings: Ending[]
  /** Lines of the log. */
  readonly log: string[]
  /** How people proved who they are, in order: `name method`. */
  readonly proofs: string[]
  /** What was refused in sessions. */
  readonly refused: string[]
  /** Ends every session that is open. */
  cut(error: SallyportError): void
  stop(): Promise<void>
}

export const personPassword = 'pass-through'
export const everyChannel: readonly ChannelKind[] = [
  'shell', 'exec', 'sftp', 'upload', 'download', 'local-forward', 'remote-forward', 'agent', 'x11'
]

/** Takes everything and keeps the number of bytes. */
export class CountingRecording implements Recording {
  readonly session: string
  readonly failed = new AbortController().signal
  frames = 0

  constructor(session: string) {
    this.session = session
  }

  append(): void {
    this.frames++
  }

  commit(): true {
    return true
  }

  seal(): Promise<never> {
    return Promise.reject(new Error('nobody seals this'))
  }
}

/** Starts it on a free port of the loopback interface. */
export async function startSshPassThrough(options: SshPassThroughOptions): Promise<SshPassThrough> {
  const clock = options.listen?.clock ?? systemClock
  const people = options.people ?? { alice: { password: personPassword } }
  const verifiers = new Map<string, string>()
  for (const [name, { password }] of Object.entries(people)) {
    if (password !== undefined) verifiers.set(name, await makeVerifier(password, { iterations: 1 }))
  }
  const seed = randomBytes(32)
  const verifierOf = (name: string): string => verifiers.get(name) ?? oneRound(mockVerifier(seed, name))
  const live = new Set<AbortController>()
  const [endings, log, proofs, refused]: [Ending[], string[], string[], string[]] = [[], [], [], []]
  const keep = (fields: Record<string, unknown>, message: string): void => {
    log.push(`${message} ${JSON.stringify(fields)}`)
  }
  const logging: FrontLog = { info: keep, warn: keep }
  const listener = await listenSsh({
    host: '127.0.0.1', port: 0, clock, log: logging, hostKeys: [generateSshKey().privateKey],
    certify: () => new Uint8Array(),
    onRefused: (_session, what) => { refused.push(what) },
    ...options.listen,
    limits: {
      ...options.listen?.limits,
      ...options.channelsMax === undefined ? {} : { channelsMax: options.channelsMax }
    },
    onSession: async front => {
      const controller = new AbortController()
      live.add(controller)
      const ending = await run(front, stepsOf(options, { people, verifierOf, proofs, controller }))
      live.delete(controller)
      endings.push(ending)
      if (ending.how === 'cut') keep({ reason: ending.reason, detail: ending.detail }, 'session ended')
    }
  })
  const cut = (error: SallyportError): void => {
    for (const controller of live) controller.abort(error)
  }
  const stop = async (): Promise<void> => {
    cut(new SallyportError('shutting-down'))
    await listener.close()
  }
  return {
    port: listener.address.port, listener, endings, log, proofs, refused, cut, stop,
    [Symbol.asyncDispose]: stop
  }
}

/** The same verifier with one round: what is measured elsewhere need not be paid for here. */
function oneRound(verifier: string): string {
  return verifier.replace(/\$\d+:/, '$1:')
}

interface Shared {
  people: Readonly<Record<string, Person>>
  verifierOf(name: string): string
  proofs: string[]
  controller: AbortController
}

function stepsOf(options: SshPassThroughOptions, shared: Shared): Steps {
  const { people, verifierOf, proofs, controller } = shared
  const { authorities = [], channels = everyChannel, target } = options
  const id = mintSessionId(systemClock)
  let claimed: Claim
  return {
    async authenticate(claim, prove) {
      claimed = claim
      const person = Object.hasOwn(people, claim.login) ? people[claim.login] : undefined
      const publicKeys = person?.publicKeys ?? []
      const challenge = { verifier: verifierOf(claim.login), publicKeys, authorities, name: claim.login }
      const proof = await prove(challenge)
      if (proof === undefined || person === undefined) {
        throw new SallyportError('auth-failed', { detail: claim.login })
      }
      proofs.push(`${claim.login} ${proof.method}`)
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
        id, grant, signal: controller.signal,
        end: how => { ending ??= how },
        get ending() { return ending ?? { how: 'cut', reason: 'internal' } },
        [Symbol.asyncDispose]: async () => undefined
      }
    },
    async record() {
      const made = options.recordingOf?.(id) ?? new CountingRecording(id)
      return Object.assign(made, { [Symbol.asyncDispose]: async () => undefined })
    },
    async lease(_session, tell) {
      await options.preparing?.(tell)
      const password: Injectable = { kind: 'password', password: new Secret('target') }
      return {
        upstreaming: {
          target: { name: 'target', protocol: 'ssh', tls: { mode: 'disable' }, ...target },
          database: undefined, username: `jit_${claimed.login}`, secret: options.secret ?? password,
          allowReplication: false, channels, copyFiles: false
        },
        [Symbol.asyncDispose]: async () => undefined
      }
    }
  }
}
