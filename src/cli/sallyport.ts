// The `sallyport` program: its arguments, its output and its exit code. Imported by bin/sallyport.js, which
// has made sure that this is a Node that can run it. What it does stands in run.ts, where a test can call
// it too.
import { run } from './run.ts'

// `head` has seen enough and closed the pipe: that is no failure of ours.
function endQuietly(thrown: NodeJS.ErrnoException): void {
  if (thrown.code !== 'EPIPE') throw thrown
  process.exit(0)
}

process.stdout.on('error', endQuietly)
process.stderr.on('error', endQuietly)
// Waiting on the clock does not keep a process alive; an open port does, until the command is done.
const { port1: alive } = new MessageChannel()
alive.ref()
process.exitCode = await run(process.argv.slice(2), process.stdout, process.stderr)
alive.close()
