// The program in this process, with a real PostgreSQL behind it: `alice` may open `orders-rw`, whose accounts
// are made for each session. For tests that look into what a session leaves behind.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { readConfig } from '../../src/config.ts'
import { openProgram } from '../../src/main.ts'
import type { Program } from '../../src/main.ts'
import { connectClient } from '../../src/wire/postgres/query.ts'
import type { Client } from '../../src/wire/postgres/query.ts'
import { ordersDocuments } from '../../tool/orders-documents.ts'
import { adminRole, freePort, startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { makeFolder, run } from './api-server.ts'
import type { Ran } from './api-server.ts'

export interface House extends AsyncDisposable {
  folder: string
  target: PostgresServer
  program(): Program
  connect(password?: string): Promise<Client>
  say(line: string): Promise<Ran>
  /** The same, and it must succeed. */
  fine(line: string): Promise<Ran>
  /** Stops the program and opens it again on the same data; `between` runs while it is away. */
  restart(between?: () => Promise<void>): Promise<void>
}

const password = '{ env: ADMIN_PASSWORD }'
const documents = (port: number): string => `${ordersDocuments({ port, password })}---
kind: user
name: alice
password: { value: correct horse }
---
kind: grant
name: devs
users: [alice]
credentials: [orders-rw]
`

/** `config`: more of `sallyport.yaml`. */
export async function openHouse(config = ''): Promise<House> {
  const target = await startPostgres({ version: '18' })
  await target.psql('CREATE DATABASE orders')
  await target.psql('CREATE ROLE app_rw NOLOGIN')
  const { password } = await adminRole(target, { name: 'sallyport', kind: 'createrole', groups: ['app_rw'] })
  const folder = makeFolder()
  rmSync(join(folder, 'data'), { recursive: true })
  const [postgres, http] = [await freePort(), await freePort()]
  writeFileSync(join(folder, 'sallyport.yaml'), `
listen: { ssh: null, postgres: 127.0.0.1:${postgres}, http: 127.0.0.1:${http} }
log: { level: error }
limits: { recordingsReserve: 1MiB }
${config}`)
  const open = (): Promise<Program> => openProgram(readConfig(undefined, {}, folder))
  let program = await open()
  const say = (line: string): Promise<Ran> => run(folder, line.split(' '),
    { env: { ADMIN_PASSWORD: password } })
  const fine = async (line: string): Promise<Ran> => {
    const ran = await say(line)
    assert.is(ran.code, 0, `${line}: ${ran.out}${ran.err}`)
    return ran
  }
  writeFileSync(join(folder, 'all.yaml'), documents(target.port))
  await fine('apply -f all.yaml')
  const ca = readFileSync(join(folder, 'data', 'tls', 'ca.pem'), 'utf8')
  return {
    folder, target, say, fine, program: () => program,
    connect: (password = 'correct horse') => connectClient({
      host: '127.0.0.1', port: postgres, tls: { mode: 'verify-full', ca }, user: 'alice+orders-rw',
      database: 'orders', secret: () => ({ kind: 'password', password }),
      timeouts: { connectMs: 5000, tlsMs: 5000, loginMs: 30_000 }
    }),
    async restart(between = async () => undefined) {
      await program.close()
      await between()
      program = await open()
    },
    async [Symbol.asyncDispose]() {
      await program.close()
      await target[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true })
    }
  }
}
