// What was done in a recording, as the rules of a grant judge it: statements, commands, lines that were typed
// at a terminal and came back, and files. For `policy what-if`, which asks what a rule would have said.
import { TypedLines } from '../wire/ssh/typed-lines.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, parseHead, readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import type { Frame } from './format.ts'
import type { StatementRecord } from './statement.ts'

export type Act = { atMs: number } & (
  | { on: 'sql', text: string, isWhole: boolean, isCall: boolean }
  | { on: 'command', text: string, isTyped: boolean }
  | { on: 'file', op: string, path: string, to: string | undefined, home: string | undefined }
)

/** Channels whose lines are gathered; a recording with more is hostile. */
const lanesMax = 1024

class ActReader {
  readonly #statements = new StatementDecoder()
  readonly #typed = new Map<number, TypedLines>()
  #isSsh = false
  /** Where relative paths began. */
  #home: string | undefined

  push(frame: Frame): Act[] {
    const atMs = frame.atMicroseconds / 1000
    switch (frame.kind) {
      case frameKind.open:
        this.#isSsh = parseHead(frame.body).protocol === 'ssh'
        return []
      case frameKind.statement:
      case frameKind.result: return this.#statements.push(frame).flatMap(actOf)
      case frameKind.event: {
        const event = parseBody(frame.body)
        if (event['type'] === 'home' && typeof event['path'] === 'string') this.#home = event['path']
        return eventAct(event, atMs, this.#home)
      }
      case frameKind.input: {
        if (!this.#isSsh) return []
        const lines = this.#typed.get(frame.lane) ?? new TypedLines()
        if (this.#typed.size < lanesMax) this.#typed.set(frame.lane, lines)
        return lines.feed(frame.body).map(text => ({ atMs, on: 'command', text, isTyped: true }))
      }
      default: return []
    }
  }

  end(): Act[] {
    return this.#statements.end().flatMap(actOf)
  }
}

function actOf({ kind, sql, atMs, cut }: StatementRecord): Act[] {
  if (kind === 'message') return []
  return [{ atMs, on: 'sql', text: sql, isWhole: !cut, isCall: kind === 'call' }]
}

function eventAct(
  { type, command, op, path, to }: Record<string, unknown>, atMs: number, home: string | undefined
): Act[] {
  if ((type === 'exec' || type === 'verdict') && typeof command === 'string') {
    return [{ atMs, on: 'command', text: command, isTyped: false }]
  }
  if (type !== 'file' || typeof op !== 'string' || typeof path !== 'string') return []
  return [{ atMs, on: 'file', op, path, to: typeof to === 'string' ? to : undefined, home }]
}

/** In the order in which they are on record; a statement when it was finished. */
export async function* acts(file: RecordingFile): AsyncGenerator<Act> {
  const reader = new ActReader()
  for await (const frames of readBatches(file)) {
    for (const frame of frames) for (const act of reader.push(frame)) yield act
  }
  for (const act of reader.end()) yield act
}
