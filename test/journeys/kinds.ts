// The kinds of JIT account beside the usual one, as people meet them: an account that is only given a role
// and keeps its own password (privileges only, J12), and a credential that makes accounts with its own login
// (J7).
// deadline: 240 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'

const reportPassword = 'the report account’s own'

let target: PostgresServer
let adminPassword: string
let house: House

const access = `---
kind: credential
name: orders-report
target: orders
username: report
password: { env: REPORT_PASSWORD }
jit:
  enabled: true
  type: enable-disable
  authenticationCredential: orders-admin
  enable: { plugin: postgres, template: postgres/grant-role }
  disable: { plugin: postgres, template: postgres/revoke-role }
  variables: { roles: [app_rw] }
---
kind: credential
name: orders-own
target: orders
username: sallyport
password: { env: ORDERS_ADMIN_PASSWORD }
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: true
  create: { plugin: postgres, template: postgres/create-role }
  delete: { plugin: postgres, template: postgres/delete-role }
  variables: { roles: [app_rw] }
---
kind: grant
name: devs-on-kinds
users: [alice]
credentials: [orders-report, orders-own]
`

/** The roles that the account has on the target. */
const rolesOfReport = (): Promise<string> => target.psql(`
  SELECT coalesce(string_agg(g.rolname, ','), '') FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
  JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = 'report'`)

test.before(async () => {
  ({ server: target, adminPassword } = await companyDatabase('18'))
  await target.psql(`CREATE ROLE report LOGIN PASSWORD '${reportPassword}'`)
  await target.psql('GRANT report TO sallyport WITH ADMIN OPTION')
  const environment = { REPORT_PASSWORD: reportPassword }
  house = await startHouse({ target, adminPassword, access, environment })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

test('privileges only: an account with its own password has a role while sessions use it', async () => {
  const login = 'alice+orders-report'
  const both = await Promise.all([1, 2].map(() =>
    house.psql("SELECT current_user, count(*) FROM orders; SELECT 'slept' FROM pg_sleep(1)", { login })))
  for (const { status, stdout, stderr } of both) {
    assert.is(status, 0, stderr)
    assert.match(stdout, /^report\|100$/m)
  }
  await until(rolesOfReport, roles => roles === '')
  const sessions = async (): Promise<{ receipt: { state: string } | null }[]> =>
    house.json<{ receipt: { state: string } | null }[]>('sessions', 'list')
  await until(sessions, ([session]) => session?.receipt?.state === 'proved-gone')
  const again = await house.psql('SELECT count(*) FROM orders', { login })
  assert.is(again.stdout, '100\n', again.stderr)
  await until(rolesOfReport, roles => roles === '')
})

test('a pair of templates proves itself also on an account that sessions have used', async () => {
  const { passed } = await house.json<{ passed: boolean }>('templates', 'prove', 'orders-report')
  assert.ok(passed)
  const after = await house.psql('SELECT count(*) FROM orders', { login: 'alice+orders-report' })
  assert.is(after.stdout, '100\n', after.stderr)
  await until(rolesOfReport, roles => roles === '')
})

test('a credential that makes accounts with its own login needs no other', async () => {
  const { stdout, stderr } = await house.psql('SELECT current_user', { login: 'alice+orders-own' })
  assert.match(stdout, /^jit_\d{7}$/m, stderr)
  await until(() => accountsOn(target), found => found === '')
})

test.run()
