// Conditions of a request (RFC 9110): the tag of an answer, so that a client that has it already is told so
// (304) and an edit of something that somebody else changed meanwhile is refused (412) instead of written
// over it; and the one part of a recording that a download goes on with (206).
import { createHash } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import type { ResourceRow } from './ports.ts'

/** Strong: the same bytes have the same tag. */
export function tagOf(text: string): string {
  return `"${createHash('sha256').update(text).digest('base64url').slice(0, 27)}"`
}

/** Of a resource, as it was read and as it is in the store: a version is never used again at another time. */
export function resourceTag(
  { kind, name, version, updatedAt }:
  Pick<ResourceRow, 'kind' | 'name' | 'version'> & { updatedAt: Date | string }
): string {
  return tagOf(JSON.stringify([kind, name, version, new Date(updatedAt).toISOString()]))
}

/** Whether a list of tags, or `*`, names this one; a weak one counts as well (`If-None-Match`). */
export function namesTag(header: string | undefined, tag: string): boolean {
  return header?.split(',').map(each => each.trim().replace(/^W\//, ''))
    .some(each => each === '*' || each === tag) === true
}

/** `If-Match`: throws `not-as-expected` when what is there now is not what the client read. */
export function expectTag(header: string | undefined, row: ResourceRow | undefined): void {
  if (header === undefined) return
  // Strong comparison: a weak tag never matches.
  const given = header.split(',').map(each => each.trim())
  if (row !== undefined && (given.includes('*') || given.includes(resourceTag(row)))) return
  const detail = row === undefined
    ? 'there is none any more'
    : `it is version ${row.version}, by ${row.updatedBy}`
  throw new SallyportError('not-as-expected', { detail, problems: [detail] })
}

/** First and last byte. */
export interface Part {
  start: number
  end: number
}

/** The part that a `Range` header asks for; what is no single range is ignored, as the RFC allows. */
export function partOf(header: string | undefined, bytes: number): Part | 'unsatisfiable' | undefined {
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? []
  if (first === undefined || last === undefined || (first === '' && last === '')) return undefined
  if (first === '') {
    const start = Math.max(0, bytes - Number(last))
    return start < bytes ? { start, end: bytes - 1 } : 'unsatisfiable'
  }
  const part = { start: Number(first), end: last === '' ? bytes - 1 : Math.min(Number(last), bytes - 1) }
  if (last !== '' && Number(last) < part.start) return undefined
  return part.start < bytes ? part : 'unsatisfiable'
}
