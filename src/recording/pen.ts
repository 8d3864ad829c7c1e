// What a terminal writes with: colours and attributes, and whether letters stand for lines. Styles are kept
// as the sequence that makes them, one part for each group (weight, ink …), so that two cells look alike when
// their styles are the same text. And how many cells a character takes.

/** Parts of a style by what they replace. */
type Style = ReadonlyMap<string, string>

const ends: Readonly<Record<number, string>> = {
  22: 'weight', 23: 'italic', 24: 'underline', 25: 'blink', 27: 'inverse', 28: 'hidden', 29: 'struck',
  39: 'ink', 49: 'ground', 55: 'overline', 59: 'underline-ink'
}

/** From 3 on. */
const attributes = ['italic', 'underline', 'blink', 'blink', 'inverse', 'hidden', 'struck'] as const

function groupOf(code: number): string | undefined {
  if (code === 1 || code === 2) return `weight${code}`
  if (code === 21) return 'underline'
  if (code >= 3 && code <= 9) return attributes[code - 3]
  if ((code >= 30 && code <= 38) || (code >= 90 && code <= 97)) return 'ink'
  if ((code >= 40 && code <= 48) || (code >= 100 && code <= 107)) return 'ground'
  if (code === 53) return 'overline'
  return code === 58 ? 'underline-ink' : undefined
}

/** DEC's line drawing, from `j` to `x` and what else is in use. */
const drawing: Readonly<Record<string, string>> = {
  '`': '◆', a: '▒', f: '°', g: '±', j: '┘', k: '┐', l: '┌', m: '└', n: '┼', o: '⎺', p: '⎻', q: '─', r: '⎼',
  s: '⎽', t: '├', u: '┤', v: '┴', w: '┬', x: '│', y: '≤', z: '≥', '{': 'π', '|': '≠', '}': '£', '~': '·'
}

export class Pen {
  #style: Style = new Map()
  /** The sequence that makes the style from nothing; empty for plain text. */
  style = ''
  graphics = false

  /** `(0`: the main set draws lines. */
  choose(set: string, characters: string): void {
    if (set === '(') this.graphics = characters === '0'
  }

  ink(character: string): string {
    const shown = this.graphics ? drawing[character] ?? character : character
    return this.style + shown
  }

  /** A cell that was erased: its background stays. Empty for no background. */
  get blank(): string {
    const ground = this.#style.get('ground')
    return ground === undefined ? '' : `\x1b[${ground}m `
  }

  /** The numbers of `CSI … m`. */
  set(inner: string): void {
    const next = new Map(this.#style)
    const parts = inner.split(';')
    for (let at = 0; at < parts.length; at++) {
      const part = parts[at]!
      const code = Number(part.split(':')[0])
      const isLong = (code === 38 || code === 48 || code === 58) && !part.includes(':')
      const extra = !isLong ? 0 : parts[at + 1] === '5' ? 2 : parts[at + 1] === '2' ? 4 : 0
      this.#one(next, code, parts.slice(at, at + extra + 1).join(';'))
      at += extra
    }
    this.#style = next
    this.style = next.size === 0 ? '' : `\x1b[${[...next.values()].join(';')}m`
  }

  #one(style: Map<string, string>, code: number, text: string): void {
    if (code === 0) return style.clear()
    const ended = ends[code]
    if (ended === 'weight') {
      style.delete('weight1')
      style.delete('weight2')
    } else if (ended !== undefined) style.delete(ended)
    const group = groupOf(code)
    // Set again it goes to the end, and the order of the parts means nothing to a terminal.
    if (group !== undefined) style.set(group, text)
  }
}

const wide = new RegExp(`^[${[
  '\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\ua960-\\ua97c\\uac00-\\ud7a3\\uf900-\\ufaff\\ufe30-\\ufe6f',
  '\\uff00-\\uff60\\uffe0-\\uffe6\\u{1f300}-\\u{1f64f}\\u{1f680}-\\u{1f6ff}\\u{1f900}-\\u{1f9ff}',
  '\\u{20000}-\\u{3fffd}'
].join('')}]`, 'u')
const joining = /^[\p{Mn}\p{Me}\u200b-\u200d]/u

/** Cells of a character: East Asian ones and pictures take two, accents none. */
export function widthOf(character: string): 0 | 1 | 2 {
  if (character < '\u0300') return 1
  if (joining.test(character)) return 0
  return wide.test(character) ? 2 : 1
}

/** Half a wide character is none: what is written over one half blanks the other. */
export function splitWide(cells: string[], at: number, width: number): void {
  if (cells[at] === '' && at > 0) cells[at - 1] = ' '
  if (cells[at + width] === '') cells[at + width] = ' '
}

/** The same for a row whose cells were moved. */
export function mendWide(cells: string[]): void {
  for (let at = 0; at < cells.length; at++) {
    const isWide = widthOf((cells[at] ?? ' ').replace(/^\x1b\[[\d;:]*m/, '')) === 2
    if (isWide && cells[at + 1] === '') at++
    else if (isWide || cells[at] === '') cells[at] = ' '
  }
}
