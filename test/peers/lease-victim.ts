// The process that crash tests kill: a ledger over an embedded store, that issues and releases leases of both
// kinds on a target of files. Says `ready` when the ledger stands and `through` at the end, where nobody
// killed it. Arguments: the store's folder, the target's folder.
import { openDatabase } from '../../src/store/database.ts'
import { fileShelf } from './lease-files.ts'
import { LeaseTarget } from './lease-target.ts'
import { openWorld, request, stillLimits } from './lease-world.ts'

const [dataDir = '', targetDir = ''] = process.argv.slice(2)
const database = await openDatabase({ store: 'pglite', dataDir })
const world = await openWorld(database, { target: new LeaseTarget(fileShelf(targetDir)), keep: true })
const { ledger } = await world.node('one', { limits: stillLimits })
process.stdout.write('ready\n')

const first = await ledger.issue(request())
const shared = await ledger.issue(request('enable'))
const joined = await ledger.issue(request('enable'))
await first.release('session ended')
await shared.release('session ended')
await joined.release('session ended')
const last = await ledger.issue(request())
await ledger.revoke(last.holdId, 'carol')
await world[Symbol.asyncDispose]()
await database.close()
process.stdout.write('through\n')
