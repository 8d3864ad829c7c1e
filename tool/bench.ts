// `npm run bench [postgres|ssh|leases] [-- OPTIONS]`: one benchmark after the other, each its own process,
// or the one that is named; what else is said goes to it (R27).
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const all = ['postgres', 'ssh', 'leases']

const [named, ...rest] = process.argv.slice(2)
const isNamed = named !== undefined && all.includes(named)
const words = isNamed ? rest : process.argv.slice(2)
for (const name of isNamed ? [named] : all) {
  const file = join(import.meta.dirname, `bench-${name}.ts`)
  const { status } = spawnSync(process.execPath, [file, ...words], { stdio: 'inherit' })
  if (status !== 0) process.exit(1)
}
