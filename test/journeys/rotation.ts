// Rotating the master key: the old key beside the new one for one start, then without it. What was sealed
// before is still readable afterwards, and a start with a wrong key is refused instead of sealing half of
// the store anew.
// deadline: 240 s
import { readFileSync, rmSync, writeFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'

let target: PostgresServer
let adminPassword: string
let house: House

test.before(async () => {
  ({ server: target, adminPassword } = await companyDatabase('18'))
  house = await startHouse({ target, adminPassword })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

test('after a rotation everything opens with the new key alone, and a wrong key does not start', async () => {
  const [data, config] = [join(house.folder, 'data'), join(house.folder, 'sallyport.yaml')]
  const again = async (): Promise<void> => {
    house = await startHouse({ target, adminPassword, folder: house.folder })
  }
  await house.stop()
  renameSync(join(data, 'master.key'), join(data, 'old.key'))
  writeFileSync(join(data, 'master.key'), `${'ab'.repeat(32)}\n`, { mode: 0o600 })
  await again()
  assert.match(house.log(), /seal-broken/)
  const before = readFileSync(config, 'utf8')
  writeFileSync(config, `${before}oldMasterKeys: [{ file: ./data/old.key }]\n`)
  await again()
  assert.match(house.log(), /all sealed values are under the current master key/)
  await house.stop()
  writeFileSync(config, before)
  rmSync(join(data, 'old.key'))
  await again()
  const { stdout, stderr } = await house.psql('SELECT count(*) FROM orders')
  assert.is(stdout, '100\n', stderr)
  await until(() => accountsOn(target), found => found === '')
})

test.run()
