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
  | { on: 'file', op: string, paths: readonly string[] }
)

/** Channels whose lines are gathered; a recording with more is hostile. */
const lanesMax = 1024

class ActReader {
  readonly #statements = new StatementDecoder()
  readonly #typed = new Map<number, TypedLines>()
  #isSsh = false

  push(frame: Frame): Act[] {
    const atMs = frame.atMicroseconds / 1000
    switch (frame.kind) {
      case frameKind.open:
        this.#isSsh = parseHead(frame.body).protocol === 'ssh'
        return []
      case frameKind.statement:
      case frameKind.result: return this.#statements.push(frame).flatMap(actOf)
      case frameKind.event: return eventAct(parseBody(frame.body), atMs)
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

function eventAct({ type, command, op, path, to }: Record<string, unknown>, atMs: number): Act[] {
  if ((type === 'exec' || type === 'verdict') && typeof command === 'string') {
    return [{ atMs, on: 'command', text: command, isTyped: false }]
  }
  if (type !== 'file' || typeof op !== 'string') return []
  return [{ atMs, on: 'file', op, paths: [path, to].filter(each => typeof each === 'string') }]
}

/** In the order in which they are on record; a statement when it was finished. */
export async function* acts(file: RecordingFile): AsyncGenerator<Act> {
  const reader = new ActReader()
  for await (const frames of readBatches(file)) {
    for (const frame of frames) for (const act of reader.push(frame)) yield act
  }
  for (const act of reader.end()) yield act
}
