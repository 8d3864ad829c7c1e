// Throw-away servers of any kind for tests: a program in a folder of its own on a free loopback port, run as
// nobody when we are root, deleted when it is stopped. As with PostgreSQL (postgres.ts), a small shell stands
// over each and holds a pipe to us: when we end, however we end, it kills the server and deletes its folder.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, closeSync, openSync, readFileSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { freePort } from './postgres.ts'
import { makeFolder, unprivilegedAccount } from './postgres-programs.ts'
import type { Account } from './postgres-programs.ts'

export interface Place {
  /** Belongs to the account that the server runs as. */
  base: string
  host: string
  port: number
  account: Account | undefined
}

export interface Throwaway extends AsyncDisposable, Place {
  /** What it wrote to its outputs. */
  readonly logFile: string
  /** Kills the server and keeps its folder: a target that went away. */
  halt(): Promise<void>
  resume(): Promise<void>
  stop(): Promise<void>
}

export interface Recipe {
  /** Writes what the server needs into its folder. */
  prepare(place: Place): void
  command(place: Place): readonly string[]
  /** For a server that insists on a port, and on being root: where it listens. */
  seat?: { host: string, port: number }
  environment?: Readonly<Record<string, string>>
}

const startLimitMs = 60_000
const startPollMs = 20

// Descriptor 3 stays open in the server only, so its end tells us that the server is gone.
const shellScript = `
  base=$1; shift
  "$@" & server=$!
  exec 3>&-
  read -r word
  kill -KILL "$server" 2>&-
  wait "$server" 2>&-
  [ "$word" = keep ] || rm -rf -- "$base"
`

/** @throws Error with the server's log when it does not come up */
export async function startThrowaway(
  { prepare, command, seat, environment = {} }: Recipe
): Promise<Throwaway> {
  const account = seat === undefined ? unprivilegedAccount() : undefined
  const place = {
    base: makeFolder(account), ...seat ?? { host: '127.0.0.1', port: await freePort() }, account
  }
  const logFile = join(place.base, 'log')
  let running: ChildProcess | undefined
  const start = async (): Promise<ChildProcess> => {
    const log = openSync(logFile, 'a')
    const shell = spawn('/bin/sh', ['-c', shellScript, 'sh', place.base, ...command(place)], {
      cwd: place.base, ...account, detached: true, stdio: ['pipe', log, log, 'pipe'],
      env: { PATH: '/usr/sbin:/usr/bin:/bin', LC_ALL: 'C', TMPDIR: place.base, ...environment }
    })
    closeSync(log)
    // A server that nobody stops must not keep its user alive: the shell ends it when we end.
    shell.unref()
    const [lifeline, alive] = [shell.stdin as Socket, shell.stdio[3] as Socket]
    let isGone = false
    alive.resume().once('close', () => { isGone = true }).unref()
    lifeline.on('error', () => { /* the shell is gone: its exit is what counts */ })
    lifeline.unref()
    for (const readyBy = performance.now() + startLimitMs; !await answers(place);) {
      if (isGone || performance.now() > readyBy) {
        await end(shell, true)
        throw new Error(`the server did not start:\n${readFileSync(logFile, 'utf8')}`)
      }
      await wait(startPollMs)
    }
    return shell
  }
  try {
    prepare(place)
    running = await start()
  } catch (error) {
    rmSync(place.base, { recursive: true, force: true })
    throw error
  }
  const finish = async (keep: boolean): Promise<void> => {
    const ending = running
    running = undefined
    if (ending !== undefined) await end(ending, keep)
  }
  const server: Throwaway = {
    ...place, logFile,
    halt: () => finish(true),
    resume: async () => { running ??= await start() },
    stop: async () => {
      await finish(false)
      rmSync(place.base, { recursive: true, force: true })
    },
    [Symbol.asyncDispose]: () => server.stop()
  }
  return server
}

/** Gives a file that we wrote to whom the server runs as. */
export function give(path: string, { account }: Place): void {
  if (account !== undefined) chownSync(path, account.uid, account.gid)
}

async function end(shell: ChildProcess, keep: boolean): Promise<void> {
  shell.ref()
  const ended = shell.exitCode === null && shell.signalCode === null ? once(shell, 'exit') : undefined
  shell.stdin?.end(keep ? 'keep\n' : '')
  await ended
}

async function answers({ host, port }: Place): Promise<boolean> {
  const socket = connect(port, host)
  const open = await once(socket, 'connect').then(() => true, () => false)
  socket.destroy()
  return open
}
