// Makes text harmless that somebody else wrote, before it is shown on a terminal, in a log or in a list
// (R20). What a terminal would obey (escape sequences, C0 and C1 controls), what turns the reading direction,
// and what cannot be seen becomes a visible escape such as `\x1b` or `\u202e`. Nothing is dropped: it is
// evidence. For the output of recorded terminals, where colours and cursor movements must work, see
// terminal.ts.

/**
 * C0, DEL, C1; soft hyphen; Arabic letter mark; Mongolian vowel separator; zero-width and direction marks;
 * line and paragraph separator; direction embeddings, overrides and isolates; invisible operators; byte order
 * mark; interlinear annotations; tags; lone surrogates.
 */
const hazards = new RegExp(
  '[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e' +
  '\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}\\p{Surrogate}]', 'gu')

/** Of these, what a line of text may hold besides. */
const shortForms: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/** How a hazardous character is shown. */
export function visible(character: string): string {
  const short = shortForms[character]
  if (short !== undefined) return short
  const code = character.codePointAt(0) ?? 0
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, '0')}`
  return `\\u{${code.toString(16)}}`
}

/** For one line: names in lists, log fields, prompts. Line breaks and tabs are escaped too. */
export function inertLine(text: string): string {
  return text.replace(hazards, visible)
}

/** For text of several lines: keeps line breaks and tabs. A lone carriage return could overwrite. */
export function inert(text: string): string {
  return text.replaceAll('\r\n', '\n').replace(hazards, character => {
    return character === '\n' || character === '\t' ? character : visible(character)
  })
}

/** For JSON that may be looked at on a terminal: the same hazards, as escapes that JSON understands. */
export function inertJson(value: unknown): string {
  return JSON.stringify(value).replace(hazards, character => {
    return [...Array(character.length).keys()]
      .map(index => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`)
      .join('')
  })
}
