// Patterns of rules: RE2's syntax for texts, globs for paths. Who writes a rule is an admin, what it is held
// against comes from whoever is watched: so a pattern is matched in time that grows with the text and never
// faster. V8's RegExp cannot promise that; re2js can, since it has neither backreferences nor lookarounds. It
// is loaded when the first pattern is.
import { createRequire } from 'node:module'
import type { RE2JS } from 're2js'
import { SallyportError } from '../errors.ts'

/** A pattern is a line that somebody reads before they believe it. */
export const patternLengthMax = 500
/** Longer texts are not searched (tens of milliseconds): see rules.ts for what they count as. */
export const searchedLengthMax = 256 * 1024

export type Matcher = (text: string) => boolean

const require = createRequire(import.meta.url)
let library: typeof RE2JS | undefined

/** True where the pattern is found anywhere in the text. @throws SallyportError `invalid` */
export function patternMatcher(pattern: string): Matcher {
  if (pattern.length > patternLengthMax) {
    throw new SallyportError('invalid', { detail: `longer than ${patternLengthMax} characters` })
  }
  return compiled(pattern)
}

function compiled(pattern: string): Matcher {
  library ??= (require('re2js') as { RE2JS: typeof RE2JS }).RE2JS
  try {
    const searching = library.compile(pattern)
    return text => searching.test(text)
  } catch (thrown) {
    throw new SallyportError('invalid', { detail: (thrown as Error).message, cause: thrown })
  }
}

/**
 * True where the whole path fits: `*` and `?` within a part, `**` over parts, everything else is itself. A
 * pattern without a slash is that of a name, wherever it is.
 */
export function pathMatcher(glob: string): Matcher {
  return patternMatcher(`(?s)^${glob.includes('/') ? '' : '(?:.*/)?'}${globPattern(glob)}$`)
}

/** True for a folder that has in it, however deep, what the glob fits, and that the glob itself names. */
export function folderMatcher(glob: string): Matcher {
  const parts = glob.split('/')
  const folders = parts.slice(0, -1).flatMap((part, index) => part === '' || part === '**'
    ? []
    : [compiled(`(?s)^${globPattern(parts.slice(0, index + 1).join('/'))}$`)])
  return path => folders.some(fits => fits(path))
}

/**
 * True where some folder exists in which a relative path is one that an absolute glob fits; and for an
 * absolute path where it is one that a relative glob fits within some folder.
 */
export function elsewhereMatcher(glob: string): Matcher {
  if (!glob.includes('/')) return () => false
  const isAbsolute = glob.startsWith('/')
  const anywhere = isAbsolute ? undefined : compiled(`(?s)^/${globPattern(`**/${glob}`)}$`)
  const parts = glob.split('/').filter(part => part !== '').map(part =>
    part.includes('**') ? undefined : pathMatcher(part))
  return path => {
    if (path.startsWith('/')) return anywhere?.(path) === true
    const names = path === '' ? [] : path.split('/')
    for (let back = 1; isAbsolute && back <= names.length; back++) {
      if (back > parts.length) return false
      const part = parts.at(-back)
      if (part === undefined) return true
      if (!part(names.at(-back)!)) return false
    }
    return isAbsolute
  }
}

/** True for whatever has the last name of what the glob fits; where that is any, for everything. */
export function nameMatcher(glob: string): Matcher {
  const last = glob.slice(glob.lastIndexOf('/') + 1)
  if (last.includes('**')) return () => true
  const fits = pathMatcher(last)
  return path => path === '/' || path === '' || fits(path)
}

function globPattern(glob: string): string {
  return glob.split(/(\*\*\/?|\*|\?)/).map(piece => {
    switch (piece) {
      case '**/': return '(?:[^/]*/)*'
      case '**': return '.*'
      case '*': return '[^/]*'
      case '?': return '[^/]'
      default: return piece.replace(/[^A-Za-z0-9_/-]/g, character =>
        character.charCodeAt(0) < 128 ? `\\${character}` : character)
    }
  }).join('')
}
