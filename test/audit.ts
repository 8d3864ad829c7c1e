// The audit log over a store: durable when it says so, chained without gaps whatever commits, rolls back or
// loses its answer, kept while the store is away, signed and exported, and whatever is done to the store is
// found. On both.
import { appendFileSync, cpSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import { Secret } from '../src/secret.ts'
import { describeProblem, verifyAudit } from '../src/store/audit-verify.ts'
import {
  exportAudit, listAudit, readAudit, readAuditExport, verifyStoredAudit
} from '../src/store/audit-read.ts'
import { openAudit } from '../src/store/audit.ts'
import type { AuditLog, AuditOptions } from '../src/store/audit.ts'
import type { Database, Handle, Outcome } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import { openSigner, readPublicKeys } from '../src/store/keys.ts'
import { auditChain, auditCheckpoint, auditEvent, setting } from '../src/store/schema.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'
import type { TestStore } from './peers/stores.ts'

interface Log {
  audit: AuditLog
  options: AuditOptions
  notices: string[]
  /** The problems that a verification finds, as sentences. */
  problems(exported?: string): Promise<string[]>
}

let boots = 0

for (const kind of storeKinds) {
  const test = suite(kind)
  const stores = storeMaker(kind)
  let store: TestStore

  const openLog = async (of: TestStore, more: Partial<AuditOptions> = {}): Promise<Log> => {
    const signer = openSigner(of.dataDir)
    const notices: string[] = []
    const options: AuditOptions = {
      database: of.database, clock: systemClock, signer, node: 'n1', boot: `boot${++boots}`, instance: 'i1',
      checkpointFile: join(of.dataDir, 'checkpoints.jsonl'), onNotice: line => notices.push(line), ...more
    }
    const audit = await openAudit(options)
    const problems = async (exported?: string): Promise<string[]> => {
      const { checkpointFile } = options
      const publicKeys = [signer.publicKey]
      const verdict = await verifyStoredAudit({ database: of.database, checkpointFile, publicKeys, exported })
      return verdict.problems.map(describeProblem)
    }
    return { audit, options, notices, problems }
  }

  test.before(async () => {
    store = await stores.open()
  })
  test.before.each(async () => {
    for (const table of [auditEvent, auditChain, auditCheckpoint, setting]) {
      await store.database.run(handle => handle.delete(table))
    }
    rmSync(join(store.dataDir, 'checkpoints.jsonl'), { force: true })
  })
  test.after(() => stores.close())

  const subjects = async (): Promise<string[]> => {
    const found: string[] = []
    for await (const { subject } of readAudit(store.database)) found.push(subject)
    return found
  }

  test('an event is in the store when append resolves, in one chain for each boot', async () => {
    const { audit, problems } = await openLog(store)
    await audit.append('session.opened', 'alice', 's1', { target: 'orders' })
    const [event] = await listAudit(store.database, { subject: 's1', limit: 10 })
    assert.is(event?.kind, 'session.opened')
    assert.equal(event?.detail, { target: 'orders' })
    assert.equal(audit.head(), { chain: event?.chain, seq: 2, hash: event?.hash })
    await audit.close()
    const next = await openLog(store)
    await next.audit.close()
    const chains = new Set<string>()
    for await (const { chain } of readAudit(store.database)) chains.add(chain)
    assert.is(chains.size, 2)
    assert.equal(await problems(), [])
  })

  test('whatever peers put into names and details is kept, bounded, masked and verifiable', async () => {
    const { audit, problems } = await openLog(store)
    const nasty = 'a\0b\ud800\u2028"\\\u001b[2J'
    const numbers = { number: 1e21, small: 5e-324, minus: -0, nothing: undefined }
    await audit.append(nasty, nasty, nasty, { [nasty]: nasty, ...numbers })
    await audit.append('x', 'a'.repeat(5_000), 'b'.repeat(5_000), { long: 'ä'.repeat(50_000) })
    const values = { secret: new Secret('kanarienvogel'), big: 2n ** 70n, date: new Date(0) }
    await audit.append('x', 'a', 'b', values)
    await audit.append('x', 'a', 'b', { z: 1, 10: 2, 9: 3, a: { z: 1, b: 2 } })
    await audit.close()
    assert.equal(await problems(), [])
    const events = await listAudit(store.database, { kind: 'x', limit: 10 })
    assert.not.match(JSON.stringify(events), /kanarienvogel/)
    const long = events.find(({ detail }) => (detail as { truncated?: boolean }).truncated === true)
    assert.ok(long !== undefined && JSON.stringify(long).length < 16_000 && long.actor.length <= 512)
  })

  test('thousands of events at once are all there, in the order in which they were appended', async () => {
    const { audit, problems } = await openLog(store)
    await Promise.all(Array.from({ length: 3_000 }, (_, n) => audit.append('x', 'a', `s${n}`, { n })))
    assert.equal((await subjects()).slice(1), Array.from({ length: 3_000 }, (_, n) => `s${n}`))
    assert.equal(await problems(), [])
    await audit.close()
  })

  test('an event of a transaction is there exactly when it committed, and leaves no gap', async () => {
    const { audit, problems } = await openLog(store)
    await Promise.all(Array.from({ length: 120 }, async (_, n) => {
      if (n % 3 === 0) return audit.append('x', 'a', `free${n}`, {})
      const done = store.database.transaction(async tx => {
        await tx.insert(setting).values({ key: `t${n}`, value: n })
        audit.appendIn(tx, 'x', 'a', `t${n}`, {})
        audit.appendIn(tx, 'x', 'a', `t${n}`, { second: true })
        if (n % 3 === 1) throw new SallyportError('conflict')
      })
      await (n % 3 === 1 ? done.catch(() => {}) : done)
    }))
    const rows = await store.database.run(handle => handle.select().from(setting))
    const keys = rows.map(({ key }) => key).sort()
    assert.is(keys.length, 40)
    const found = (await subjects()).filter(subject => subject.startsWith('t'))
    assert.equal([...new Set(found)].sort(), keys)
    assert.is(found.length, 80)
    assert.is(audit.head().seq, 1 + 40 + 80)
    assert.equal(await problems(), [])
    await audit.close()
  })

  test('rows that the store refuses with COMMIT take their transaction along, and leave no gap', async () => {
    const { audit, problems } = await openLog(store)
    const put = (key: string): Promise<void> => store.database.transaction(async tx => {
      await tx.insert(setting).values({ key, value: 1 })
      audit.appendIn(tx, 'x', 'a', key, {})
    })
    for (const round of ['first', 'again']) {
      // Somebody has taken the next place in the chain.
      const { chain, seq } = audit.head()
      await store.database.run(handle => handle.execute(sql`
        insert into audit_event select chain, seq + 1, at, kind, actor, 'planted', detail, prev, hash
        from audit_event where chain = ${chain} and seq = ${seq}`))
      const refused = await Promise.all([`${round} 1`, `${round} 2`].map(key => put(key).then(
        () => 'committed', (thrown: unknown) => (thrown as SallyportError).code)))
      assert.equal(refused, ['conflict', 'conflict'])
      await store.database.run(handle => handle.delete(auditEvent).where(sql`subject = 'planted'`))
      await put(`after ${round}`)
    }
    assert.equal((await store.database.run(handle => handle.select().from(setting))).map(({ key }) => key),
      ['after first', 'after again'])
    assert.equal((await subjects()).slice(1), ['after first', 'after again'])
    assert.equal(await problems(), [])
    await audit.close()
  })

  test('rows whose statement the store has forgotten are not written behind the end of theirs', async () => {
    const { audit, problems } = await openLog(store)
    const put = (key: string, more: (tx: Handle) => Promise<unknown>): Promise<void> =>
      store.database.transaction(async tx => {
        await tx.insert(setting).values({ key, value: 1 })
        await more(tx)
        audit.appendIn(tx, 'x', 'a', key, {})
      })
    await put('before', () => Promise.resolve())
    const refused: unknown = await put('refused', async tx => {
      const known = await tx.execute<{ name: string }>(
        sql`select name from pg_prepared_statements where statement like '%with written as%'`)
      assert.is(known.length, 1)
      await tx.execute(sql.raw(`deallocate "${known[0]!.name}"`))
    }).catch((thrown: unknown) => thrown)
    await put('after', () => Promise.resolve())
    assert.equal((await subjects()).slice(1), ['before', 'after'])
    assert.equal((await store.database.run(handle => handle.select().from(setting))).map(({ key }) => key),
      ['before', 'after'])
    assert.match((refused as SallyportError).detail ?? '', /26000/)
    assert.equal(await problems(), [])
    await audit.close()
  })

  if (kind === 'postgres') {
    test('a connection that is lost under the last rows leaves nothing, and the chain goes on', async () => {
      const { audit, problems } = await openLog(store)
      const lost: unknown = await store.database.transaction(async tx => {
        await tx.insert(setting).values({ key: 'lost', value: 1 })
        const [row] = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`)
        store.database.beforeCommit(tx, async () => {
          await stores.server().psql(`select pg_terminate_backend(${row!.pid})`)
          return () => undefined
        })
        audit.appendIn(tx, 'x', 'a', 'lost', {})
      }).catch((thrown: unknown) => thrown)
      assert.is((lost as SallyportError).code, 'store-unavailable')
      await audit.append('x', 'a', 'after', {})
      assert.equal((await subjects()).slice(1), ['after'])
      assert.equal(await store.database.run(handle => handle.select().from(setting)), [])
      assert.equal(await problems(), [])
      await audit.close()
    })
  }

  test('append inside of a transaction is refused: it would wait for itself', async () => {
    const { audit } = await openLog(store)
    const thrown: unknown = await store.database.transaction(() => audit.append('x', 'a', 'b', {}))
      .catch((error: unknown) => error)
    assert.match((thrown as SallyportError).detail ?? '', /use appendIn/)
    await audit.close()
  })

  for (const written of [true, false]) {
    const which = written ? 'was written' : 'was not written'
    test(`after a lost answer to COMMIT the chain goes on where the store is: it ${which}`, async () => {
      let losing = false
      const unsteady: Database = {
        ...store.database,
        async transaction(act) {
          if (!losing) return store.database.transaction(act)
          losing = false
          await store.database.transaction(async tx => {
            await act(tx)
            if (written) return
            store.database.beforeCommit(tx, () => Promise.reject(new SallyportError('conflict')))
          }).catch(() => {})
          throw new SallyportError('store-unavailable', { detail: 'the answer was lost' })
        },
        beforeCommit(tx, step) {
          const doubtful = losing === false && unsteadyStep
          store.database.beforeCommit(tx, async (handle, send) => {
            const tell = await step(handle, send)
            return (outcome: Outcome) => tell(doubtful ? 'unknown' : outcome)
          })
        }
      }
      let unsteadyStep = false
      const { audit, problems } = await openLog(store, { database: unsteady })
      losing = unsteadyStep = true
      await audit.append('x', 'a', 'doubtful', {}).catch(() => {})
      unsteadyStep = false
      while (audit.waiting() > 0) await new Promise(resolve => setTimeout(resolve, 20))
      await audit.append('x', 'a', 'after', {})
      assert.equal((await subjects()).slice(1), ['doubtful', 'after'])
      assert.equal(await problems(), [])
      await audit.close()
    })
  }

  test('while the store is away events are refused but kept, and written in order later', async () => {
    let away = false
    const unsteady: Database = {
      ...store.database,
      transaction: act =>
        away ? Promise.reject(new SallyportError('store-unavailable')) : store.database.transaction(act)
    }
    const { audit, notices, problems } = await openLog(store, { database: unsteady })
    away = true
    for (let n = 0; n < 5; n++) {
      const thrown: unknown = await audit.append('x', 'a', `s${n}`, {}).catch((error: unknown) => error)
      assert.is((thrown as SallyportError).code, 'store-unavailable')
    }
    assert.is(audit.waiting(), 5)
    away = false
    while (audit.waiting() > 0) await new Promise(resolve => setTimeout(resolve, 20))
    await audit.append('x', 'a', 's5', {})
    assert.equal((await subjects()).slice(1), ['s0', 's1', 's2', 's3', 's4', 's5'])
    assert.match(notices.join('\n'), /events wait for the store[^]*takes events again/)
    assert.equal(await problems(), [])
    await audit.close()
  })

  test('closing writes what waits, signs it, and takes nothing more', async () => {
    const { audit, options, problems } = await openLog(store)
    const last = audit.append('x', 'a', 'last', {})
    await audit.close()
    await last
    const thrown: unknown = await audit.append('x', 'a', 'late', {}).catch((error: unknown) => error)
    assert.is((thrown as SallyportError).code, 'store-unavailable')
    const verdict = await verifyStoredAudit({ ...options, publicKeys: [options.signer.publicKey] })
    assert.is(verdict.unsigned, 0)
    assert.equal(await problems(), [])
  })

  test('a checkpoint is signed after a thousand events and exported', async () => {
    const { audit, options } = await openLog(store)
    await Promise.all(Array.from({ length: 1_100 }, (_, n) => audit.append('x', 'a', `s${n}`, {})))
    while (!existsSync(options.checkpointFile)) await new Promise(setImmediate)
    await audit.close()
    const rows = await store.database.run(handle => handle.select().from(auditCheckpoint))
    const lines = readFileSync(options.checkpointFile, 'utf8').trim().split('\n')
    assert.is(lines.length, rows.length)
    assert.ok(rows.length > 0)
    assert.ok(rows.every(({ keyId }) => keyId === options.signer.keyId))
    assert.is(statSync(options.checkpointFile).mode & 0o777, 0o600)
    assert.is(await audit.checkpoint(), undefined, 'nothing moved since')
  })

  test('two nodes sign one sequence of checkpoints, and each exports those of both', async () => {
    const one = await openLog(store)
    const other = await openLog(store, { node: 'n2', checkpointFile: join(store.dataDir, 'other.jsonl') })
    const sign = async ({ audit }: Log): Promise<void> => {
      await audit.append('x', 'a', 'b', {})
      await audit.checkpoint()
    }
    for (let round = 0; round < 5; round++) await Promise.all([one, other].map(sign))
    for (const log of [other, one, other]) await sign(log)
    await other.audit.close()
    await one.audit.append('x', 'a', 'b', {})
    await one.audit.close()
    assert.equal(await one.problems(readFileSync(other.options.checkpointFile, 'utf8')), [])
    const lines = (log: Log): number =>
      readFileSync(log.options.checkpointFile, 'utf8').trim().split('\n').length
    assert.ok(lines(one) >= lines(other) && lines(other) > 3)
    const [{ nodes } = {}] = await store.database.run(handle => handle.execute<{ nodes: number }>(
      sql`select count(distinct body->>'node')::int as nodes from audit_checkpoint`))
    assert.is(nodes, 2)
    rmSync(other.options.checkpointFile)
  })

  test('what is done to the tables is named by its row', async () => {
    const tampered = async (statement: ReturnType<typeof sql>, expected: RegExp): Promise<void> => {
      const before = await snapshot()
      await store.database.run(handle => handle.execute(statement))
      assert.match((await problems()).join('\n'), expected)
      await restore(before)
      assert.equal(await problems(), [])
    }
    const snapshot = (): Promise<(typeof auditEvent.$inferSelect)[]> =>
      store.database.run(handle => handle.select().from(auditEvent))
    const restore = async (rows: (typeof auditEvent.$inferSelect)[]): Promise<void> => {
      await store.database.run(handle => handle.delete(auditEvent))
      await store.database.run(handle => handle.insert(auditEvent).values(rows))
    }
    const { audit, problems } = await openLog(store)
    for (let n = 0; n < 10; n++) await audit.append('x', 'a', `s${n}`, { n })
    await audit.close()
    await tampered(sql`update audit_event set actor = 'mallory' where seq = 4`, /row 4: the row was altered/)
    await tampered(sql`update audit_event set detail = '{"n": 9}' where seq = 5`, /row 5: .* altered/)
    await tampered(sql`delete from audit_event where seq = 6`, /row 6: the row is missing/)
    await tampered(sql`delete from audit_event where seq > 7`, /row 8: the chain ends at row 7: /)
    await tampered(sql`delete from audit_event`, /row 1: the whole chain is missing/)
  })

  test('a tail that is cut off while the node runs is alarmed, and never signed away', async () => {
    const { audit, notices, problems } = await openLog(store)
    for (let n = 0; n < 5; n++) await audit.append('x', 'a', `s${n}`, {})
    await store.database.run(handle => handle.execute(sql`delete from audit_event where seq > 3`))
    await store.database.run(handle => handle.execute(
      sql`update audit_chain set seq = 3, hash = (select hash from audit_event where seq = 3)`))
    await audit.checkpoint()
    assert.match(notices.join('\n'), /ALARM: chain n1\/boot\d+ ends at 3 in the store, at 6 in memory/)
    assert.match((await problems()).join('\n'), /row 4: the chain ends at row 3/)
    await audit.close()
  })

  test('an export is verified offline, with the public key alone', async () => {
    const { audit, options } = await openLog(store)
    for (let n = 0; n < 20; n++) await audit.append('x', 'a', `s${n}`, { n })
    await audit.close()
    let text = ''
    for await (const line of exportAudit(store.database)) text += line
    const publicKeys = [readFileSync(join(store.dataDir, 'signing.pub'), 'utf8')]
    const verdict = await verifyAudit({ ...readAuditExport(text), publicKeys })
    assert.ok(verdict.valid)
    assert.is(verdict.events, 21)
    const altered = text.replace('"subject":"s7"', '"subject":"s8"')
    const { problems } = await verifyAudit({ ...readAuditExport(altered), publicKeys })
    assert.is(problems[0]?.seq, 9)
    assert.throws(() => readAuditExport(`${text}{"event":`), /damaged in line/)
    assert.ok(options.signer.keyId === readPublicKeys(publicKeys[0] ?? '')[0]?.keyId)
  })

  test('a checkpoint file that a crash left half written is mended and completed', async () => {
    const { audit, options } = await openLog(store)
    await audit.checkpoint()
    await audit.append('x', 'a', 'b', {})
    await audit.checkpoint()
    await audit.close()
    const lines = readFileSync(options.checkpointFile, 'utf8').trim().split('\n')
    writeFileSync(options.checkpointFile, `${lines[0]}\n${lines[1]?.slice(0, 50)}`)
    const next = await openLog(store)
    await next.audit.close()
    assert.equal(await next.problems(), [])
    assert.equal(readFileSync(options.checkpointFile, 'utf8').split('\n').slice(0, 2), lines.slice(0, 2))
  })

  test('lists filter by kind, actor, subject and time, the newest first', async () => {
    const { audit } = await openLog(store)
    for (let n = 0; n < 5; n++) await audit.append(`kind${n % 2}`, `actor${n}`, 's', {})
    const list = async (filter: object): Promise<number> =>
      (await listAudit(store.database, { limit: 100, ...filter })).length
    assert.is(await list({ kind: 'kind0' }), 3)
    assert.is(await list({ actor: 'actor3', subject: 's' }), 1)
    assert.is(await list({ until: new Date(0) }), 0)
    assert.is(await list({ since: new Date(0) }), 6)
    const page = await listAudit(store.database, { limit: 2 })
    assert.equal(page.map(({ seq }) => seq), [6, 5])
    const rest = await listAudit(store.database, { limit: 3, before: page[1] })
    assert.equal(rest.map(({ seq }) => seq), [4, 3, 2])
    await audit.close()
  })

  test('a store set back to a copy of yesterday is found at open and by verification (R5, F36)', async () => {
    const own = await stores.open()
    const { audit, options } = await openLog(own)
    await audit.append('x', 'a', 'yesterday', {})
    await audit.close()
    const setBack = await copyOf(own)
    const today = await openLog({ ...own, database: await setBack.reopen() })
    await today.audit.append('x', 'a', 'today', {})
    await today.audit.close()
    await today.options.database.close()

    await setBack.restore()
    const database = await own.again()
    const after = await openLog({ ...own, database })
    assert.match(after.notices.join('\n'), /ends at checkpoint 1, checkpoint 2 was exported: rolled back/)
    assert.match((await after.problems()).join('\n'), /chain n1\/boot\d+, row 1: the whole chain is missing/)
    const alarms = await listAudit(database, { kind: 'audit.alarm', limit: 5 })
    assert.is(alarms.length, 1, 'it is itself on record')
    await after.audit.append('x', 'a', 'tomorrow', {})
    await after.audit.close()
    assert.ok((await after.problems()).length > 0, 'and is not forgotten')
    assert.ok(existsSync(options.checkpointFile))
  })

  /** A copy of a whole store, to be put back later. */
  const copyOf = async (
    of: TestStore
  ): Promise<{ reopen(): Promise<Database>, restore(): Promise<void> }> => {
    await of.database.close()
    if (kind === 'pglite') {
      const directory = join(of.dataDir, 'store')
      cpSync(directory, `${directory}.copy`, { recursive: true })
      return {
        reopen: () => of.again(),
        restore() {
          rmSync(directory, { recursive: true })
          cpSync(`${directory}.copy`, directory, { recursive: true })
          return Promise.resolve()
        }
      }
    }
    const name = new URL(of.store).pathname.slice(1)
    const server = stores.server()
    await server.psql(`create database ${name}_copy template ${name}`)
    return {
      reopen: () => of.again(),
      async restore() {
        await server.psql(`drop database ${name} with (force)`)
        await server.psql(`alter database ${name}_copy rename to ${name}`)
      }
    }
  }

  test.run()
}

const keysTest = suite('keys')
const keyStores = storeMaker('pglite')
keysTest.after(() => keyStores.close())

keysTest('the signing key is made once, for its owner only, with its public half beside it', async () => {
  const { dataDir } = await keyStores.open()
  const signer = openSigner(dataDir)
  assert.is(openSigner(dataDir).keyId, signer.keyId)
  assert.is(statSync(join(dataDir, 'signing.key')).mode & 0o777, 0o600)
  const [key] = readPublicKeys(readFileSync(join(dataDir, 'signing.pub'), 'utf8'))
  const message = Buffer.from('message')
  assert.ok(key!.verify(message, signer.sign(message)))
  assert.not.ok(key!.verify(Buffer.from('messagf'), signer.sign(message)))
  rmSync(join(dataDir, 'signing.pub'))
  openSigner(dataDir)
  assert.ok(existsSync(join(dataDir, 'signing.pub')))
  appendFileSync(join(dataDir, 'signing.pub'), readFileSync(join(dataDir, 'signing.pub')))
  assert.is(readPublicKeys(readFileSync(join(dataDir, 'signing.pub'), 'utf8')).length, 2)
  assert.throws(() => readPublicKeys('nothing'), /no public key/)
})

keysTest.run()
