// Percent-encoding (RFC 3986) for values in paths, queries and forms: nothing of a value is left that could
// be a delimiter. encodeURIComponent alone leaves five characters that signatures count as reserved.

export function encodeWord(value: string): string {
  return encodeURIComponent(value)
    .replaceAll(/[!'()*]/g, one => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)
}
