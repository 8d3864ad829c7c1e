// A small model of a terminal's screen, so that a search finds text as it stood there: editors and shells
// draw a line in pieces, jump back, insert and erase. It is fed with what the filter of terminal.ts lets pass
// and hands out a row when it scrolls off, before it is erased or drawn over, and at the end. It shows
// nothing: a sequence that it does not know is left out. Every character takes one cell, unless the screen is
// styled: then cells have their colours and widths as well, so that it can be drawn again (picture.ts).

import { Pen, mendWide, splitWide, widthOf } from './pen.ts'

/** Larger terminals are hostile. */
const sizeMax = 500
/** A character with its style and accents. */
const cellCharactersMax = 128

export interface Place {
  atMs: number
  offset: number
}

interface Row {
  cells: string[]
  /** It is the rest of the row above, which was too long. */
  continues: boolean
  /** Where its text began. */
  place: Place | undefined
  /** The cursor has been elsewhere: what is drawn over it is another text. */
  settled: boolean
  /** It has been handed out as it is. */
  told: boolean
}

function emptyRow(): Row {
  return { cells: [], continues: false, place: undefined, settled: false, told: false }
}

/** What a styled screen is drawn from. */
export interface ScreenState {
  columns: number
  rows: number
  /** Cells of each row: a style (`ESC [ … m` or nothing) and a character; empty behind a wide one. */
  lines: readonly (readonly string[])[]
  /** Under the alternate screen. */
  main: { lines: readonly (readonly string[])[], row: number, column: number } | undefined
  row: number
  column: number
  saved: { row: number, column: number }
  region: { top: number, bottom: number }
  style: string
  /** Line drawing instead of letters. */
  graphics: boolean
  hidden: boolean
}

const sequence = /\x1b(?:\[([?\d;:]*)([@-~])|[()*+](.)|(.))/y
const run = /[^\x00-\x1f\x7f]+/y

export class Screen {
  readonly #tell: (text: string, place: Place) => void
  #columns: number
  #rows: number
  #lines: Row[]
  #main: { lines: Row[], row: number, column: number } | undefined
  #row = 0
  #column = 0
  #top = 0
  #bottom: number
  #saved = { row: 0, column: 0 }
  #place: Place = { atMs: 0, offset: 0 }
  readonly #pen: Pen | undefined
  #hidden = false
  // The beginning of a line that was longer than the screen is wide and has scrolled off.
  #long = { text: '', place: this.#place }

  /** `styled`: see above; costs more, and is for pictures only. */
  constructor(
    columns: number, rows: number, tell: (text: string, place: Place) => void, { styled = false } = {}
  ) {
    this.#tell = tell
    this.#pen = styled ? new Pen() : undefined
    this.#columns = Math.min(Math.max(columns, 1), sizeMax)
    this.#rows = Math.min(Math.max(rows, 1), sizeMax)
    this.#bottom = this.#rows - 1
    this.#lines = Array.from({ length: this.#rows }, emptyRow)
  }

  /** What the filter let pass. */
  write(text: string, place: Place): void {
    this.#place = place
    let at = 0
    while (at < text.length) {
      run.lastIndex = at
      const piece = run.exec(text)?.[0]
      if (piece !== undefined) {
        for (const character of piece) this.#put(character)
        at += piece.length
        continue
      }
      sequence.lastIndex = at
      const match = text[at] === '\x1b' ? sequence.exec(text) : null
      if (match === null) this.#control(text[at++]!)
      else {
        at += match[0].length
        if (match[2] !== undefined) this.#sequence(match[1] ?? '', match[2])
        else if (match[3] !== undefined) this.#pen?.choose(match[0][1]!, match[3])
        else if (match[4] !== undefined) this.#escape(match[4])
      }
    }
  }

  state(): ScreenState {
    const cellsOf = (lines: readonly Row[]): string[][] => lines.map(row => row.cells)
    const main = this.#main
    return {
      columns: this.#columns, rows: this.#rows, lines: cellsOf(this.#lines),
      main: main === undefined ? undefined : { ...main, lines: cellsOf(main.lines) },
      row: this.#row, column: this.#column, saved: this.#saved,
      region: { top: this.#top, bottom: this.#bottom },
      style: this.#pen?.style ?? '', graphics: this.#pen?.graphics ?? false, hidden: this.#hidden
    }
  }

  resize(columns: number, rows: number): void {
    this.#columns = Math.min(Math.max(columns, 1), sizeMax)
    this.#rows = Math.min(Math.max(rows, 1), sizeMax)
    // As terminals do: what stood at the top goes, so that the cursor stays on the screen.
    while (this.#lines.length > this.#rows && this.#row > 0) {
      this.#scrolledOff(this.#lines.shift())
      this.#row--
    }
    for (const row of this.#lines.splice(this.#rows)) this.#finish(row)
    while (this.#lines.length < this.#rows) this.#lines.push(emptyRow())
    this.#top = 0
    this.#bottom = this.#rows - 1
    this.#move(this.#row, this.#column)
  }

  /** What stands on the screen at the end. */
  end(): void {
    this.#leaveAlternate()
    for (const row of this.#lines) this.#scrolledOff(row)
    this.#flushLong()
    this.#lines = Array.from({ length: this.#rows }, emptyRow)
  }

  // ---- handing out

  #textOf(row: Row): string {
    return Array.from(row.cells, cell => cell ?? ' ').join('').trimEnd()
  }

  /** Before its text is gone. */
  #finish(row: Row): void {
    const text = row.told ? '' : this.#textOf(row)
    if (text !== '') this.#tell(text, row.place ?? this.#place)
    row.told = true
  }

  /** Rows that leave at the top are joined to the lines that they were. */
  #scrolledOff(row: Row | undefined): void {
    if (row === undefined) return
    if (!row.continues) this.#flushLong()
    if (row.told) return
    if (this.#long.text === '') this.#long.place = row.place ?? this.#place
    this.#long.text += this.#textOf(row)
    if (this.#long.text.length > sizeMax * sizeMax) this.#flushLong()
  }

  #flushLong(): void {
    const { text, place } = this.#long
    if (text !== '') this.#tell(text, place)
    this.#long = { text: '', place }
  }

  // ---- drawing

  #put(character: string): void {
    const width = this.#pen === undefined ? 1 : widthOf(character)
    if (width === 0) return this.#join(character)
    if (this.#column + width > this.#columns && this.#columns >= width) {
      this.#column = 0
      this.#lineFeed()
      this.#current().continues = true
    }
    const row = this.#current()
    const before = row.cells[this.#column]
    if (row.settled && before !== undefined && before !== ' ' && before !== character) this.#finish(row)
    row.settled &&= before === character
    if (before !== character) row.told = false
    row.place ??= this.#place
    while (row.cells.length < this.#column) row.cells.push(' ')
    if (this.#pen !== undefined) splitWide(row.cells, this.#column, width)
    row.cells[this.#column++] = this.#pen === undefined ? character : this.#pen.ink(character)
    if (width === 2) row.cells[this.#column++] = ''
  }

  /** An accent goes on the character before it. */
  #join(mark: string): void {
    const { cells } = this.#current()
    const at = cells[this.#column - 1] === '' ? this.#column - 2 : this.#column - 1
    const before = cells[at]
    if (before !== undefined && before.length < cellCharactersMax) cells[at] = before + mark
  }

  #current(): Row {
    return this.#lines[this.#row] ??= emptyRow()
  }

  #control(character: string): void {
    if (character === '\r') {
      this.#column = 0
      this.#current().settled = true
    } else if (character === '\n') this.#lineFeed()
    else if (character === '\b') this.#column = Math.max(0, Math.min(this.#column, this.#columns - 1) - 1)
    else if (character === '\t') this.#column = Math.min(this.#columns - 1, (this.#column | 7) + 1)
  }

  #lineFeed(): void {
    this.#current().settled = true
    if (this.#row === this.#bottom) this.#scroll(1)
    else this.#row = Math.min(this.#row + 1, this.#rows - 1)
  }

  /** Rows of the region go up: the topmost leave. Negative: down. */
  #scroll(count: number): void {
    for (let n = Math.min(Math.abs(count), this.#rows); n > 0; n--) {
      const [gone] = this.#lines.splice(count > 0 ? this.#top : this.#bottom, 1)
      if (count > 0 && this.#top === 0) this.#scrolledOff(gone)
      else if (gone !== undefined) this.#finish(gone)
      this.#lines.splice(count > 0 ? this.#bottom : this.#top, 0, emptyRow())
    }
  }

  #move(row: number, column: number): void {
    const to = Math.min(Math.max(row, 0), this.#rows - 1)
    if (to !== this.#row) this.#current().settled = true
    this.#row = to
    this.#column = Math.min(Math.max(column, 0), this.#columns - 1)
  }

  #escape(final: string): void {
    if (final === '7') this.#saved = { row: this.#row, column: Math.min(this.#column, this.#columns - 1) }
    else if (final === '8') this.#move(this.#saved.row, this.#saved.column)
    else if (final === 'D') this.#lineFeed()
    else if (final === 'E') this.#control('\r'), this.#lineFeed()
    else if (final === 'M' && this.#row === this.#top) this.#scroll(-1)
    else if (final === 'M') this.#move(this.#row - 1, this.#column)
  }

  #sequence(inner: string, final: string): void {
    if (inner.startsWith('?')) {
      if (/\b(47|1047|1049)\b/.test(inner)) this.#alternate(final === 'h')
      if (/\b25\b/.test(inner)) this.#hidden = final === 'l'
      return
    }
    const numbers = inner.split(/[;:]/).map(Number)
    const first = numbers[0] ?? 0
    const count = Math.min(Math.max(first, 1), sizeMax)
    switch (final) {
      case 'A': return this.#move(this.#row - count, this.#column)
      case 'B':
      case 'e': return this.#move(this.#row + count, this.#column)
      case 'C':
      case 'a': return this.#move(this.#row, this.#column + count)
      case 'D': return this.#move(this.#row, this.#column - count)
      case 'E': return this.#move(this.#row + count, 0)
      case 'F': return this.#move(this.#row - count, 0)
      case 'G':
      case '`': return this.#move(this.#row, count - 1)
      case 'd': return this.#move(count - 1, this.#column)
      case 'H':
      case 'f': return this.#move(count - 1, Math.max(numbers[1] ?? 1, 1) - 1)
      case 's': return this.#escape('7')
      case 'u': return this.#escape('8')
      case 'r': return this.#region(first, numbers[1] ?? 0)
      case 'S': return this.#scroll(count)
      case 'T': return this.#scroll(-count)
      case 'm': return this.#pen?.set(inner)
      default:
        this.#edit(final, first, count)
        if (this.#pen !== undefined) mendWide(this.#current().cells)
    }
  }

  #edit(final: string, first: number, count: number): void {
    const { cells } = this.#current()
    switch (final) {
      case 'J': {
        const end = first === 1 ? this.#row : this.#rows
        const [from, to] = first === 0 ? [this.#row + 1, this.#rows] : [0, end]
        for (let at = from; at < to; at++) this.#clear(at)
        return first === 2 ? undefined : this.#eraseLine(first)
      }
      case 'K': return this.#eraseLine(first)
      case 'X': return void cells.fill(' ', this.#column, this.#column + count)
      case 'P': return void cells.splice(this.#column, count)
      case '@': {
        if (this.#column >= cells.length) return
        cells.splice(this.#column, 0, ...Array.from({ length: count }, () => ' '))
        return void cells.splice(this.#columns)
      }
      case 'L':
      case 'M': {
        if (this.#row < this.#top || this.#row > this.#bottom) return
        const top = this.#top
        this.#top = this.#row
        // Rows of the middle of a screen do not scroll off: they are told one by one.
        this.#scroll(final === 'L' ? -count : count)
        this.#top = top
        return
      }
      case 'b': {
        const last = cells[this.#column - 1]?.replace(/^\x1b\[[\d;:]*m/, '') ?? ''
        for (let n = 0; last !== '' && n < count; n++) this.#put(last)
      }
    }
  }

  #clear(at: number): void {
    const row = this.#lines[at]
    if (row !== undefined) this.#finish(row)
    this.#lines[at] = emptyRow()
    this.#blank(this.#lines[at], 0)
  }

  /** Erased cells keep the background of the moment. */
  #blank({ cells }: Row, from: number, to = this.#columns): void {
    const blank = this.#pen?.blank ?? ''
    if (blank === '') return
    while (cells.length < from) cells.push(' ')
    for (let at = from; at < to; at++) cells[at] = blank
  }

  #eraseLine(what: number): void {
    const row = this.#current()
    // Erasing the blanks behind a text changes nothing.
    if (what === 0 && this.#column >= row.cells.length) return this.#blank(row, this.#column)
    this.#finish(row)
    row.told = false
    if (what === 0) row.cells.length = this.#column
    else if (what === 1) row.cells.fill(' ', 0, this.#column + 1)
    else row.cells.length = 0
    if (what === 1) this.#blank(row, 0, this.#column + 1)
    else this.#blank(row, what === 0 ? this.#column : 0)
    if (row.cells.length === 0) row.place = undefined
    // What is left has just been told.
    else row.told = true
  }

  #region(top: number, bottom: number): void {
    this.#top = Math.min(Math.max(top, 1), this.#rows) - 1
    this.#bottom = (bottom === 0 ? this.#rows : Math.min(bottom, this.#rows)) - 1
    if (this.#bottom <= this.#top) [this.#top, this.#bottom] = [0, this.#rows - 1]
    this.#move(0, 0)
  }

  /** Editors and pagers draw on a screen of their own. */
  #alternate(on: boolean): void {
    if (!on) return this.#leaveAlternate()
    if (this.#main !== undefined) return
    const column = Math.min(this.#column, this.#columns - 1)
    this.#main = { lines: this.#lines, row: this.#row, column }
    this.#lines = Array.from({ length: this.#rows }, emptyRow)
  }

  #leaveAlternate(): void {
    if (this.#main === undefined) return
    for (const row of this.#lines) this.#finish(row)
    const { lines, row, column } = this.#main
    this.#main = undefined
    this.#lines = lines
    this.#row = row
    this.#column = column
    this.resize(this.#columns, this.#rows)
  }
}
