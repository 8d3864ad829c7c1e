// One text for one value: JSON with sorted keys and no blanks (the part of RFC 8785 that our values need), so
// that a hash or a signature made before a value went into the store still fits what comes out of it.
// PostgreSQL's text and jsonb refuse U+0000 and half surrogates, which peers can put into names: they become
// U+FFFD before anything is hashed, never after.

export type Json =
  | null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/** The canonical text of a JSON value. Members that are undefined are left out; numbers must be finite. */
export function canonicalJson(value: Json): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new TypeError('a number that JSON cannot say')
    return JSON.stringify(value)
  }
  if (isList(value)) return `[${value.map(canonicalJson).join(',')}]`
  const members = Object.keys(value).sort().flatMap(key => {
    const member = value[key]
    return member === undefined ? [] : [`${JSON.stringify(key)}:${canonicalJson(member)}`]
  })
  return `{${members.join(',')}}`
}

/**
 * What JSON makes of any value (dates as ISO 8601, secrets as their mask, big integers as text), with every
 * text made storable.
 */
export function storableJson(value: unknown): Json {
  const text = JSON.stringify(value, (_key, member: unknown) =>
    typeof member === 'bigint' ? String(member) : member)
  return text === undefined ? null : cleaned(JSON.parse(text) as Json)
}

/** A text as PostgreSQL can keep it, of at most `lengthMax` UTF-16 units. */
export function storableText(text: string, lengthMax = Number.POSITIVE_INFINITY): string {
  const whole = text.length > lengthMax ? `${text.slice(0, lengthMax - 1)}…` : text
  return whole.replaceAll('\0', '\ufffd').toWellFormed()
}

function cleaned(value: Json): Json {
  if (typeof value === 'string') return storableText(value)
  if (value === null || typeof value !== 'object') return value
  if (isList(value)) return value.map(cleaned)
  const clean: Record<string, Json> = {}
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) clean[storableText(key)] = cleaned(member)
  }
  return clean
}

// Array.isArray does not narrow a readonly array.
function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value)
}
