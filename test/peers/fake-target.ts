// A PostgreSQL server in name only: takes a SCRAM login, and answers what a test or a benchmark wants,
// without the cost and the honesty of a real one. `blast N B` as a query sends N bytes in rows of B bytes, as
// fast as the socket takes them. Also a program, for benchmarks: `node test/peers/fake-target.ts` prints its
// port.
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { readFrame } from '../../src/wire/postgres/frame.ts'
import {
  authenticationOk, authenticationSasl, authenticationSaslContinue, authenticationSaslFinal, backendKeyData,
  frame, parameterStatus, readyForQuery
} from '../../src/wire/postgres/messages.ts'
import { parseSaslInitialResponse, parseQuery } from '../../src/wire/postgres/statements.ts'
import { ScramServer } from '../../src/wire/postgres/scram.ts'
import { makeVerifier } from '../../src/wire/postgres/verifier.ts'
import { classifyFirstPacket } from '../../src/wire/postgres/startup.ts'

export interface FakeTarget extends AsyncDisposable {
  readonly port: number
  /** Connections that were accepted, in order. */
  readonly connections: FakeConnection[]
  /** Cancel requests: process id and key. */
  readonly cancels: { pid: number, key: Buffer }[]
  stop(): Promise<void>
}

export interface FakeConnection {
  readonly socket: Socket
  /** Everything that came after the login. */
  readonly received: Buffer[]
  /** Resolves when the login is through. */
  readonly ready: Promise<void>
}

export interface FakeOptions {
  /** What a login must know. */
  password?: string | undefined
  port?: number | undefined
  /** Said during the login, before the first prompt. */
  greeting?: Buffer | undefined
  /** Answers one message after the login; the default knows Query and Terminate. */
  answer?: ((socket: Socket, tag: string, body: Buffer) => void) | undefined
  /** Takes a connection as it is, instead of a login. */
  behave?: ((socket: Socket) => void) | undefined
}

export const fakePassword = 'fake-target'
const chunkBytes = 1024 * 1024

/** Rows of one text column. */
export function dataRow(bytes: number): Buffer {
  const body = Buffer.alloc(2 + 4 + bytes, 0x78)
  body.writeUInt16BE(1, 0)
  body.writeInt32BE(bytes, 2)
  return frame('D', body)
}

/** One column `x` of type text. */
export const rowDescription = frame('T', Buffer.from('0001780000000000000000000019ffffffffffff0000', 'hex'))

export const commandComplete = (tag: string): Buffer => frame('C', Buffer.from(`${tag}\0`))

/** Sends `bytes` of rows and the end of the statement; waits for the socket whenever it is full. */
export async function blast(socket: Socket, bytes: number, rowBytes: number): Promise<void> {
  const row = dataRow(rowBytes)
  const rows = Math.max(1, Math.floor(chunkBytes / row.length))
  const chunk = Buffer.concat(Array.from({ length: rows }, () => row))
  const chunks = Math.max(1, Math.round(bytes / chunk.length))
  socket.write(rowDescription)
  for (let sent = 0; sent < chunks && !socket.destroyed; sent++) {
    if (socket.write(chunk)) continue
    await new Promise<void>(resolve => {
      const go = (): void => {
        socket.off('drain', go).off('close', go)
        resolve()
      }
      socket.on('drain', go).on('close', go)
    })
  }
  socket.write(Buffer.concat([commandComplete(`SELECT ${rows * chunks}`), readyForQuery('I')]))
}

function defaultAnswer(socket: Socket, tag: string, body: Buffer): void {
  if (tag === 'X') socket.end()
  if (tag === 'S') socket.write(readyForQuery('I'))
  if (tag !== 'Q') return
  const { sql } = parseQuery(body)
  const [, bytes, rowBytes] = /^blast (\d+) (\d+)/.exec(sql) ?? []
  if (bytes !== undefined) void blast(socket, Number(bytes), Number(rowBytes))
  else {
    const one = [rowDescription, dataRow(1), commandComplete('SELECT 1'), readyForQuery('I')]
    socket.write(Buffer.concat(one))
  }
}

export async function startFakeTarget(options: FakeOptions = {}): Promise<FakeTarget> {
  const verifier = await makeVerifier(options.password ?? fakePassword, { iterations: 1 })
  const connections: FakeConnection[] = []
  const cancels: { pid: number, key: Buffer }[] = []
  let pid = 1000
  const server: Server = createServer({ noDelay: true }, socket => {
    socket.on('error', () => undefined)
    if (options.behave !== undefined) return options.behave(socket)
    const received: Buffer[] = []
    let ready = (): void => undefined
    const connection = { socket, received, ready: new Promise<void>(resolve => { ready = resolve }) }
    connections.push(connection)
    const answer = options.answer ?? defaultAnswer
    const login = logins(socket, verifier, ++pid, cancels, ready, options.greeting ?? Buffer.alloc(0))
    let [inbox, done]: [Buffer, boolean] = [Buffer.alloc(0), false]
    socket.on('data', (chunk: Buffer) => {
      inbox = inbox.length === 0 ? chunk : Buffer.concat([inbox, chunk])
      while (!done && inbox.length > 0) {
        const used = login(inbox)
        if (used === undefined) return
        done = used.done
        inbox = inbox.subarray(used.bytes)
      }
      for (let next = readFrame(inbox, 0, inbox.length); next !== undefined;) {
        received.push(inbox.subarray(0, next.end))
        answer(socket, String.fromCharCode(next.tag), inbox.subarray(next.bodyStart, next.end))
        inbox = inbox.subarray(next.end)
        next = readFrame(inbox, 0, inbox.length)
      }
    })
  })
  await new Promise<void>(resolve => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  const stop = async (): Promise<void> => {
    for (const { socket } of connections) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  }
  return {
    port: (server.address() as AddressInfo).port, connections, cancels, stop, [Symbol.asyncDispose]: stop
  }
}

/** Steps of a login; each call takes what it understands from the front of the bytes, or nothing. */
function logins(
  socket: Socket, verifier: string, pid: number, cancels: { pid: number, key: Buffer }[], ready: () => void,
  greeting: Buffer
): (bytes: Buffer) => { bytes: number, done: boolean } | undefined {
  const scram = new ScramServer({ verifier })
  let step: 'startup' | 'first' | 'final' = 'startup'
  return bytes => {
    if (step === 'startup') {
      const packet = classifyFirstPacket(bytes)
      if (packet === undefined || packet.kind === 'direct-tls') return undefined
      if (packet.kind === 'ssl' || packet.kind === 'gssenc') socket.write('N')
      else if (packet.kind === 'cancel') {
        cancels.push({ pid: packet.pid, key: packet.key })
        socket.end()
      } else {
        step = 'first'
        socket.write(authenticationSasl(scram.mechanisms))
      }
      return { bytes: packet.size, done: false }
    }
    const next = readFrame(bytes, 0, bytes.length)
    if (next === undefined) return undefined
    const body = bytes.subarray(next.bodyStart, next.end)
    if (step === 'first') {
      const { mechanism, data } = parseSaslInitialResponse(body)
      socket.write(authenticationSaslContinue(scram.begin(mechanism, data)))
      step = 'final'
      return { bytes: next.end, done: false }
    }
    const final = scram.finish(body)
    if (final === undefined) {
      socket.destroy()
      return undefined
    }
    socket.write(Buffer.concat([
      authenticationSaslFinal(final), authenticationOk(), greeting, parameterStatus('server_version', '15.0'),
      parameterStatus('client_encoding', 'UTF8'), parameterStatus('standard_conforming_strings', 'on'),
      backendKeyData(pid, Buffer.from([1, 2, 3, 4])), readyForQuery('I')
    ]))
    ready()
    return { bytes: next.end, done: true }
  }
}

if (import.meta.main) {
  const target = await startFakeTarget()
  process.stdout.write(`${JSON.stringify({ port: target.port, pid: process.pid })}\n`)
  process.stdin.resume().on('end', () => process.exit(0))
}
