// What a GRANT says beside names: privilege words and what they are given on. Neither can be quoted as a
// whole, so each has a form of its own: a word is one of a list, and printed as the list has it;
// `schema.table` is taken apart, and each part is quoted. What has another form is refused, and so are the
// schemas of the server itself, which hold its accounts.
import { UnfitValue, quoteIdentifier } from './sql-text.ts'

/** Of PostgreSQL, on tables. */
const tablePrivileges: readonly string[] = [
  'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN', 'ALL',
  'ALL PRIVILEGES'
]

/** Words of that list, in any case, as the list has them. @throws UnfitValue */
export function privilegeList(given: readonly string[], words = tablePrivileges): string {
  const found = given.map(word => word.trim().replaceAll(/\s+/g, ' ').toUpperCase())
  const isWord = found.length > 0 && found.every(word => words.includes(word))
  const hasAll = found.some(word => word.startsWith('ALL'))
  if (isWord && !(hasAll && found.length > 1)) return [...new Set(found)].join(', ')
  throw new UnfitValue(`is not a list of privileges; there are ${words.join(', ')} (ALL only by itself)`)
}

/** `schema.table` or `schema.*`, in two parts. @throws UnfitValue */
export function objectParts(value: string, system: RegExp): [place: string, object: string] {
  const [place = '', object = '', ...rest] = value.split('.')
  if (place === '' || object === '' || place === '*' || rest.length > 0) {
    throw new UnfitValue('is not of the form schema.table or schema.*')
  }
  if (system.test(place)) throw new UnfitValue('is a part of the server itself')
  return [place, object]
}

const systemSchemas = /^(?:pg_|information_schema$)/i

/** `app.orders` → `TABLE "app"."orders"`; `app.*` → all tables that are there. PostgreSQL. */
export function tablesOf(value: string): string {
  const [schema, table] = objectParts(value, systemSchemas)
  if (table === '*') return `ALL TABLES IN SCHEMA ${quoteIdentifier(schema)}`
  return `TABLE ${quoteIdentifier(schema)}.${quoteIdentifier(table)}`
}

/** The schema of such a name, quoted. */
export function schemaOf(value: string): string {
  return quoteIdentifier(objectParts(value, systemSchemas)[0])
}
