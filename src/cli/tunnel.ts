// `connect`: a local port that leads to a TCP target, for as long as this command runs. The API gives a
// ticket, the proxy's listener takes it and opens the session, and each local connection becomes one of its
// own. Of an account that was made for this the one-time password is shown here, and nowhere else; a command
// behind `--` gets it in its environment instead.
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { pipeline } from 'node:stream'
import { ask } from './access.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number } from './connect.ts'
import { Failure } from './failure.ts'
import { ProxyLine } from './proxy-line.ts'
import type { Place, Said } from './proxy-line.ts'

const loopback = '127.0.0.1'
const portMax = 65_535

interface Login {
  target: string
  user: string
  /** Null: the account's own, which is not ours to know. */
  password: string | null
}

export const connect: Run = async call => {
  const [credential = '', ...command] = call.args
  const wanted = number(call, 'port', 0, 0)
  if (!Number.isInteger(wanted) || wanted > portMax) throw new UsageError('--port must be a port')
  const client = await clientOf(call)
  const { ticket, host, port } = await client.post('/connections', { body: { credential } })
  const session = new Session({ host, port, ca: client.connection.ca }, ticket, call)
  let server: Server | undefined
  try {
    const login = await session.opened()
    server = await listen(wanted, local => void session.serve(local))
    const at = { ...login, host: loopback, port: (server.address() as AddressInfo).port }
    if (command.length === 0) {
      show(call, at)
      return await Promise.race([session.ended, interrupted()])
    }
    call.out.aside(`sallyport: ${at.target} is at ${loopback}:${at.port}`)
    return await Promise.race([session.ended, ran(command, at)])
  } finally {
    server?.close()
    session.end()
  }
}

class Session {
  readonly #place: Place
  readonly #call: Invocation
  readonly #line: ProxyLine
  readonly #locals = new Set<Socket>()
  /** Connections that wait for a ticket, in the order of their asking. */
  readonly #asked: { resolve: (ticket: string) => void, reject: (failure: Failure) => void }[] = []
  /** Resolves with the exit code when the proxy ends it. */
  readonly ended: Promise<number>
  #end: (code: number) => void = () => undefined
  #isOver = false

  constructor(place: Place, ticket: string, call: Invocation) {
    this.#place = place
    this.#call = call
    this.#line = new ProxyLine(place, ticket)
    this.ended = new Promise(resolve => { this.#end = resolve })
  }

  /** The login, when the session is open. @throws Failure */
  async opened(): Promise<Login> {
    for (;;) {
      const said = await this.#line.next()
      if (said.type === 'code') this.#line.send(await oneTimeCode())
      if (said.type === 'end') throw new Failure(said.text ?? 'refused', { code: 'refused' })
      if (said.type !== 'ready') {
        this.#notice(said)
        continue
      }
      this.#line.settle()
      void this.#listen()
      const { target = '', username = '', password = null } = said
      return { target, user: username, password }
    }
  }

  async serve(local: Socket): Promise<void> {
    this.#locals.add(local)
    local.on('error', () => local.destroy()).once('close', () => this.#locals.delete(local))
    try {
      const ticket = await new Promise<string>((resolve, reject) => {
        this.#asked.push({ resolve, reject })
        this.#line.send('connection')
      })
      const lane = new ProxyLine(this.#place, ticket)
      local.once('close', () => lane.socket.destroy())
      const said = await lane.next()
      if (said.type !== 'open') throw new Failure(said.text ?? 'refused')
      lane.release()
      // Each direction ends by itself; what breaks one breaks both.
      const done = (thrown: Error | null | undefined): void => {
        if (thrown instanceof Error) local.destroy()
      }
      pipeline(local, lane.socket, done)
      pipeline(lane.socket, local, done)
    } catch (thrown) {
      this.#call.out.aside(`sallyport: ${thrown instanceof Error ? thrown.message : String(thrown)}`)
      local.destroy()
    }
  }

  end(): void {
    this.#isOver = true
    for (const local of this.#locals) local.destroy()
    this.#line.socket.end()
    this.#line.socket.destroySoon()
  }

  async #listen(): Promise<void> {
    try {
      for (;;) {
        const said = await this.#line.next()
        if (said.type === 'ticket') this.#asked.shift()?.resolve(said.ticket ?? '')
        else if (said.type === 'refused') this.#asked.shift()?.reject(new Failure(said.text ?? 'refused'))
        else if (said.type === 'end') throw new Failure(said.text ?? 'it is over')
        else this.#notice(said)
      }
    } catch (thrown) {
      // Who hangs up hears the line close.
      if (this.#isOver) return
      this.#call.out.aside(`sallyport: ${thrown instanceof Error ? thrown.message : String(thrown)}`)
      this.#end(exit.failed)
    }
  }

  #notice({ type, text = '' }: Said): void {
    if (type === 'notice') this.#call.out.aside(`sallyport: ${text}`)
  }
}

async function oneTimeCode(): Promise<string> {
  const { SALLYPORT_CODE: code } = process.env
  if (code !== undefined) return code
  if (process.stdin.isTTY) return ask('one-time code: ', process.stderr)
  throw new Failure('a one-time code is needed: give it in SALLYPORT_CODE')
}

function listen(port: number, serve: (local: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, serve)
  return new Promise((resolve, reject) => {
    server.once('error', thrown => reject(new Failure(`port ${port} cannot be had: ${thrown.message}`)))
    server.listen(port, loopback, () => resolve(server))
  })
}

function show({ out, json }: Invocation, login: Login & { host: string, port: number }): void {
  const { target, user, password, host, port } = login
  if (json) return out.json({ target, host, port, user, password })
  out.line(`${target} is at ${host}:${port} until you press Ctrl-C`)
  if (password === null) {
    const own = user === '' ? 'as you are known there' : `as ${user}, with its own password`
    return out.line(`log in ${own}`)
  }
  out.list([['user name', user], ['one-time password', password]])
}

function interrupted(): Promise<number> {
  return new Promise(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(exit.ok))
  })
}

/** Resolves with the command's own exit code. */
function ran(
  [program = '', ...words]: readonly string[], { user, password, host, port }: Login & Omit<Place, 'ca'>
): Promise<number> {
  // Ctrl-C is for the command: it may want to go on.
  process.on('SIGINT', () => undefined)
  // What lets us speak to the server is not the command's.
  const { SALLYPORT_TOKEN: _, ...environment } = process.env
  const child = spawn(program, words, {
    stdio: 'inherit',
    env: {
      ...environment, SALLYPORT_HOST: host, SALLYPORT_PORT: String(port), SALLYPORT_USER: user,
      SALLYPORT_PASSWORD: password ?? ''
    }
  })
  process.once('SIGTERM', () => child.kill('SIGTERM'))
  return new Promise((resolve, reject) => {
    child.once('error', thrown => reject(new Failure(`${program}: ${thrown.message}`)))
    child.once('close', status => resolve(status ?? exit.failed))
  })
}
