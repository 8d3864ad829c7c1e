// Where the key that opens all other keys comes from: a file (made at the first start), the environment, or
// the output of a command (a key service's client). 32 random bytes as base64 or hex; a passphrase is
// refused, since nothing here stretches it. Losing this key loses every sealed value: there is no second
// way in.
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import { createKeyFile, readOwnerOnly } from './keys.ts'

/** As `masterKey` of the configuration says it. */
export type MasterKeySource =
  | { kind: 'file', file: string }
  | { kind: 'env', name: string }
  /** Its standard output is the key; run without a shell. */
  | { kind: 'command', command: readonly string[] }

export interface MasterKey {
  /** 16 hex digits, safe to show: names the key in sealed values. */
  readonly id: string
  /** 32 bytes. */
  readonly key: Secret<Buffer>
}

const keyBytes = 32
const commandMsMax = 10_000
// A key is 44 or 64 characters; more is some other program's output.
const commandBytesMax = 4_096

/**
 * Reads a master key; with `create`, a missing file is made (0600). Throws `seal-broken` when there is
 * none, it cannot be read or it is no key; what was read is never part of the error.
 */
export async function loadMasterKey(source: MasterKeySource, create = false): Promise<MasterKey> {
  const text = await readSource(source, create)
  if (text === undefined) throw refusal(source, 'there is none')
  const key = decode(text.trim())
  if (key === undefined) {
    throw refusal(source, 'expected 32 bytes in base64 or hex (`openssl rand -base64 32`)')
  }
  const id = createHash('sha256').update('sallyport master key id\n').update(key).digest('hex').slice(0, 16)
  return { id, key: new Secret(key) }
}

async function readSource(source: MasterKeySource, create: boolean): Promise<string | undefined> {
  switch (source.kind) {
    case 'env':
      return process.env[source.name]
    case 'file':
      return readOwnerOnly(source.file) ?? (create ? createKeyFile(source.file, newKeyText) : undefined)
    case 'command': {
      const [program = '', ...words] = source.command
      const limits = { timeout: commandMsMax, maxBuffer: commandBytesMax }
      const ran = await promisify(execFile)(program, words, limits).catch(() => undefined)
      if (ran === undefined) throw refusal(source, 'the command failed')
      return ran.stdout
    }
  }
}

function newKeyText(): string {
  return `${randomBytes(keyBytes).toString('base64')}\n`
}

function decode(text: string): Buffer | undefined {
  const isHex = /^[0-9a-fA-F]{64}$/.test(text)
  if (!isHex && !/^[A-Za-z0-9+/_-]{43}=?$/.test(text)) return undefined
  const key = Buffer.from(text, isHex ? 'hex' : 'base64')
  return key.length === keyBytes ? key : undefined
}

function refusal(source: MasterKeySource, why: string): SallyportError {
  const where = source.kind === 'file' ? `file ${source.file}`
    : source.kind === 'env' ? `variable ${source.name}` : `command ${source.command[0] ?? ''}`
  return new SallyportError('seal-broken', { detail: `master key (${where}): ${why}` })
}
