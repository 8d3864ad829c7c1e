// Secrets at rest: only sealed text reaches the store, a row cannot pass for another, a wrong or missing
// master key is found at open, and a rotation re-wraps everything, also when it was interrupted. On both
// stores.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { Secret } from '../src/secret.ts'
import type { Database } from '../src/store/database.ts'
import { eq, sql } from '../src/store/drizzle.ts'
import type { MasterKeySource } from '../src/store/master-key.ts'
import { secretValue, setting } from '../src/store/schema.ts'
import { openSecrets } from '../src/store/sealing.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const canary = 'kanarienvogel-4711'

async function brokenSeal(act: Promise<unknown>, pattern: RegExp): Promise<void> {
  const thrown: unknown = await act.then(() => undefined, (error: unknown) => error)
  if (!(thrown instanceof SallyportError)) throw new Error(`expected a SallyportError, got ${String(thrown)}`)
  assert.is(thrown.code, 'seal-broken', thrown.message)
  assert.match(thrown.detail ?? '', pattern)
  assert.not.match(`${thrown.message} ${thrown.stack}`, canary)
}

for (const kind of storeKinds) {
  const test = suite(kind)
  const stores = storeMaker(kind)
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-keys-'))
  let database: Database
  let keys = 0

  const keyFile = (): MasterKeySource & { file: string } =>
    ({ kind: 'file', file: join(folder, `${++keys}.key`) })
  const newKey = (): MasterKeySource & { file: string } => {
    const source = keyFile()
    writeFileSync(source.file, randomBytes(32).toString('base64'), { mode: 0o600 })
    return source
  }

  test.before(async () => {
    database = (await stores.open()).database
  })
  test.before.each(async () => {
    await database.run(handle => handle.delete(secretValue))
    await database.run(handle => handle.delete(setting))
  })
  test.after(async () => {
    await stores.close()
    rmSync(folder, { recursive: true })
  })

  test('what was put is opened again, and the store never sees it', async () => {
    const secrets = await openSecrets({ database, masterKey: keyFile() })
    const ids = await Promise.all(['', canary, `${canary} ä\u0000\ud83d\ude00`, 'x'.repeat(100_000)]
      .map(text => secrets.put('password', new Secret(text))))
    assert.is((await secrets.open(ids[0]!)).expose(), '')
    assert.is((await secrets.open(ids[1]!)).expose(), canary)
    assert.is((await secrets.open(ids[2]!)).expose(), `${canary} ä\u0000\ud83d\ude00`)
    assert.is((await secrets.open(ids[3]!)).expose().length, 100_000)
    const rows = await database.run(handle => handle.select().from(secretValue))
    assert.not.match(JSON.stringify(rows), canary)
    for (const { sealed, keyId } of rows) {
      assert.match(sealed, new RegExp(`^v1\\|${keyId}(\\|[A-Za-z0-9_-]*){4}$`))
    }
  })

  test('the same value twice gives two texts that share nothing', async () => {
    const secrets = await openSecrets({ database, masterKey: keyFile() })
    await secrets.put('password', new Secret(canary))
    await secrets.put('password', new Secret(canary))
    const [one, other] = await database.run(handle => handle.select().from(secretValue))
    const parts = one!.sealed.split('|').slice(2)
    for (const part of other!.sealed.split('|').slice(2)) assert.not.ok(parts.includes(part))
  })

  test('a change that is rolled back keeps no sealed value', async () => {
    const secrets = await openSecrets({ database, masterKey: keyFile() })
    await database.transaction(async tx => {
      const id = await secrets.put('password', new Secret(canary), tx)
      assert.is((await secrets.open(id, { tx })).expose(), canary)
      throw new SallyportError('conflict')
    }).catch(() => {})
    assert.equal(await database.run(handle => handle.select().from(secretValue)), [])
  })

  test('every altered, moved or exchanged part is refused', async () => {
    const secrets = await openSecrets({ database, masterKey: keyFile() })
    const id = await secrets.put('password', new Secret(canary))
    const other = await secrets.put('password', new Secret('another'))
    const read = async (which: string): Promise<string> => {
      const [row] = await database.run(handle =>
        handle.select().from(secretValue).where(eq(secretValue.id, which)))
      return row!.sealed
    }
    const sealed = await read(id)
    const parts = sealed.split('|')
    const foreign = (await read(other)).split('|')
    const mutations = [await read(other), '', 'v1', sealed.replace('v1', 'v2'), `${sealed}|x`]
    for (let part = 2; part < parts.length; part++) {
      const bytes = Buffer.from(parts[part]!, 'base64url')
      for (const at of [0, bytes.length - 1]) {
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= 1
        mutations.push(parts.with(part, flipped.toString('base64url')).join('|'))
      }
      mutations.push(parts.with(part, foreign[part]!).join('|'), parts.with(part, '').join('|'))
      mutations.push(parts.with(part, bytes.subarray(0, 4).toString('base64url')).join('|'))
    }
    for (const mutation of mutations) {
      await database.run(handle => handle.update(secretValue).set({ sealed: mutation })
        .where(eq(secretValue.id, id)))
      await brokenSeal(secrets.open(id), /sealed value/)
    }
    await database.run(handle => handle.update(secretValue).set({ sealed, kind: 'verifier' })
      .where(eq(secretValue.id, id)))
    await brokenSeal(secrets.open(id), /altered, or belongs to another/)
  })

  test('a value is opened only as what it was sealed for', async () => {
    const secrets = await openSecrets({ database, masterKey: keyFile() })
    const id = await secrets.put('password', new Secret(canary))
    assert.is((await secrets.open(id, { kind: 'password' })).expose(), canary)
    await brokenSeal(secrets.open(id, { kind: 'verifier' }), /of kind password, not verifier/)
    await secrets.remove(id)
    await brokenSeal(secrets.open(id), /no such sealed value/)
  })

  test('the key file is made once, for its owner only, and opens the store again', async () => {
    const masterKey = keyFile()
    const id = await (await openSecrets({ database, masterKey })).put('password', new Secret(canary))
    assert.is(statSync(masterKey.file).mode & 0o777, 0o600)
    const text = readFileSync(masterKey.file, 'utf8')
    assert.is((await (await openSecrets({ database, masterKey })).open(id)).expose(), canary)
    assert.is(readFileSync(masterKey.file, 'utf8'), text)
  })

  test('a wrong master key is found at open', async () => {
    await openSecrets({ database, masterKey: newKey() })
    const wrong = openSecrets({ database, masterKey: newKey() })
    await brokenSeal(wrong, /canary: .*master key [0-9a-f]{16}, which is not loaded/)
  })

  test('a lost master key is not replaced by a new one', async () => {
    const masterKey = keyFile()
    await openSecrets({ database, masterKey })
    rmSync(masterKey.file)
    await brokenSeal(openSecrets({ database, masterKey }), /there is none/)
    assert.not.ok(existsSync(masterKey.file))
  })

  test('sealed values without their canary are not taken for a new store', async () => {
    const masterKey = keyFile()
    await (await openSecrets({ database, masterKey })).put('password', new Secret(canary))
    await database.run(handle => handle.delete(setting))
    await brokenSeal(openSecrets({ database, masterKey }), /canary is gone/)
  })

  test('a key that others may read, a passphrase and a failing command are refused', async () => {
    const readable = newKey()
    chmodSync(readable.file, 0o640)
    const thrown: unknown = await openSecrets({ database, masterKey: readable })
      .catch((error: unknown) => error)
    assert.match((thrown as SallyportError).detail ?? '', /chmod 600/)
    const phrase = newKey()
    writeFileSync(phrase.file, canary)
    await brokenSeal(openSecrets({ database, masterKey: phrase }), /32 bytes/)
    const unset: MasterKeySource = { kind: 'env', name: 'NO_SUCH_KEY' }
    await brokenSeal(openSecrets({ database, masterKey: unset }), /there is none/)
    await brokenSeal(
      openSecrets({ database, masterKey: { kind: 'command', command: ['false', canary] } }), /command failed/)
  })

  test('file, environment and command may all hold the key, in base64 or hex', async () => {
    const { file } = newKey()
    const key = Buffer.from(readFileSync(file, 'utf8'), 'base64')
    const id = await (await openSecrets({ database, masterKey: { kind: 'file', file } }))
      .put('password', new Secret(canary))
    process.env.TEST_MASTER_KEY = key.toString('hex')
    const sources: MasterKeySource[] = [
      { kind: 'env', name: 'TEST_MASTER_KEY' }, { kind: 'command', command: ['cat', file] }
    ]
    for (const masterKey of sources) {
      assert.is((await (await openSecrets({ database, masterKey })).open(id)).expose(), canary)
    }
    delete process.env.TEST_MASTER_KEY
  })

  test('a rotation re-wraps every value; the old key is needed until then and no longer', async () => {
    const old = newKey()
    const masterKey = newKey()
    const before = await openSecrets({ database, masterKey: old })
    const ids = await Promise.all(Array.from({ length: 450 }, (_, n) =>
      before.put('password', new Secret(`s${n}`))))
    const both = await openSecrets({ database, masterKey, oldMasterKeys: [old] })
    assert.is((await both.open(ids[7]!)).expose(), 's7')
    await brokenSeal(openSecrets({ database, masterKey }), /not loaded/)
    assert.equal(await both.rotate(), { rewrapped: 450, unopened: [] })
    const after = await openSecrets({ database, masterKey })
    for (const at of [0, 199, 200, 449]) assert.is((await after.open(ids[at]!)).expose(), `s${at}`)
    await brokenSeal(openSecrets({ database, masterKey: old }), /not loaded/)
    assert.equal(await after.rotate(), { rewrapped: 0, unopened: [] })
  })

  test('an interrupted rotation goes on where it stopped, and keeps asking for the old key', async () => {
    const old = newKey()
    const masterKey = newKey()
    const before = await openSecrets({ database, masterKey: old })
    for (let n = 0; n < 250; n++) await before.put('password', new Secret(`s${n}`))
    let batches = 0
    const dying: Database = {
      ...database,
      transaction: act => {
        if (++batches === 2) return Promise.reject(new SallyportError('store-unavailable'))
        return database.transaction(act)
      }
    }
    const interrupted = await openSecrets({ database: dying, masterKey, oldMasterKeys: [old] })
    await interrupted.rotate().then(() => assert.unreachable(), () => {})
    await brokenSeal(openSecrets({ database, masterKey }), /not loaded/)
    const resumed = await openSecrets({ database, masterKey, oldMasterKeys: [old] })
    assert.equal(await resumed.rotate(), { rewrapped: 50, unopened: [] })
    assert.ok(await openSecrets({ database, masterKey }))
  })

  test('a rotation names what it cannot open and leaves it as it is', async () => {
    const old = newKey()
    const masterKey = newKey()
    const before = await openSecrets({ database, masterKey: old })
    const good = await before.put('password', new Secret(canary))
    const bad = await before.put('password', new Secret(canary))
    await database.run(handle => handle.update(secretValue)
      .set({ sealed: sql`replace(${secretValue.sealed}, 'v1', 'v0')` }).where(eq(secretValue.id, bad)))
    const both = await openSecrets({ database, masterKey, oldMasterKeys: [old] })
    assert.equal(await both.rotate(), { rewrapped: 1, unopened: [bad] })
    assert.is((await both.open(good)).expose(), canary)
    await brokenSeal(openSecrets({ database, masterKey }), /not loaded/)
  })

  if (kind === 'pglite') {
    test('no file of the embedded store holds a secret that was put into it (R14)', async () => {
      const store = await stores.open()
      const secrets = await openSecrets({ database: store.database, masterKey: keyFile() })
      for (let n = 0; n < 20; n++) {
        const id = await secrets.put('password', new Secret(`${canary}-${n}`))
        if (n % 2 === 0) await secrets.remove(id)
      }
      await store.database.run(handle => handle.execute(sql`checkpoint`))
      await store.database.close()
      const found = execFileSync('sh', ['-c', 'grep -rl "$1" "$2" || true', 'sh', canary, store.dataDir])
      assert.is(found.toString(), '')
      const sealed = execFileSync('sh', ['-c', 'grep -rl "canary" "$1" || true', 'sh', store.dataDir])
      assert.ok(sealed.toString().length > 0, 'what is not secret is found by the same search')
    })
  }

  test.run()
}
