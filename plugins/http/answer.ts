// What an answer says: its body as a value (JSON or XML), what a trail of a template leads to in it, and the
// code and words of a refusal. The service may say anything; what is kept of its words is one short line.
import type { Trail } from '../../src/jit/http-text.ts'
import { WireError } from '../../src/wire/error.ts'
import type { HttpAnswer } from '../../src/wire/http/client.ts'
import { parseXml } from './xml.ts'

const saidCharactersMax = 300

/** Undefined for an answer without a body. @throws WireError */
export function valueOf({ body, contentType }: HttpAnswer): unknown {
  const text = body.toString('utf8')
  if (text.trim() === '') return undefined
  if (contentType.endsWith('/xml') || text.startsWith('<')) return parseXml(text)
  try {
    return JSON.parse(text)
  } catch {
    // Its message would quote the text.
    throw new WireError('the answer is no JSON')
  }
}

/** Everything that a trail leads to. */
export function follow(value: unknown, trail: Trail): unknown[] {
  let found = [value]
  for (const { name, every, match } of trail) {
    found = found.flatMap(one => memberOf(one, name))
    if (every === true) found = found.flatMap(one => Array.isArray(one) ? one as unknown[] : [])
    if (match === undefined) continue
    const items = found.flatMap(one => Array.isArray(one) ? one as unknown[] : [one])
    found = items.filter(item =>
      (match.key === '' ? [item] : memberOf(item, match.key)).some(one => textOf(one) === match.text))
  }
  return found.filter(one => one !== null && one !== undefined && one !== '')
}

function memberOf(value: unknown, name: string): unknown[] {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return []
  return Object.hasOwn(value, name) ? [(value as Record<string, unknown>)[name]] : []
}

/** Undefined for what is no single value. */
export function textOf(value: unknown): string | undefined {
  return ['string', 'number', 'boolean'].includes(typeof value) ? String(value) : undefined
}

export interface Refusal {
  status: number
  /** The service's own word, such as `DeleteConflict` or `PERMISSION_DENIED`; nothing when it has none. */
  code: string
  said: string
}

const codeTrails = [
  ['ErrorResponse', 'Error', 'Code'], ['error', 'status'], ['error', 'code'], ['code'], ['error']
]
const wordTrails = [
  ['ErrorResponse', 'Error', 'Message'], ['error', 'message'], ['error_description'], ['message']
]

export function refusalOf(answer: HttpAnswer): Refusal {
  let value: unknown
  try {
    value = valueOf(answer)
  } catch {
    // A page for people: its status says enough.
  }
  const first = (trails: readonly string[][]): string => trails
    .flatMap(names => follow(value, names.map(name => ({ name })))).map(textOf)
    .find(text => text !== undefined && text !== '') ?? ''
  const code = first(codeTrails)
  return {
    status: answer.status, code: /^[\w.-]{1,64}$/.test(code) ? code : '', said: oneLine(first(wordTrails))
  }
}

function oneLine(text: string): string {
  return text.slice(0, saidCharactersMax).replaceAll(/[\p{Cc}\p{Cf}]+/gu, ' ').trim()
}
