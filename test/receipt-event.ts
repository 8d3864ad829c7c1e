// The receipt of a removal and the audit event that chains it are one transaction: whatever breaks between
// the two, both are there or neither, and then the removal is concluded again. On both stores, with the real
// audit log.
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { openAudit } from '../src/store/audit.ts'
import { sql } from '../src/store/drizzle.ts'
import { openSigner } from '../src/store/keys.ts'
import { createLedgerStore } from '../src/store/ledger.ts'
import { codeOf, request } from './peers/lease-world.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'
import type { Database, LastStep } from '../src/store/database.ts'
import type { Claim, Intent, RemovalResult } from '../src/lease/store-port.ts'

const claimant = { node: 'one', boot: 'b1' }
const { spec } = request()
const intent: Intent = {
  claimant, accountId: 'a', holdId: 'h', kind: 'create', target: 'orders', accountName: 'jit_1',
  credential: 'c', spec, leaseName: 'l', owner: { kind: 'session', id: 's' }, actor: 'x', ttlMs: 60_000,
  maxTtlMs: 60_000, deadManMs: 60_000, claimMs: 60_000
}
const result: RemovalResult = {
  state: 'proved-gone', nextInMs: 1000, attempts: 0, verifyLeft: 0, error: undefined,
  receipts: [{ id: 'r', session: 's', body: '{"state":"proved-gone"}', keyId: 'k', signature: 's' }],
  event: { kind: 'proved-gone', detail: {} },
  audited: { kind: 'account.receipt', detail: { receipt: 'r', sha256: 'ff' } }
}

/** Receipts and their events, as the store has them. */
async function written(database: Database): Promise<unknown> {
  const [row] = await database.run(async handle => [...await handle.execute(sql`
    select (select count(*) from receipt)::int as receipts, (select state from account) as state,
      (select count(*) from audit_event where kind = 'account.receipt')::int as events`)])
  return row
}

for (const kind of storeKinds) {
  test(`${kind}: a crash between a receipt and its event leaves neither, and the next try both`, async () => {
    const maker = storeMaker(kind)
    try {
      const { database, dataDir } = await maker.open()
      const audit = await openAudit({
        database, clock: systemClock, signer: openSigner(dataDir), node: 'one', boot: 'b1', instance: 'i',
        checkpointFile: join(dataDir, 'checkpoints.jsonl')
      })
      let step: LastStep | undefined
      const store = createLedgerStore(database, {
        appendIn: (tx, ...words) => {
          audit.appendIn(tx, ...words)
          if (step !== undefined) database.beforeCommit(tx, step)
        }
      })
      await store.boot(claimant)
      await store.intend(intent)
      const claim = await store.fail(claimant, 'a', 1, 'h', {
        claimMs: 60_000, untouched: false, late: false, error: 'no'
      }) as Claim

      // The process's connection dies when the rows of both have been sent, before COMMIT.
      step = async tx => {
        const seen = [...await tx.execute(sql`select (select count(*) from receipt)::int as receipts,
          (select count(*) from audit_event where kind = 'account.receipt')::int as events`)]
        assert.equal(seen, [{ receipts: 1, events: 1 }])
        throw new Error('killed here')
      }
      assert.is(await codeOf(store.finish(claimant, claim, result)), 'Error: killed here')
      assert.equal(await written(database), { receipts: 0, state: 'removing', events: 0 })

      step = undefined
      assert.is(await store.finish(claimant, claim, result), 'done')
      assert.equal(await written(database), { receipts: 1, state: 'proved-gone', events: 1 })
      // Who comes too late writes neither.
      assert.is(await store.finish(claimant, claim, result), 'fenced')
      assert.equal(await written(database), { receipts: 1, state: 'proved-gone', events: 1 })
      await audit.close()
    } finally {
      await maker.close()
    }
  })
}

test.run()
