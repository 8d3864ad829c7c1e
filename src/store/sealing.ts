// Secrets at rest. Each value is sealed with AES-256-GCM under a data key of its own; the data key is
// wrapped under the master key, which never touches the store. Kind and id are authenticated with the
// value, so that a row cannot be passed off as another. Rotation re-wraps data keys only, in batches, and
// can be interrupted: several master keys may be loaded, each row names its own. A sealed canary finds a
// wrong master key at open, before the first secret is needed. Nothing is cached: an opened value lives as
// long as its caller keeps it.
import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import type { Database, Handle } from './database.ts'
import { and, asc, eq, gt, ne } from './drizzle.ts'
import { loadMasterKey } from './master-key.ts'
import type { MasterKey, MasterKeySource } from './master-key.ts'
import { secretValue, setting } from './schema.ts'

export interface SecretStore {
  /** Seals a value under a new id; inside of a transaction when `tx` is given. `kind` says what it is for. */
  put(kind: string, plain: Secret<string>, tx?: Handle): Promise<string>
  /** Throws `seal-broken` when it does not exist, is of another kind than asked for, or cannot be opened. */
  open(id: string, options?: { kind?: string, tx?: Handle }): Promise<Secret<string>>
  remove(id: string, tx?: Handle): Promise<void>
  /** Wraps every data key under the current master key; may be repeated and interrupted at any point. */
  rotate(): Promise<Rotation>
  /** Id of the master key that seals new values. */
  readonly masterKeyId: string
}

export interface Rotation {
  rewrapped: number
  /** Values whose master key is not loaded: the old key is still needed. */
  unopened: readonly string[]
}

export interface SecretOptions {
  database: Database
  masterKey: MasterKeySource
  /** Keys that older rows may still be sealed under. */
  oldMasterKeys?: readonly MasterKeySource[] | undefined
}

interface SealedRow {
  id: string
  kind: string
  sealed: string
}

const version = 'v1'
const cipherName = 'aes-256-gcm'
const dataKeyBytes = 32
const nonceBytes = 12
const tagBytes = 16
// Short transactions: a rotation must not hold up sessions that open secrets.
const rotationBatchRows = 200
const canaryKey = 'seal-canary'
const canary: Omit<SealedRow, 'sealed'> = { id: 'canary', kind: 'canary' }
const canaryText = 'sallyport'

/**
 * Loads the master keys and proves them on the canary. The key file is made only for a store that has no
 * canary yet. Throws `seal-broken`.
 */
export async function openSecrets(
  { database, masterKey, oldMasterKeys = [] }: SecretOptions
): Promise<SecretStore> {
  const firstStart = await database.run(isUnsealed)
  const current = await loadMasterKey(masterKey, firstStart)
  const keys = new Map<string, MasterKey>()
  for (const source of oldMasterKeys) {
    const old = await loadMasterKey(source)
    keys.set(old.id, old)
  }
  keys.set(current.id, current)
  await proveCanary(database, current, keys)
  return overKeys(database, current, keys)
}

function overKeys(database: Database, current: MasterKey, keys: ReadonlyMap<string, MasterKey>): SecretStore {
  const within = <T>(tx: Handle | undefined, act: (handle: Handle) => Promise<T>): Promise<T> =>
    tx === undefined ? database.run(act) : act(tx)

  return {
    masterKeyId: current.id,
    async put(kind, plain, tx) {
      const id = randomUUID()
      const row = { id, kind, keyId: current.id, sealed: seal({ id, kind }, plain.expose(), current) }
      await within(tx, handle => handle.insert(secretValue).values(row))
      return id
    },
    async open(id, { kind, tx } = {}) {
      const [row] = await within(tx, handle =>
        handle.select().from(secretValue).where(eq(secretValue.id, id)))
      if (row === undefined) throw broken(id, 'there is no such sealed value')
      if (kind !== undefined && kind !== row.kind) throw broken(id, `it is of kind ${row.kind}, not ${kind}`)
      return new Secret(unseal(row, keys))
    },
    async remove(id, tx) {
      await within(tx, handle => handle.delete(secretValue).where(eq(secretValue.id, id)))
    },
    async rotate() {
      const rotation = { rewrapped: 0, unopened: [] as string[] }
      let after: string | undefined = ''
      while (after !== undefined) after = await rotateBatch(database, current, keys, after, rotation)
      if (rotation.unopened.length === 0) await writeCanary(database, current)
      return rotation
    }
  }
}

/** Re-wraps one batch behind `after`; returns where the next one starts, undefined at the end. */
async function rotateBatch(
  database: Database, current: MasterKey, keys: ReadonlyMap<string, MasterKey>, after: string,
  rotation: { rewrapped: number, unopened: string[] }
): Promise<string | undefined> {
  const rows = await database.run(handle => handle.select().from(secretValue)
    .where(and(ne(secretValue.keyId, current.id), gt(secretValue.id, after)))
    .orderBy(asc(secretValue.id)).limit(rotationBatchRows))
  const rewrapped: SealedRow[] = []
  for (const row of rows) {
    try {
      rewrapped.push({ ...row, sealed: rewrap(row, keys, current) })
    } catch {
      rotation.unopened.push(row.id)
    }
  }
  await database.transaction(async tx => {
    for (const { id, sealed } of rewrapped) {
      await tx.update(secretValue).set({ keyId: current.id, sealed }).where(eq(secretValue.id, id))
    }
  })
  rotation.rewrapped += rewrapped.length
  return rows.at(-1)?.id
}

// ---- the canary

async function isUnsealed(handle: Handle): Promise<boolean> {
  const [row] = await handle.select().from(setting).where(eq(setting.key, canaryKey))
  if (row !== undefined) return false
  const [sealed] = await handle.select({ id: secretValue.id }).from(secretValue).limit(1)
  if (sealed !== undefined) throw broken(sealed.id, 'the canary is gone, but sealed values are there')
  return true
}

async function proveCanary(
  database: Database, current: MasterKey, keys: ReadonlyMap<string, MasterKey>
): Promise<void> {
  const sealed = seal(canary, canaryText, current)
  const [row] = await database.run(async handle => {
    await handle.insert(setting).values({ key: canaryKey, value: sealed }).onConflictDoNothing()
    return handle.select().from(setting).where(eq(setting.key, canaryKey))
  })
  if (unseal({ ...canary, sealed: String(row?.value) }, keys) !== canaryText) {
    throw broken(canary.id, 'it holds something else')
  }
}

// After the last row: as long as one needs the old key, so does the canary.
async function writeCanary(database: Database, current: MasterKey): Promise<void> {
  const value = seal(canary, canaryText, current)
  await database.run(handle => handle.update(setting).set({ value }).where(eq(setting.key, canaryKey)))
}

// ---- sealing

/** `v1|key id|wrapped data key|nonce|ciphertext|tag`, binary parts in base64url. */
function seal({ id, kind }: Omit<SealedRow, 'sealed'>, plain: string, { id: keyId, key }: MasterKey): string {
  const dataKey = randomBytes(dataKeyBytes)
  const { nonce, ciphertext, tag } = encrypt(dataKey, Buffer.from(plain), `${version}|${kind}|${id}`)
  const wrapped = wrap(dataKey, `${version}|${keyId}|${kind}|${id}`, key)
  dataKey.fill(0)
  const parts = [wrapped, nonce, ciphertext, tag].map(part => part.toString('base64url'))
  return [version, keyId, ...parts].join('|')
}

function unseal(row: SealedRow, keys: ReadonlyMap<string, MasterKey>): string {
  const { dataKey, rest: [nonce, ciphertext, tag] } = dataKeyOf(row, keys)
  try {
    const context = `${version}|${row.kind}|${row.id}`
    const plain = decrypt(dataKey, bytesOf(nonce), bytesOf(ciphertext), bytesOf(tag), context)
    const text = plain.toString('utf8')
    plain.fill(0)
    return text
  } catch {
    throw broken(row.id, 'the value was altered')
  } finally {
    dataKey.fill(0)
  }
}

function rewrap(row: SealedRow, keys: ReadonlyMap<string, MasterKey>, to: MasterKey): string {
  const { dataKey, rest } = dataKeyOf(row, keys)
  const wrapped = wrap(dataKey, `${version}|${to.id}|${row.kind}|${row.id}`, to.key)
  dataKey.fill(0)
  return [version, to.id, wrapped.toString('base64url'), ...rest].join('|')
}

function dataKeyOf(
  row: SealedRow, keys: ReadonlyMap<string, MasterKey>
): { dataKey: Buffer, rest: string[] } {
  const [format, keyId = '', wrapped = '', ...rest] = row.sealed.split('|')
  if (format !== version || rest.length !== 3) throw broken(row.id, 'it is in no format of ours')
  const master = keys.get(keyId)
  if (master === undefined) {
    throw broken(row.id, `it is sealed under master key ${keyId}, which is not loaded`)
  }
  const bytes = bytesOf(wrapped)
  const tagAt = bytes.length - tagBytes
  try {
    const nonce = bytes.subarray(0, nonceBytes)
    const ciphertext = bytes.subarray(nonceBytes, tagAt)
    const context = `${version}|${keyId}|${row.kind}|${row.id}`
    return { dataKey: decrypt(master.key.expose(), nonce, ciphertext, bytes.subarray(tagAt), context), rest }
  } catch {
    throw broken(row.id, 'its data key was altered, or belongs to another value')
  }
}

function wrap(dataKey: Buffer, context: string, key: Secret<Buffer>): Buffer {
  const { nonce, ciphertext, tag } = encrypt(key.expose(), dataKey, context)
  return Buffer.concat([nonce, ciphertext, tag])
}

interface Encrypted {
  nonce: Buffer
  ciphertext: Buffer
  tag: Buffer
}

function encrypt(key: Buffer, plain: Buffer, context: string): Encrypted {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv(cipherName, key, nonce).setAAD(Buffer.from(context))
  const ciphertext = Buffer.concat([cipher.update(plain), cipher.final()])
  return { nonce, ciphertext, tag: cipher.getAuthTag() }
}

function decrypt(key: Buffer, nonce: Buffer, ciphertext: Buffer, tag: Buffer, context: string): Buffer {
  // Without a fixed length Node takes a tag of 4 bytes for a tag.
  const decipher = createDecipheriv(cipherName, key, nonce, { authTagLength: tagBytes })
  decipher.setAAD(Buffer.from(context)).setAuthTag(tag)
  return Buffer.concat([decipher.update(ciphertext), decipher.final()])
}

function bytesOf(text: string | undefined): Buffer {
  return Buffer.from(text ?? '', 'base64url')
}

function broken(id: string, why: string): SallyportError {
  return new SallyportError('seal-broken', { detail: `sealed value ${id}: ${why}` })
}
