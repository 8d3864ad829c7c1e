// The pieces that documents of several kinds are made of: names, texts, instants, secrets, variables of
// templates. One schema for each, so that a name is a name in every kind, and a problem with it reads alike.
import { z } from 'zod'
import { publicKey as publicKeyLine, quote } from '../input.ts'
import { resourceNamePattern } from '../policy/types.ts'

// Longer texts are no names, addresses or passwords of people.
export const textCharactersMax = 16_384
export const listItemsMax = 10_000

/** How a secret shows in `get`; the same text in a document means "as it is". */
export const shownSecret = '<secret>'

/** A secret as a document says it: its value, or the one that is stored already. */
export type SecretInput = { value: string } | { keep: true }

/** Several values that are sealed together, by key. */
export interface SecretInputs {
  entries: Readonly<Record<string, SecretInput>>
}

export const resourceName = z.string().regex(resourceNamePattern,
  'expected a name of a-z, 0-9, "_", "." and "-", at most 63 long, which begins with a letter or a digit')
export const templateName = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}\/[a-z0-9][a-z0-9_.-]{0,62}$/,
  'expected the name of a template, such as postgres/create-role')
export const text = z.string().min(1).max(textCharactersMax)
export const names = z.array(resourceName).max(listItemsMax).transform(list => [...new Set(list)])
const instantPattern = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/
export const instant = z.string().transform((value, context) => {
  if (instantPattern.test(value) && !isNaN(Date.parse(value))) return new Date(value).toISOString()
  context.addIssue(`expected an instant such as 2026-01-31T08:00:00Z, not ${quote(value)}`)
  return z.NEVER
})
// `{env}` and `{file}` are read where `apply` runs, not here: this machine's files are not the caller's to
// read.
export const secret = z.preprocess(
  value => value === shownSecret ? { keep: true } : value,
  z.strictObject({ value: text.optional(), keep: z.literal(true).optional() })
    .refine(read => (read.value === undefined) !== (read.keep === undefined), 'expected {value: …}')
).transform((read): SecretInput => read.value === undefined ? { keep: true } : { value: read.value })
export const publicKey = publicKeyLine.max(textCharactersMax)

export const words = z.string().max(textCharactersMax)
const scalar = z.union([words, z.number(), z.array(words)], 'expected a text, a number or a list of texts')

// P6: roles are split, trimmed, without duplicates; whether each is a name is checked after that.
const rolePattern = /^[A-Za-z_][A-Za-z0-9_.$@-]{0,62}$/
// A group of a directory, as an item of a list.
const groupPattern = /^[A-Za-z][\w-]*=[^,=\p{Cc}]{1,128}(?:,\s?[A-Za-z][\w-]*=[^,=\p{Cc}]{1,128}){1,16}$/u

/** Roles as people write them, a list or one text with commas; `problem` hears of each that is no name. */
export function readRoles(given: unknown, problem: (message: string) => void): string[] {
  const list = Array.isArray(given) ? given.map(String) : String(given).split(',')
  const roles = [...new Set(list.map(role => role.trim()).filter(role => role !== ''))]
  for (const role of roles) {
    if (!rolePattern.test(role) && !groupPattern.test(role)) problem(`${quote(role)} is no role name`)
  }
  return roles
}

const variableName = z.string().regex(/^[a-z][A-Za-z0-9_]{0,62}$/, 'expected a variable name')
export const variables = z.record(variableName, scalar).transform((read, context) => {
  if (read['roles'] === undefined) return read
  const problem = (message: string): void =>
    context.addIssue({ code: 'custom', path: ['roles'], message })
  return { ...read, roles: readRoles(read['roles'], problem) }
})

export const namePrefix = z.string()
  .regex(/^[a-z_][a-z0-9_]{0,15}$/, 'expected at most 16 of a-z, 0-9 and "_"')
/** Prefix of minted account names, in front of seven digits (J5). */
export const defaultNamePrefix = 'jit_'

/** The object without its undefined members: stored JSON has none, and neither has a comparison with it. */
export function defined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as never
}
