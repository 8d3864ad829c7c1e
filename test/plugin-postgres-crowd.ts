// Many sessions at once: 16 of them make and remove 50 accounts each with the same role (the way with a later
// GRANT failed 386 times of 800). No creation fails, no name collides, nothing is left; on both versions, one
// after the other.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

const workers = 16
const accountsEach = 50

for (const version of ['15', '18'] as const) {
  const crowd = suite<{ target: JitTarget }>(`PostgreSQL ${version}`)

  crowd.before(async context => {
    context.target = await startJitTarget({ version, limits: { parallel: workers } })
  })
  crowd.after(async ({ target }) => {
    await target[Symbol.asyncDispose]()
  })

  const promise = `${workers} at once make and remove ${accountsEach} accounts each: none fails, none is left`
  crowd(promise, async ({ target }) => {
    const failures: string[] = []
    let [made, removed] = [0, 0]
    const work = async (): Promise<void> => {
      for (let index = 0; index < accountsEach; index++) {
        const account = target.mint()
        const variables = { roles: ['app_rw', 'app_ro'], ...account.minted }
        const creation = await target.hooks.run(target.job('create', 'create-role', account, variables))
        if (creation.state === 'done') made++
        else failures.push(`create ${creation.failedStep ?? ''} ${creation.error ?? ''}`)
        const removal = await target.remove(account)
        if (removal.state === 'done' && removal.changed) removed++
        else failures.push(`delete ${removal.failedStep ?? ''} ${removal.error ?? ''}`)
      }
    }
    await Promise.all(Array.from({ length: workers }, work))
    assert.equal(failures, [])
    assert.equal([made, removed], [workers * accountsEach, workers * accountsEach])
    const left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit%'"
    assert.is(await target.server.psql(left), '0')
    assert.is(await target.server.psql(
      "SELECT count(*) FROM pg_auth_members WHERE roleid = 'app_rw'::regrole"
    ),
      version === '18' ? '1' : '0')
  })

  crowd.run()
}
