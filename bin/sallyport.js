#!/usr/bin/env node
// The `sallyport` command. Node 24 runs our TypeScript as it is; on an older Node this launcher hands over to
// the Node 24 that npm installed beside us, so that the command works from any shell.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../src/cli/sallyport.ts', import.meta.url))
if (Number(process.versions.node.split('.')[0]) >= 24) {
  await import(main)
} else {
  const node = [`linux-${process.arch}`].map(name =>
    fileURLToPath(new URL(`../node_modules/node-${name}/bin/node`, import.meta.url))).find(existsSync)
  if (node === undefined) {
    process.stderr.write(`sallyport needs Node 24 or later; this is ${process.version}\n`)
    process.exit(1)
  }
  const child = spawnSync(node, [main, ...process.argv.slice(2)], { stdio: 'inherit' })
  process.exit(child.status ?? 1)
}
