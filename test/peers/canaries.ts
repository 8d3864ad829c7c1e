// Where a secret would be seen by somebody who looks: every answer of the API that only reads, the logs of
// both sides, the command lines of all processes, every file in the product's folder (its store, recordings,
// receipts, keys). Secrets are looked for as they are and in the usual spellings.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import type { Product } from './house.ts'
import { apiOf, sessionsOf } from './inspector.ts'

/** Answers about single sessions and leases are asked for the newest ones. */
const newestMax = 8

const spellings: readonly ((secret: string) => string)[] = [
  secret => secret, encodeURIComponent, secret => JSON.stringify(secret).slice(1, -1),
  ...(['base64', 'base64url', 'hex'] as const).map(as => (secret: string) => Buffer.from(secret).toString(as))
]

/** The stream of a client without the types of its paths: what it reads here is bytes. */
type Read = (path: string, asked: { params?: Words, query?: Words }) => AsyncIterable<Buffer>
type Words = Readonly<Record<string, string | number>>

/** What the API answers to an admin who only reads, each with its address. */
async function answersOf(product: Product): Promise<Map<string, Buffer>> {
  const api = apiOf(product)
  const read = api.stream as unknown as Read
  const answers = new Map<string, Buffer>()
  const ask = async (path: string, params: Words = {}, query: Words = {}): Promise<void> => {
    // A refusal is an answer as well.
    const said = (refused: Error): Buffer => Buffer.from(refused.message)
    const answer = buffer(read(path, { params, query })).catch(said)
    answers.set([path, ...Object.values(params), ...Object.values(query)].join(' '), await answer)
  }
  for (const kind of ['target', 'credential', 'user', 'grant']) await ask('/resources/{kind}', { kind })
  for (const path of [
    '/audit/export', '/doctor', '/metrics', '/orphans', '/plugins', '/profiles', '/requests', '/secrets',
    '/ssh-config', '/targets/health', '/templates', '/users'
  ]) await ask(path)
  for (const path of ['/audit', '/sessions', '/leases']) await ask(path, {}, { limit: 1000 })
  await ask('/search', {}, { query: 'SELECT' })
  for (const { id, recording } of (await sessionsOf(api)).slice(0, newestMax)) {
    await ask('/sessions/{id}/receipt', { id })
    if (recording === null) continue
    for (const part of ['events', 'recording', 'statements']) await ask(`/sessions/{id}/${part}`, { id })
    for (const format of ['sql', 'jsonl']) await ask('/sessions/{id}/export', { id }, { format })
  }
  const { leases } = await api.get('/leases', { query: { limit: newestMax } })
  for (const { id } of leases) await ask('/leases/{id}/history', { id })
  return answers
}

function filesOf(folder: string): [string, Buffer][] {
  return readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name)).map(path => [path, readFileSync(path)])
}

function commandLines(): Buffer {
  return Buffer.concat(readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`)
    } catch {
      // It has ended meanwhile.
      return Buffer.alloc(0)
    }
  }))
}

/** Where one of the secrets can be seen; and in how many places was looked. */
export async function sightings(
  product: Product, logs: Readonly<Record<string, string>>, secrets: readonly string[]
): Promise<{ found: string[], places: number }> {
  const canaries = [...new Set(secrets.flatMap(secret => spellings.map(spell => spell(secret))))]
  const places: [string, Buffer][] = [
    ...await answersOf(product), ...filesOf(product.folder), ['command lines', commandLines()],
    ...Object.entries(logs).map(([name, text]): [string, Buffer] => [name, Buffer.from(text)])
  ]
  const found = places.filter(([, bytes]) => canaries.some(canary => bytes.includes(canary)))
  return { found: found.map(([place]) => place), places: places.length }
}
