// `sessions replay`, `watch`, `export`, `verify`: what was recorded, and whether it is genuine. A recording
// may hold escape sequences that someone put there for whoever looks at it later, so terminal output passes
// the filter of the recording room once more here: this side does not have to trust the server.
import { createWriteStream, existsSync, readFileSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import type { VerifiedJson } from '../api/client-types.ts'
import { sleep, systemClock } from '../clock.ts'
import type { ExportFormat } from '../recording/export.ts'
import type { Scene } from '../recording/screenplay.ts'
import { TerminalFilter, terminalReset } from '../recording/terminal.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { inertLine } from '../recording/inert.ts'

// Nobody wants to wait for somebody's lunch.
const maxIdleSecondsDefault = 3

const formats: Words<ExportFormat | 'recording'> = {
  'asciicast-v2': true, 'asciicast-v3': true, sql: true, jsonl: true, recording: true
}

export const replay: Run = async call => {
  const speed = number(call, 'speed', 1, 0)
  const maxIdleMs = number(call, 'max-idle', maxIdleSecondsDefault, 0) * 1000
  const lane = text(call, 'lane') === undefined ? undefined : number(call, 'lane', 0, 1)
  const client = await clientOf(call)
  const scenes = client.lines('/sessions/{id}/events', { params: { id: call.args[0]! } })
  let shownMs = 0
  const wanted = (scene: Scene): boolean =>
    lane === undefined || scene.kind === 'end' || scene.lane === lane
  await show(call, scenes, wanted, async scene => {
    const pauseMs = Math.min(Math.max(0, scene.atMs - shownMs), maxIdleMs)
    shownMs = Math.max(shownMs, scene.atMs)
    if (speed > 0 && pauseMs > 0 && !call.json) await sleep(systemClock, pauseMs / speed)
  })
  return exit.ok
}

export const watch: Run = async call => {
  const client = await clientOf(call)
  const left = new AbortController()
  const leave = (): void => left.abort()
  process.once('SIGINT', leave)
  try {
    const params = { id: call.args[0]! }
    const scenes = client.lines('/sessions/{id}/watch', { params, signal: left.signal })
    // How it stands is told to those who ask for that.
    await show(call, scenes as AsyncIterable<Scene>, () => true, () => Promise.resolve())
  } finally {
    process.removeListener('SIGINT', leave)
  }
  return exit.ok
}

/** Prints the wanted scenes as they come, each after `wait`. */
async function show(
  call: Invocation, scenes: AsyncIterable<Scene>, wanted: (scene: Scene) => boolean,
  wait: (scene: Scene) => Promise<void>
): Promise<void> {
  const filter = new TerminalFilter()
  let coloured = false
  for await (const scene of scenes) {
    if (!wanted(scene)) continue
    await wait(scene)
    if (call.json) call.out.jsonLine(scene)
    else if (scene.kind === 'text') {
      const shown = filter.write(scene.text)
      coloured ||= shown.includes('\x1b')
      call.out.raw(shown)
    } else if (scene.kind === 'event' || scene.kind === 'end') {
      call.out.raw(`\r\n[${inertLine(scene.text)}]\r\n`)
    }
  }
  if (coloured) call.out.raw(terminalReset)
}

export const exportOne: Run = async call => {
  const copy = number(call, 'copy', 0, 1)
  const format = copy > 0 ? 'file' : oneOf(call, 'format', formats) ?? 'asciicast-v2'
  const client = await clientOf(call)
  const id = call.args[0]!
  const isBinary = format === 'recording' || format === 'file'
  const chunks = format === 'file'
    ? client.stream('/sessions/{id}/files/{copy}', { params: { id, copy } })
    : format === 'recording'
      ? client.stream('/sessions/{id}/recording', { params: { id } })
      : client.stream('/sessions/{id}/export', { params: { id }, query: { format } })
  const file = text(call, 'output')
  if (file !== undefined) {
    await pipeline(chunks, createWriteStream(file, { mode: 0o600 }))
    if (call.json) call.out.json({ id, format, file })
    return exit.ok
  }
  if (isBinary) throw new UsageError(`--output is missing: a ${format} is binary`)
  // The server has made exports inert; they are files, and go out byte for byte.
  const decoder = new TextDecoder()
  for await (const chunk of chunks) call.out.raw(decoder.decode(chunk, { stream: true }))
  return exit.ok
}

export const verify: Run = async call => {
  const [given] = call.args
  const report = existsSync(given!) ? await verifyFile(call, given!) : await verifyOnServer(call, given!)
  if (call.json) call.out.json(report)
  else call.out.list([
    ['session', report.session], ['state', report.state], ['problem', report.problem],
    ['broken at byte', report.brokenAt], ['bytes', report.bytes], ['vouched for', report.verifiedBytes],
    ['frames', report.frames], ['hash', report.headHash], ['key', report.keyId]
  ])
  return report.valid ? exit.ok : exit.failed
}

async function verifyOnServer(call: Invocation, id: string): Promise<VerifiedJson> {
  if (text(call, 'public-key') !== undefined) throw new UsageError(`there is no file ${JSON.stringify(id)}`)
  const client = await clientOf(call)
  return client.get('/sessions/{id}/verify', { params: { id } })
}

// The whole point of the format: no server, no store, only the file and the public key.
async function verifyFile(call: Invocation, file: string): Promise<VerifiedJson> {
  const key = text(call, 'public-key')
  if (key === undefined) throw new UsageError('--public-key is missing: a file is checked with it')
  const { readPublicKeys, verify: check } = await import('../recording/verify.ts')
  const { state, session, bytes, verifiedBytes, frames, headHash, keyId, problem, brokenAt } =
    await check(file, readPublicKeys(readFileSync(key, 'utf8')))
  return {
    session, valid: state === 'sealed', state, problem: problem ?? null, brokenAt: brokenAt ?? null,
    bytes, verifiedBytes, frames, headHash, keyId
  }
}
