// Texts of templates, ready to be filled: which reader each kind of text has, a cache of what was read, and
// what a value must be to get into one. A text that is checked at save is read by the same reader when a hook
// runs, so that nothing gets in between that was not looked at.
import { Secret } from '../secret.ts'
import { compileText } from './holes.ts'
import type { CompiledText, TextContext } from './holes.ts'
import { compileScript } from './shell-text.ts'

// Texts come back for every session; a few hundred compiled ones are kept, the oldest leaves first.
const compiledMax = 512
const compiledTexts = new Map<string, CompiledText>()

/** A text of a template, checked and prepared. */
export function compiled(text: string, context: TextContext | 'shell'): CompiledText {
  const key = `${context}:${text}`
  const known = compiledTexts.get(key)
  if (known !== undefined) return known
  const made = context === 'shell' ? compileScript(text) : compileText(text, context)
  if (compiledTexts.size >= compiledMax) {
    for (const oldest of compiledTexts.keys()) {
      compiledTexts.delete(oldest)
      break
    }
  }
  compiledTexts.set(key, made)
  return made
}

/** What a value is not that it should be. */
export function valueProblems(value: unknown, list: boolean): string[] {
  if (list) {
    const strings = Array.isArray(value) && value.every(item => typeof item === 'string' && item !== '')
    return strings ? [] : ['must be a list of words']
  }
  if (typeof value === 'number') return Number.isSafeInteger(value) ? [] : ['must be a whole number']
  return typeof value === 'string' || value instanceof Secret ? [] : ['must be a text or a whole number']
}

export function isWholeNumber(value: unknown): boolean {
  return /^(?:0|[1-9][0-9]{0,14})$/.test(String(value))
}
