// Reads the YAML documents of `apply`. Secrets that a document names as `{env: X}` or `{file: F}` are
// looked up here, on the machine where `apply` runs, because that is where the person's environment and
// files are; a file is relative to the document that names it. Everything that is wrong is collected, with
// file and line, so that it can be told together with what the server finds.
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { LineCounter, parseAllDocuments } from 'yaml'
import type { Document } from 'yaml'
import { Failure } from './failure.ts'

export interface Documents {
  values: unknown[]
  /** `orders.yaml:12`, for each value. */
  places: string[]
  problems: string[]
}

/** Where a document may hold a secret or a text that is too long to stand in it. */
const lookedUp = [['password'], ['privateKey'], ['tls', 'ca']] as const

// Stands for a secret that could not be looked up, while the server is asked what else is wrong.
const unresolved = { value: 'unresolved' }

/**
 * Reads a file, all `*.yaml` of a folder, or standard input (`-`). Throws Failure when it cannot be read at
 * all.
 */
export function readDocuments(path: string): Documents {
  const read: Documents = { values: [], places: [], problems: [] }
  for (const file of filesOf(path)) {
    const source = file === '-' ? readFileSync(0, 'utf8') : readFileSync(file, 'utf8')
    const name = file === '-' ? 'standard input' : file
    readText(source, name, file === '-' ? process.cwd() : dirname(resolve(file)), read)
  }
  return read
}

function filesOf(path: string): string[] {
  if (path === '-') return [path]
  try {
    if (!statSync(path).isDirectory()) return [path]
    return readdirSync(path).filter(name => /\.ya?ml$/.test(name)).sort().map(name => join(path, name))
  } catch (thrown) {
    throw new Failure(`${path} cannot be read: ${(thrown as NodeJS.ErrnoException).code ?? String(thrown)}`)
  }
}

function readText(source: string, name: string, folder: string, read: Documents): void {
  const counter = new LineCounter()
  const documents = parseAllDocuments(source, { lineCounter: counter, uniqueKeys: true, strict: true })
  if (!Array.isArray(documents)) return
  for (const document of documents) {
    const place = `${name}:${lineOf(document, counter)}`
    const broken = [...document.errors, ...document.warnings].map(({ linePos, message }) =>
      `${name}:${linePos?.[0].line ?? '?'}: ${message.split('\n')[0]!.replace(/ at line .*$/, '')}`)
    read.problems.push(...broken)
    if (broken.length > 0) continue
    const value = valueOf(document, place, read.problems)
    if (value === null || value === undefined) continue
    read.values.push(lookUp(value, place, folder, read.problems))
    read.places.push(place)
  }
}

function valueOf(document: Document, place: string, problems: string[]): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch (thrown) {
    problems.push(`${place}: ${(thrown as Error).message}`)
    return undefined
  }
}

function lineOf(document: Document, counter: LineCounter): number {
  const range = document.contents === null ? undefined : document.contents.range
  return range === null || range === undefined ? 1 : counter.linePos(range[0]).line
}

function lookUp(document: unknown, place: string, folder: string, problems: string[]): unknown {
  if (!isMapping(document)) return document
  const copy = structuredClone(document)
  const data = isMapping(copy['data']) ? Object.keys(copy['data']).map(key => ['data', key]) : []
  for (const path of [...lookedUp, ...data]) {
    const parent = path.length === 1 ? copy : copy[path[0]!]
    const key = path.at(-1)!
    if (!isMapping(parent) || !isMapping(parent[key])) continue
    const found = resolveOne(parent[key], folder, problem =>
      problems.push(`${place}: ${path.join('.')}: ${problem}`))
    if (found !== undefined) parent[key] = key === 'ca' ? found.value : found
  }
  return copy
}

// A mapping that is neither `{env}` nor `{file}` is the server's to judge.
function resolveOne(
  given: Record<string, unknown>, folder: string, problem: (what: string) => void
): { value: string } | undefined {
  const [[kind, from] = [], ...more] = Object.entries(given)
  if (more.length > 0 || typeof from !== 'string') return undefined
  if (kind === 'env') {
    const value = process.env[from]
    if (value !== undefined && value !== '') return { value }
    problem(`the environment variable ${from} is not set`)
    return unresolved
  }
  if (kind === 'file') {
    try {
      // An editor ends a file with a line feed; no password does.
      return { value: readFileSync(resolve(folder, from), 'utf8').replace(/\r?\n$/, '') }
    } catch (thrown) {
      problem(`${from} cannot be read: ${(thrown as NodeJS.ErrnoException).code ?? String(thrown)}`)
      return unresolved
    }
  }
  return undefined
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
