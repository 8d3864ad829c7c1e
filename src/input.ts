// What people type, read in one way everywhere: durations (`30s 15m 8h 7d`), sizes (`500MiB`), addresses
// (`host:port`), and the list of problems that a document of theirs has. Every problem is one line that
// starts with the path of the wrong thing, so that a file with ten mistakes is mended in one go and not in
// ten. Used by the configuration and by the API; the command line tool leaves the reading to them.
import { z } from 'zod'

const secondsOf: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

// PostgreSQL intervals, timers and people all cope with ten years; more is a typing mistake.
const durationSecondsMax = 10 * 366 * 86_400

/** Seconds of `90s`, `15m`, `8h`, `7d` or a sum such as `1h30m`; undefined when the text is none. */
export function readDuration(text: string): number | undefined {
  if (!/^(\d{1,9}[smhd])+$/.test(text)) return undefined
  let seconds = 0
  for (const [, count, unit] of text.matchAll(/(\d+)([smhd])/g)) seconds += Number(count) * secondsOf[unit!]!
  return seconds > 0 && seconds <= durationSecondsMax ? seconds : undefined
}

/** The shortest text that `readDuration` reads back as the same number of seconds. */
export function printDuration(seconds: number): string {
  for (const unit of ['d', 'h', 'm']) {
    const size = secondsOf[unit]!
    if (seconds >= size && seconds % size === 0) return `${seconds / size}${unit}`
  }
  return `${seconds}s`
}

/** Schema of a duration; its value is in seconds. */
export const duration = z.string().transform((text, context) => {
  const seconds = readDuration(text)
  if (seconds !== undefined) return seconds
  context.addIssue(`expected a duration such as 30s, 15m, 8h or 7d, not ${quote(text)}`)
  return z.NEVER
})

const bytesOf: Readonly<Record<string, number>> = {
  B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4
}

/** A public key as OpenSSH writes it, with or without a comment. */
export const publicKey = z.string().regex(/^(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( .*)?$/,
  'expected a public key such as "ssh-ed25519 AAAA…"')

/** Schema of a size such as `64KiB` or `500MiB`; its value is in bytes. */
export const size = z.string().transform((text, context) => {
  const [, count, unit] = /^(\d{1,9})(B|KiB|MiB|GiB|TiB)$/.exec(text) ?? []
  if (count !== undefined && unit !== undefined) return Number(count) * bytesOf[unit]!
  context.addIssue(`expected a size such as 64KiB or 500MiB, not ${quote(text)}`)
  return z.NEVER
})

export interface Address {
  host: string
  port: number
}

/**
 * Reads `host:port`, `[::1]:port` or, with a default port, `host` alone; undefined when it is none of them.
 */
export function readAddress(text: string, defaultPort?: number): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9][A-Za-z0-9._-]{0,252}))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  if (host === undefined || port === undefined || port > 65_535) return undefined
  return { host, port }
}

/** `https://host` or `https://host:port`, and nothing behind it. */
export const httpsAddress = /^https:\/\/([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?$/

/** `host:port` with brackets round an IPv6 address. */
export function printAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/**
 * One line for each problem, each beginning with its path; `root` names the document where the path is
 * empty.
 */
export function problemsOf(error: z.ZodError, root = ''): string[] {
  return error.issues.flatMap(issue => linesOf(issue, [])).map(([path, message]) => {
    const place = [root, path].filter(part => part !== '').join(': ')
    return place === '' ? message : `${place}: ${message}`
  })
}

type Issue = z.core.$ZodIssue
type Path = readonly PropertyKey[]

function linesOf(issue: Issue, above: Path): [path: string, message: string][] {
  const path = [...above, ...issue.path]
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => [printPath([...path, key]), 'unknown key'])
  }
  return [[printPath(path), wordsOf(issue)]]
}

function wordsOf(issue: Issue): string {
  if (issue.code === 'invalid_type') {
    return issue.message.endsWith('received undefined') ? 'is missing' : lower(issue.message)
  }
  return lower(issue.message)
}

function lower(message: string): string {
  return message.replace(/^Invalid input: /, '').replace(/^[A-Z](?=[a-z])/, letter => letter.toLowerCase())
}

/** `jit.create.template`, `users[2]`: the path of a problem as a person would write it. */
export function printPath(path: Path): string {
  let text = ''
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`
    else text += (text === '' ? '' : '.') + (/^[\w-]+$/.test(String(key)) ? String(key) : quote(String(key)))
  }
  return text
}

/** A piece of input as a problem shows it: quoted, so that it cannot pass for our own words, and short. */
export function quote(text: string): string {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text
  return JSON.stringify(shown)
}
