// Stands between a stock sftp or scp and the real server side, as the program that they run in place of ssh:
// every byte goes through the recorder as DATA messages. What was recorded is written to $TRANSFER_LOG.
// `$TRANSFER_REFUSE` names operations that are refused; `$TRANSFER_CUT` cuts the client's messages short.
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { programOf } from '../../tool/services.ts'
import { dataHeadBytes } from '../../src/wire/ssh/connection.ts'
import { TapeWorld } from './ssh-tape.ts'

const refused = (process.env['TRANSFER_REFUSE'] ?? '').split(' ').filter(word => word !== '')
const cutBytes = Number(process.env['TRANSFER_CUT'] ?? 32768)
const world = new TapeWorld(refused.length === 0 ? {} : { allowFile: op => !refused.includes(op) })

// scp calls it as it would ssh: options, host, command; for the SFTP protocol the command is a subsystem.
const command = process.argv.at(-1) ?? ''
const old = command.startsWith('scp ')
const [need, words] = old ? ['scp' as const, command.split(' ').slice(1)] : ['sftp-server' as const, []]
const server = spawn(programOf(need), words, { stdio: ['pipe', 'pipe', 'inherit'] })
if (old) world.exec(command)
else {
  world.open()
  world.request('subsystem', ['sftp'])
}

process.stdin.on('data', (data: Buffer) => {
  for (let from = 0; from < data.length; from += cutBytes) {
    const piece = Buffer.from(data.subarray(from, from + cutBytes))
    const forward = world.say(piece)
    if (forward === undefined) server.stdin.write(piece)
    else for (const payload of forward) server.stdin.write(payload.subarray(dataHeadBytes))
  }
})
process.stdin.on('end', () => server.stdin.end())
server.stdin.on('error', () => undefined)
server.stdout.on('data', (data: Buffer) => process.stdout.write(world.hear(data)))
server.on('close', code => {
  world.close()
  const { recording } = world
  const bytes = recording.frames.reduce((sum, frame) => sum + frame.body.length, 0)
  const log = JSON.stringify({ events: recording.events(), bytes })
  writeFileSync(process.env['TRANSFER_LOG'] ?? '/dev/null', log)
  process.exitCode = code ?? 1
  // The client waits for us to go.
  process.stdin.destroy()
})
