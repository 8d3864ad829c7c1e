// The product with TCP targets, as their users have it: a PostgreSQL and a server of a protocol that nobody
// here reads, reached with stock ssh (`-L`) as alice, by her own key.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSshKey } from '../../src/wire/ssh/key.ts'
import { ordersDocuments, roleCredential } from '../../tool/orders-documents.ts'
import { freePort } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { companyDatabase, ran, startProduct } from './house.ts'
import type { Product, Ran } from './house.ts'

/** Far beyond what an exchange takes. */
const answerMsMax = 60_000

export const storedPassword = 'the stored one is for nobody'

export interface TcpHouse extends Product {
  database: PostgresServer
  adminPassword: string
  /** Answers each line in capitals; whoever ends its side hears `bye`, and then the end. */
  shouter: Server
  tcpPort: number
  /** Words of stock ssh for a login. */
  words(login: string, options?: readonly string[]): string[]
  ssh(login: string, options: readonly string[], words?: readonly string[], input?: string): Promise<Ran>
  /** `ssh -N` with a forward to `to`; resolves when the forward listens. */
  forward(login: string, to: string, options?: readonly string[]): Promise<Forward>
  end(): Promise<void>
}

export interface Forward {
  port: number
  child: ChildProcess
  /** What ssh said. */
  text(): string
  ended: Promise<number | null>
  stop(): Promise<number | null>
}

/** The login that a person was told, as it stands in what they saw. */
export function toldLogin(text: string): { user: string, password: string } {
  const found = /as (\S+) with the one-time password (\S{24}) /.exec(text)
  if (found === null) throw new Error(`no login in: ${text}`)
  return { user: found[1]!, password: found[2]! }
}

/** Stock psql through a local port, as somebody who was told a login. */
export function psqlAt(port: number, user: string, password: string, sql: string): Promise<Ran> {
  const words = ['-XAtq', '-c', sql, `host=127.0.0.1 port=${port} user=${user} dbname=orders`]
  return ran(programOf('psql'), words, { PGPASSWORD: password, PGSSLMODE: 'disable' })
}

/** What comes back for some bytes, after the sending side has ended. */
export function exchange(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => socket.end(text))
    socket.on('data', chunk => { answer += String(chunk) })
    socket.setTimeout(answerMsMax, () => socket.destroy(new Error(`no end after ${answer.length}`)))
    socket.on('end', () => resolve(answer)).on('error', reject)
  })
}

function startShouter(): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    socket.on('error', () => undefined)
    socket.on('data', chunk => socket.write(String(chunk).toUpperCase()))
    socket.on('end', () => socket.end('bye\n'))
  })
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server)))
}

/** Nobody listens there; a port that was free a moment ago may be somebody's by now. */
const closedPort = 1

function documents(database: PostgresServer, shouter: number, publicKey: string): string {
  const standing = (name: string, of: string): string => `---
kind: credential
name: ${name}
target: ${of}
username: shouter
password: { env: STORED_PASSWORD }
`
  const { port } = database
  const target = 'orders-tcp'
  return `${ordersDocuments({ port, name: target, protocol: 'tcp', maxSession: '8h' })}---
kind: target
name: shouter
protocol: tcp
address: 127.0.0.1:${shouter}
---
kind: target
name: nowhere
protocol: tcp
address: 127.0.0.1:${closedPort}
---
${roleCredential('orders-tcp-brief', { target, maxSession: '6s' })}${[
    standing('shout', 'shouter'), standing('gone', 'nowhere')
  ].join('')}---
kind: user
name: alice
roles: [user]
password: { env: ALICE_PASSWORD }
publicKeys: ["${publicKey}"]
---
kind: user
name: bob
roles: [user]
password: { env: ALICE_PASSWORD }
publicKeys: ["${publicKey}"]
---
kind: grant
name: alice-through-tcp
users: [alice]
credentials: [orders-tcp-rw, orders-tcp-brief, shout, gone]
`
}

export async function startTcpHouse(): Promise<TcpHouse> {
  const { server: database, adminPassword } = await companyDatabase('15', { log_statement: 'all' })
  const shouter = await startShouter()
  const home = mkdtempSync(join(tmpdir(), 'sallyport-alice-'))
  const key = generateSshKey()
  writeFileSync(join(home, 'id'), key.privateKey, { mode: 0o600 })
  const [sshPort, tcpPort] = [await freePort(), await freePort()]
  const product = await startProduct({
    listen: `ssh: "127.0.0.1:${sshPort}", postgres: null, tcp: "127.0.0.1:${tcpPort}"`,
    access: documents(database, (shouter.address() as AddressInfo).port, key.publicKey),
    limits: 'recordingsReserve: 1MiB, loginGrace: 5s',
    environment: { ORDERS_ADMIN_PASSWORD: adminPassword, STORED_PASSWORD: storedPassword }
  })
  const hostKey = readFileSync(join(product.folder, 'data/ssh/host_ed25519_key.pub'), 'utf8').trim()
  writeFileSync(join(home, 'known_hosts'), `[127.0.0.1]:${sshPort} ${hostKey}\n`)
  const words = (login: string, options: readonly string[] = []): string[] => [
    '-F', 'none', '-o', `UserKnownHostsFile=${join(home, 'known_hosts')}`, '-o', 'StrictHostKeyChecking=yes',
    '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes', '-o', `IdentityFile=${join(home, 'id')}`,
    '-o', 'ExitOnForwardFailure=yes', '-p', String(sshPort), ...options, `${login}@127.0.0.1`
  ]
  const forward = async (login: string, to: string, options = ['-N']): Promise<Forward> => {
    const port = await freePort()
    const all = words(login, [...options, '-v', '-L', `127.0.0.1:${port}:${to}`])
    const child = spawn(programOf('ssh'), all, { stdio: 'pipe' })
    let text = ''
    child.stdout.on('data', chunk => { text += String(chunk) })
    const ended = new Promise<number | null>(resolve => child.once('close', resolve))
    await new Promise<void>((resolve, reject) => {
      child.stderr.on('data', chunk => {
        text += String(chunk)
        if (text.includes('Entering interactive session')) resolve()
      })
      void ended.then(status => reject(new Error(`ssh ended with ${status}: ${text}`)))
    })
    return {
      port, child, ended, text: () => text,
      async stop() {
        child.kill('SIGTERM')
        return ended
      }
    }
  }
  const house: TcpHouse = {
    ...product, database, adminPassword, shouter, tcpPort, words, forward,
    ssh: (login, options, more = [], input = '') =>
      ran(programOf('ssh'), [...words(login, options), ...more], {}, input),
    // Of the product as it is now: a test may have started it again.
    async end() {
      await house.stop()
      house.clear()
      rmSync(home, { recursive: true, force: true })
      shouter.close()
      await database.stop()
    }
  }
  return house
}
