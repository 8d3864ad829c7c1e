// The plugin's connection to a host: SSH as the hook's login, at a host key that is known, and one script on
// the standard input of a shell there. First the shell says its clock, then the script is built with a
// deadline of that clock and sent: a node that sleeps in between, or after, cannot act once its claim has
// lapsed. Nothing is in an argument, so nothing is in `ps` or a log of the target. What the target sends is
// capped.
import { Client } from 'ssh2'
import type { Algorithms, AnyAuthMethod, ClientChannel, ConnectConfig } from 'ssh2'
import { SallyportError } from '../../src/errors.ts'
import type { Access, HookContext, TargetAddress } from '../../src/jit/plugin.ts'
import { WireError } from '../../src/wire/error.ts'
import { blobOf, typeOf } from '../../src/wire/ssh/key.ts'

/** What a script answered: a line of fields for each thing that it did or saw. */
export interface Answer {
  lines: readonly (readonly string[])[]
  /** Undefined when the shell was ended by a signal. */
  status: number | undefined
  /** The end of what its commands wrote, for people. */
  said: string
}

/** The shell had the script, and how it went is not known. */
export class LostAnswer extends Error {}
/** The shell never had the script. */
export class NoShell extends Error {}

export interface Link {
  /**
   * Runs a script. `build` gets the deadline: hundredths of a second of the target's uptime clock.
   * @throws NoShell, LostAnswer, or the signal's reason before anything is sent
   */
  run(build: (deadline: number) => string, limitMs: number): Promise<Answer>
  close(): void
}

/** Residue of an account is listed in a few KB; this much is an attack. */
const outputBytesMax = 1_048_576
/** Of what commands say, the end is what matters. */
const saidCharactersMax = 2000
/** The target's own limit ends a shell that we can no longer end. */
const targetGraceSeconds = 2
const readyForm = /^sallyport-ready (\d+)\.(\d\d) \d+$/

// What OpenSSH 7 and later have; nothing with SHA-1, CBC or MD5.
const algorithms: Algorithms = {
  kex: [
    'curve25519-sha256', 'curve25519-sha256@libssh.org', 'ecdh-sha2-nistp256', 'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521', 'diffie-hellman-group16-sha512', 'diffie-hellman-group14-sha256'
  ],
  cipher: [
    'aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'chacha20-poly1305@openssh.com', 'aes256-ctr',
    'aes128-ctr'
  ],
  hmac: [
    'hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'
  ],
  compress: ['none']
}

type HostKeyAlgorithms = NonNullable<Algorithms['serverHostKey']> & readonly string[]

/**
 * The host keys that are believed, as blobs. None known means that none is believed: a key that was learnt at
 * first sight is part of the target by the time that it gets here.
 * @throws SallyportError('target-untrusted')
 */
export function believedKeys({ name, hostKeys = [] }: TargetAddress): readonly Buffer[] {
  try {
    const blobs = hostKeys.map(blobOf)
    if (blobs.length > 0) return blobs
  } catch (error) {
    if (!(error instanceof WireError)) throw error
    throw new SallyportError('target-untrusted', { detail: `${name}: a host key of it is no public key` })
  }
  throw new SallyportError('target-untrusted', {
    detail: `${name}: no host key is known; give the target \`hostKeys\` (ssh-keyscan prints them)`
  })
}

/** Asks for keys of the kinds that we know, since a host has one of each kind. */
function hostKeyAlgorithms(blobs: readonly Buffer[]): HostKeyAlgorithms {
  const kinds = new Set(blobs.map(typeOf))
  const names = [...kinds].flatMap(kind => kind === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [kind])
  return names as unknown as HostKeyAlgorithms
}

/**
 * Logs in as the hook's credential.
 * @throws SallyportError('target-unreachable' | 'target-untrusted' | 'target-refused' | 'hook-timeout')
 */
export async function openLink(
  access: Access, context: HookContext, command: ShellCommand = rootShell
): Promise<Link> {
  context.signal.throwIfAborted()
  const blobs = believedKeys(access.target)
  const method = methodOf(access)
  const client = new Client()
  const abort = (): void => { client.destroy() }
  context.signal.addEventListener('abort', abort, { once: true })
  const close = (): void => {
    context.signal.removeEventListener('abort', abort)
    client.destroy()
  }
  try {
    await login(client, access, method, blobs, context)
  } catch (error) {
    close()
    throw error
  }
  return { run: (build, limitMs) => shell(client, command(limitMs), build, limitMs, context), close }
}

/** How to log in, with the secret not yet taken out. @throws SallyportError('target-refused') */
function methodOf({ username, secret, target }: Access): () => readonly AnyAuthMethod[] {
  switch (secret.kind) {
    case 'password': return () => [
      { type: 'password', username, password: secret.password.expose() },
      {
        type: 'keyboard-interactive', username,
        // One prompt that hides what is typed is a password's; anything else is not answered.
        prompt: (_name, _instructions, _language, prompts, finish) => {
          const asks = prompts.length === 1 && prompts[0]?.echo !== true
          finish(asks ? [secret.password.expose()] : [])
        }
      }
    ]
    case 'private-key': return () => [{ type: 'publickey', username, key: secret.privateKey.expose() }]
    case 'scram-keys': throw new SallyportError('target-refused', {
      detail: `${target.name}: a host has no login with keys of SCRAM`
    })
  }
}

async function login(
  client: Client, { target, username }: Access, method: () => readonly AnyAuthMethod[],
  blobs: readonly Buffer[], context: HookContext
): Promise<void> {
  let strange = false
  const config: ConnectConfig = {
    host: target.host, port: target.port, username, readyTimeout: context.connectTimeoutMs,
    algorithms: { ...algorithms, serverHostKey: hostKeyAlgorithms(blobs) },
    hostVerifier: (key: Buffer) => {
      strange = !blobs.some(blob => blob.equals(key))
      return !strange
    },
    authHandler: [...method()]
  }
  await new Promise<void>((resolve, reject) => {
    const fail = (error: unknown): void => reject(unreached(error, target, strange, context.signal))
    client.once('ready', resolve)
    // It stays: a client without this listener takes the process down.
    client.on('error', fail)
    client.once('close', () => fail(new Error('the connection was closed before the login')))
    try {
      client.connect(config)
    } catch (error) {
      // E.g. a private key that is none.
      const { message } = error as Error
      fail(Object.assign(new Error(message), { level: 'client-authentication' }))
    }
  })
}

function unreached(
  error: unknown, { name }: TargetAddress, strange: boolean, signal: AbortSignal
): SallyportError {
  if (signal.aborted) return new SallyportError('hook-timeout', { detail: 'given up while connecting' })
  const { message, level } = error as { message?: string, level?: string }
  if (strange) {
    const detail = `${name}: its host key is not the one that is known`
    return new SallyportError('target-untrusted', { detail })
  }
  const detail = `${name}: ${(message ?? 'no connection').slice(0, saidCharactersMax)}`
  const code = level === 'client-authentication' ? 'target-refused' : 'target-unreachable'
  return new SallyportError(code, { detail, cause: error })
}

/** What the login shell is told: to say its clock, then to become a shell that reads the script. */
export type ShellCommand = (limitMs: number) => string

/** Any login shell reads these few words; `sudo` for a login that is not root. */
function rootShell(limitMs: number): string {
  const seconds = Math.max(1, Math.ceil(limitMs / 1000)) + targetGraceSeconds
  return `exec /bin/sh -c '[ "$(id -u)" = 0 ] || as="sudo -n"; read -r up rest < /proc/uptime; `
    + `echo "sallyport-ready $up $(id -u)"; exec $as timeout -s KILL ${seconds} /bin/sh -s'`
}

/** As the login itself, on any system with a POSIX shell; nothing of its clock is asked. */
export function ownShell(limitMs: number): string {
  const seconds = Math.max(1, Math.ceil(limitMs / 1000)) + targetGraceSeconds
  return `exec /bin/sh -c 'echo "sallyport-ready 0.00 0"; if command -v timeout > /dev/null; `
    + `then exec timeout -s KILL ${seconds} /bin/sh -s; else exec /bin/sh -s; fi'`
}

async function shell(
  client: Client, command: string, build: (deadline: number) => string, limitMs: number,
  context: HookContext
): Promise<Answer> {
  context.signal.throwIfAborted()
  const limit = AbortSignal.timeout(Math.max(1, Math.floor(Math.min(limitMs, context.remainingMs()))))
  const dead = AbortSignal.any([context.signal, limit])
  return await new Promise<Answer>((resolve, reject) => {
    const talk = new Talk(build, context, resolve, reject)
    const lose = (why: string) => (): void => talk.lose(why)
    dead.addEventListener('abort', lose('no answer within the limit'), { once: true })
    client.once('close', lose('the connection was lost'))
    client.exec(command, (error, channel) => {
      if (error === undefined) talk.listen(channel)
      else reject(new NoShell(`no shell: ${error.message.slice(0, saidCharactersMax)}`))
    })
  })
}

/** One shell: waits for its clock, gives it the script, reads its report. */
class Talk {
  readonly #build: (deadline: number) => string
  readonly #context: HookContext
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: Error) => void
  readonly #lines: string[][] = []
  #sent = false
  #bytes = 0
  #partial = ''
  #said = ''

  constructor(
    build: (deadline: number) => string, context: HookContext, resolve: (answer: Answer) => void,
    reject: (error: Error) => void
  ) {
    this.#build = build
    this.#context = context
    this.#resolve = resolve
    this.#reject = reject
  }

  listen(channel: ClientChannel): void {
    let status: number | undefined
    channel.setEncoding('utf8')
    channel.stderr.setEncoding('utf8')
    channel.on('data', (text: string) => {
      if (this.#counts(text, channel)) this.#read(text, channel)
    })
    channel.stderr.on('data', (text: string) => {
      if (this.#counts(text, channel)) this.#said = (this.#said + text).slice(-saidCharactersMax)
    })
    channel.on('error', () => this.lose('the connection was lost'))
    channel.on('exit', (code: number | null) => { status = code ?? undefined })
    channel.on('close', () => {
      if (!this.#sent) this.#reject(new NoShell(`no shell: ${this.#said.trim()}`))
      else this.#resolve({ lines: this.#lines, status, said: this.#said.trim() })
    })
  }

  lose(why: string): void {
    this.#reject(this.#sent ? new LostAnswer(why) : new NoShell(`${why}, before the shell had anything`))
  }

  #counts(text: string, channel: ClientChannel): boolean {
    this.#bytes += Buffer.byteLength(text)
    if (this.#bytes <= outputBytesMax) return true
    channel.destroy()
    this.lose(`the target sent more than ${outputBytesMax} bytes`)
    return false
  }

  #read(text: string, channel: ClientChannel): void {
    const lines = (this.#partial + text).split('\n')
    this.#partial = lines.pop() ?? ''
    for (const line of lines) {
      if (this.#sent) this.#lines.push(line.split('\t'))
      else this.#start(line, channel)
    }
  }

  /** What a login script prints before is passed over. */
  #start(line: string, channel: ClientChannel): void {
    const [, seconds, hundredths] = readyForm.exec(line) ?? []
    if (seconds === undefined) return
    const leftMs = this.#context.remainingMs()
    if (leftMs <= 0 || this.#context.signal.aborted) {
      channel.destroy()
      return this.lose('the claim on the account has lapsed')
    }
    let script: string
    try {
      script = this.#build(Number(seconds) * 100 + Number(hundredths) + Math.floor(leftMs / 10))
    } catch (error) {
      channel.destroy()
      return this.#reject(error as Error)
    }
    this.#sent = true
    channel.end(script)
  }
}
