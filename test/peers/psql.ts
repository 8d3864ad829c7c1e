// A stock psql that stays connected until it is told what to do next. It notices that its connection is gone
// only when it has something to say, so a test that waits for its end types something, or lets it leave.
import { spawn } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { programOf } from '../../tool/services.ts'
import type { House } from './house.ts'

export interface Psql {
  child: ChildProcessWithoutNullStreams
  /** Everything that it printed, errors too. */
  text(): string
  type(line: string): void
  /** Waits until it has printed this. */
  sees(what: RegExp, seconds?: number): Promise<string>
  /** Types end of file; resolves with its exit status. */
  leave(): Promise<number | null>
}

/** Starts psql as alice; `connection` is one of the house's own when it is not given. */
export function startPsql(house: House, login?: string, connection = house.connection(login)): Psql {
  const child = spawn(programOf('psql'), ['-XAtq', connection], { env: house.environment, stdio: 'pipe' })
  let text = ''
  child.stdout.on('data', chunk => { text += String(chunk) })
  child.stderr.on('data', chunk => { text += String(chunk) })
  child.stdin.on('error', () => undefined)
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  return {
    child,
    text: () => text,
    type: line => child.stdin.write(`${line}\n`),
    // At once: a large answer comes faster than a look now and then can bear.
    sees: (what, seconds = 20) => new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(late)
        for (const stream of [child.stdout, child.stderr]) stream.off('data', look)
      }
      const late = setTimeout(() => {
        end()
        reject(new Error(`after ${seconds} s still ${JSON.stringify(text)}`))
      }, seconds * 1000)
      const look = (): void => {
        if (!what.test(text)) return
        end()
        resolve(text)
      }
      for (const stream of [child.stdout, child.stderr]) stream.on('data', look)
      look()
    }),
    async leave() {
      child.stdin.end()
      return ended
    }
  }
}

/** The same, waiting until the first answer is there: the session is open and its account exists. */
export async function openPsql(house: House, login?: string): Promise<Psql> {
  const psql = startPsql(house, login)
  psql.type("SELECT 'rea' || 'dy';")
  await psql.sees(/ready/)
  return psql
}
