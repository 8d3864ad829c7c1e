// What the command line tool prints. Names, statements and outputs come from targets and clients, so
// nothing of theirs reaches the terminal as it is: control characters, C1 bytes, bidi overrides and
// invisible characters are made visible (R20). Tables are aligned and plain; JSON is for programs, and has
// the same characters escaped.

import { inert, inertLine } from '../recording/inert.ts'

/** Where output goes; a test puts in its own. */
export interface Sink {
  write(text: string): void
}

export interface Output {
  /** A line of text. */
  line(text?: string): void
  /** Text that is inert already, or was made by ourselves: printed as it is. */
  raw(text: string): void
  /** Rows under headings, columns as wide as they need; `empty` is said where there is no row. */
  table(headings: readonly string[], rows: readonly (readonly Cell[])[], empty: string): void
  /** Names and values, one a line. */
  list(pairs: readonly (readonly [name: string, value: Cell])[]): void
  json(value: unknown): void
  /** One JSON object on one line. */
  jsonLine(value: unknown): void
  /** To standard error: progress, hints, failures. */
  aside(text: string): void
}

export type Cell = string | number | boolean | null | undefined

/** JSON in which whatever would act on a terminal is escaped in JSON's own way: the value stays the same. */
function inertJson(value: unknown, indent: number): string {
  return JSON.stringify(value, null, indent).replace(/[^\x20-\x7e\n]/gu, character =>
    inert(character) === character ? character : unicodeEscapes(character))
}

function unicodeEscapes(character: string): string {
  return character.split('').map(unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')
}

export function createOutput(out: Sink, err: Sink): Output {
  const line = (text = ''): void => out.write(`${inert(text)}\n`)
  return {
    line,
    raw: text => out.write(text),
    table: (headings, rows, empty) => {
      if (rows.length === 0) err.write(`${empty}\n`)
      else tableLines(headings, rows).forEach(text => line(text))
    },
    list: pairs => {
      const width = Math.max(...pairs.map(([name]) => name.length))
      for (const [name, value] of pairs) line(`${name.padEnd(width)}  ${cell(value)}`.trimEnd())
    },
    json: value => out.write(`${inertJson(value, 2)}\n`),
    jsonLine: value => out.write(`${inertJson(value, 0)}\n`),
    aside: text => err.write(`${inert(text)}\n`)
  }
}

function tableLines(headings: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const cells = [headings, ...rows.map(row => row.map(cell))]
  const widths = headings.map((_, column) => Math.max(...cells.map(row => [...row[column]!].length)))
  return cells.map(row => row.map((text, column) =>
    text + ' '.repeat(widths[column]! - [...text].length)).join('  ').trimEnd())
}

function cell(value: Cell): string {
  if (value === null || value === undefined || value === '') return '-'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  return inertLine(String(value))
}

/** `2026-11-21 04:03:09` in UTC, or nothing. */
export function shortTime(iso: string | null): string | undefined {
  return iso === null ? undefined : iso.replace('T', ' ').replace(/\.\d+Z$/, '').replace(/Z$/, '')
}

/** `1.5 MiB`. */
export function bytesText(bytes: number | null): string | undefined {
  if (bytes === null) return undefined
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let size = bytes
  let unit = 0
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024
    unit++
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`
}
