// `serve`: the one command that is not a client of the API but the server itself. The program is loaded
// here and nowhere else in this room, and only now, so that every other command starts without it.
import { readConfig } from '../config.ts'
import { exit } from './command.ts'
import type { Run } from './command.ts'

export const serve: Run = async call => {
  const config = readConfig(call.config)
  const { serve: run } = await import('../main.ts')
  await run(config)
  // Everything is closed and on the disk; a timer of a library must not keep a stopped server in the list.
  process.exit(exit.ok)
}
