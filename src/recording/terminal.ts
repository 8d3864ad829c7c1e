// The output of a recorded terminal, made safe for the terminal of the person who replays it (R20). A
// recorded program may have been hostile: it can set the title, fill the clipboard (OSC 52), ask the terminal
// questions whose answers are typed into the watcher's shell, print, or switch on modes that change the
// keyboard. So this parses as a terminal does (DEC/ECMA-48 states, in chunks of any size) and passes an
// allow-list: text, colours, cursor movement, erasing, scrolling. Every sequence that is passed is written
// anew from checked numbers. Strings (OSC, DCS, APC, PM, SOS) are dropped; one that does not end is shown,
// because it could hide the rest.
import { visible } from './inert.ts'

/** A string that has not ended by then is no string: what it swallowed is shown as text. */
const stringMax = 4096
/** Longest control sequence that is looked at; SGR with 24-bit colours for all attributes stays below. */
const sequenceMax = 128
/** Longer numbers are for no screen, and terminals have had trouble with them. */
const digitsMax = 4
/** `REP` with a huge count would write gigabytes. */
const repeatMax = 500

/** Final bytes of control sequences without private marks that only draw or move. */
const drawing = new Set('@ABCDEFGHIJKLMPSTXZ`abdefgmr')
/**
 * With at most one number: with more, T starts mouse highlighting, s sets margins, u talks to the keyboard.
 */
const singleNumber = new Set('STsu')
/** Private modes that may be switched: wrap 7, cursor 25, alternate screens 47, 1047, 1048, 1049. */
const privateModes = new Set(['7', '25', '47', '1047', '1048', '1049'])
/** Escape sequences of one byte: save and restore cursor, index, next line, tab stop, reverse index. */
const plainEscapes = new Set('78DEHM')
/** Character sets that are letters or line drawing. */
const characterSets = new Set('0AB')

/** Most output is this, and needs no looking at single characters. */
const plainRun = /[\x20-\x7e\n\r\t]*/y

type State = 'ground' | 'escape' | 'charset' | 'skip-one' | 'sequence' | 'string'

/**
 * Ends what a recording may have left switched on: colours, alternate screen, hidden cursor, scroll region.
 */
export const terminalReset = '\x1b[?1049l\x1b[r\x1b[?25h\x1b[?7h\x1b(B\x1b[0m'

/** One stream of output. Feed it the bytes or text in order, in pieces of any size. */
export class TerminalFilter {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  #state: State = 'ground'
  #held = ''
  #whole = true
  // A string ends with ESC \: the ESC was seen.
  #escaped = false

  /** Nothing is held back: another filter could go on from here. */
  get atRest(): boolean {
    return this.#state === 'ground' && this.#whole
  }

  /** What may be shown of this piece; an unfinished sequence is held back. */
  write(piece: Uint8Array | string): string {
    // Behind ASCII no character is half read.
    if (typeof piece !== 'string' && piece.length > 0) this.#whole = piece.at(-1)! < 0x80
    return this.#filter(typeof piece === 'string' ? piece : this.#decoder.decode(piece, { stream: true }))
  }

  /** At the end: what was held back, as visible text. */
  end(): string {
    const rest = this.#filter(this.#decoder.decode())
    return this.#state === 'ground' ? rest : rest + this.#show()
  }

  #filter(text: string): string {
    let out = ''
    let at = 0
    while (at < text.length) {
      if (this.#state === 'ground') {
        plainRun.lastIndex = at
        const run = plainRun.exec(text)?.[0] ?? ''
        out += run
        at += run.length
        if (at === text.length) break
      }
      const character = String.fromCodePoint(text.codePointAt(at) ?? 0)
      out += this.#next(character)
      at += character.length
    }
    return out
  }

  #next(character: string): string {
    switch (this.#state) {
      case 'ground': return this.#ground(character)
      case 'escape': return this.#escape(character)
      case 'charset': return this.#charset(character)
      case 'skip-one': return interrupts(character) ? this.#restart(character) : this.#begin('ground', '')
      case 'sequence': return this.#sequence(character)
      case 'string': return this.#string(character)
    }
  }

  #ground(character: string): string {
    const code = character.codePointAt(0) ?? 0
    if (code === 0x1b) return this.#begin('escape', character)
    if (code >= 0x20 && code < 0x7f) return character
    if (character === '\n' || character === '\r' || character === '\t' || character === '\b') return character
    // Bell, answer-back (ENQ), shifts to other character sets and the like.
    if (code < 0x20 || code === 0x7f) return ''
    return showable(code) ? character : visible(character)
  }

  #begin(state: State, held: string): string {
    this.#state = state
    this.#held = held
    this.#escaped = false
    return ''
  }

  /** An escape within a sequence begins a new one, as on every terminal. */
  #restart(character: string): string {
    this.#begin('ground', '')
    return this.#ground(character)
  }

  #show(): string {
    const shown = [...this.#held].map(visibleOrSame).join('')
    this.#begin('ground', '')
    return shown
  }

  #escape(character: string): string {
    this.#held += character
    if (character === '[') return this.#begin('sequence', this.#held)
    // OSC, DCS, APC, PM, SOS, and the title string of screen.
    if (']P_^Xk'.includes(character)) return this.#begin('string', this.#held)
    if ('()*+'.includes(character)) return this.#begin('charset', this.#held)
    // `ESC # 8` and the like: a byte follows that is no text.
    if ('#% -./'.includes(character)) return this.#begin('skip-one', this.#held)
    if (interrupts(character)) return this.#restart(character)
    const sequence = this.#held
    this.#begin('ground', '')
    return plainEscapes.has(character) ? sequence : ''
  }

  #charset(character: string): string {
    if (interrupts(character)) return this.#restart(character)
    const sequence = this.#held + character
    this.#begin('ground', '')
    return characterSets.has(character) ? sequence : ''
  }

  #sequence(character: string): string {
    if (interrupts(character)) return this.#restart(character)
    const code = character.codePointAt(0) ?? 0
    if (code >= 0x20 && code < 0x40 && this.#held.length < sequenceMax) {
      this.#held += character
      return ''
    }
    const inner = this.#held.slice(2)
    if (code < 0x40 || code > 0x7e) {
      // No sequence at all, or far too long.
      const shown = this.#show()
      return shown + this.#ground(character)
    }
    this.#begin('ground', '')
    return allowedSequence(inner, character)
  }

  #string(character: string): string {
    if (this.#escaped) {
      this.#escaped = false
      this.#begin('ground', '')
      if (character === '\\') return ''
      this.#begin('escape', '\x1b')
      return this.#escape(character)
    }
    if (character === '\x1b') {
      this.#escaped = true
      return ''
    }
    if (character === '\x07' || character === '\u009c') return this.#begin('ground', '')
    if (character === '\x18' || character === '\x1a') return this.#begin('ground', '')
    this.#held += character
    return this.#held.length > stringMax ? this.#show() : ''
  }
}

/** ESC, CAN and SUB break a sequence off; here all C0 controls do: no program needs them there. */
function interrupts(character: string): boolean {
  return (character.codePointAt(0) ?? 0) < 0x20
}

/** Above 0x7f: everything but C1 and direction controls and what is invisible (joiners of emoji are not). */
function showable(code: number): boolean {
  if (code < 0xa0 || code === 0x61c || code === 0xfeff) return false
  if (code === 0x200e || code === 0x200f || (code >= 0x2028 && code <= 0x202e)) return false
  if (code >= 0x2060 && code <= 0x206f) return false
  if ((code >= 0xfff9 && code <= 0xfffb) || (code >= 0xd800 && code <= 0xdfff)) return false
  return !(code >= 0xe0000 && code <= 0xe007f)
}

function visibleOrSame(character: string): string {
  const code = character.codePointAt(0) ?? 0
  if (code >= 0x20 && code < 0x7f) return character
  if (code === 0x0a || code === 0x0d) return character
  return code >= 0xa0 && showable(code) ? character : visible(character)
}

/** The control sequence as it may be passed on, made anew; empty when it may not. */
function allowedSequence(inner: string, final: string): string {
  const mode = /^\?([\d;]+)$/.exec(inner)?.[1]
  if (mode !== undefined) {
    if (final !== 'h' && final !== 'l') return ''
    const kept = mode.split(';').filter(number => privateModes.has(number))
    return kept.length === 0 ? '' : `\x1b[?${kept.join(';')}${final}`
  }
  // Colons are for colours only: `38:2::r:g:b`.
  if (!(final === 'm' ? /^[\d;:]*$/ : /^[\d;]*$/).test(inner)) return ''
  // Insert mode: an editor on a slow line.
  if (final === 'h' || final === 'l') return inner === '4' ? `\x1b[4${final}` : ''
  const numbers = inner.split(/[;:]/)
  if (numbers.some(number => number.length > digitsMax)) return ''
  if (final === 's' || final === 'u') return inner === '' ? `\x1b[${final}` : ''
  if (!drawing.has(final) || (singleNumber.has(final) && numbers.length > 1)) return ''
  // The watcher's own scrollback.
  if (final === 'J' && inner === '3') return ''
  if (final === 'b' && Number(inner) > repeatMax) return ''
  return `\x1b[${inner}${final}`
}
