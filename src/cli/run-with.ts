// `run`: a command gets a lease of its own in its environment, and the lease ends with the command: at its
// exit, and when this process is told to stop. Killed outright, nobody is left to say so; then the lease's
// time ends it. The values are in the environment of the command alone, never in its arguments.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import type { Client } from './client.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, text } from './connect.ts'
import { asFailure } from './failure.ts'

const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const
// What a shell says of a command that it could not start, or that a signal ended.
const notStarted = 127
const signalBase = 128

export const runWith: Run = async call => {
  const path = text(call, 'secret')
  if (path === undefined) throw new UsageError('--secret is missing')
  const client = await clientOf(call)
  const ttl = text(call, 'ttl')
  const { values, lease, version } = ttl === undefined
    ? await client.post('/secrets/{path}/read', { params: { path }, body: {} })
    : await client.post('/secrets/{path}/generate', { params: { path }, body: { ttl } })
  const status = await runCommand(call, values)
  // Of a secret that renews itself the credential is everybody's.
  const isOurs = lease !== null && version === null
  if (!isOurs || await isGivenBack(call, client, lease.id)) return status
  return status === exit.ok ? exit.failed : status
}

function runCommand(call: Invocation, values: Readonly<Record<string, string>>): Promise<number> {
  const [program, ...words] = call.args
  // What lets us speak to the server is not the command's: it gets the lease and no more.
  const { SALLYPORT_TOKEN: _, ...environment } = process.env
  return new Promise(resolve => {
    const failed = (thrown: unknown): void => {
      call.out.aside(`sallyport: ${program} cannot be run: ${(thrown as NodeJS.ErrnoException).code ?? ''}`)
      resolve(notStarted)
    }
    let child: ChildProcess
    try {
      child = spawn(program!, words, { stdio: 'inherit', env: { ...environment, ...values } })
    } catch (thrown) {
      // Some of what cannot be run (a script without its first line) is thrown instead of told.
      return failed(thrown)
    }
    // A terminal sends these to both of us; the lease is given back when the command is through with them.
    const pass = (signal: NodeJS.Signals): void => void child.kill(signal)
    for (const signal of forwarded) process.on(signal, pass)
    const done = (status: number): void => {
      for (const signal of forwarded) process.off(signal, pass)
      resolve(status)
    }
    child.once('error', thrown => {
      done(notStarted)
      failed(thrown)
    })
    child.once('exit', (code, signal) =>
      done(code ?? signalBase + (signal === null ? 0 : constants.signals[signal])))
  })
}

async function isGivenBack(call: Invocation, client: Client, lease: string): Promise<boolean> {
  try {
    await client.post('/leases/{id}/revoke', { params: { id: lease } })
    return true
  } catch (thrown) {
    const { message } = asFailure(thrown)
    call.out.aside(`sallyport: lease ${lease} was not revoked, its time ends it: ${message}`)
    return false
  }
}
