// A terminal's screen as the text that draws it: written to an empty terminal of its size, it looks the same
// and goes on the same (cursor, colours, scroll region, what is under an editor's screen). So somebody who
// jumps into a recording gets one picture instead of everything that came before it.
import type { ScreenState } from './screen.ts'

const cell = /^((?:\x1b\[[\d;:]*m)?)(.*)$/su

export function pictureOf(state: ScreenState): string {
  const { main, lines, region, rows, saved, style, graphics, hidden } = state
  const parts = ['\x1b[0m\x1b(B\x1b[r\x1b[2J']
  if (main !== undefined) {
    parts.push(drawn(main.lines, state.columns), to(main.row, main.column), '\x1b[?1049h\x1b[2J')
  }
  parts.push(drawn(lines, state.columns))
  parts.push(to(saved.row, saved.column), '\x1b7')
  if (region.top > 0 || region.bottom < rows - 1) parts.push(`\x1b[${region.top + 1};${region.bottom + 1}r`)
  parts.push(cursor(state), style, graphics ? '\x1b(0' : '', hidden ? '\x1b[?25l' : '\x1b[?25h')
  return parts.join('')
}

function to(row: number, column: number): string {
  return `\x1b[${row + 1};${column + 1}H`
}

/** Behind the last column there is no place to move to: one gets there by writing the last cell again. */
function cursor({ lines, row, column, columns }: ScreenState): string {
  if (column < columns) return to(row, column)
  const cells = lines[row] ?? []
  const last = cells[columns - 1] === '' ? columns - 2 : columns - 1
  return `${to(row, Math.max(0, last))}${cells[last] ?? ' '}\x1b[0m`
}

function drawn(lines: ScreenState['lines'], columns: number): string {
  let text = ''
  lines.forEach((cells, row) => {
    if (cells.length === 0) return
    text += to(row, 0)
    let before = ''
    // A row that was longer before the terminal was made narrower.
    for (const each of cells.slice(0, columns)) {
      const [, style = '', character = ' '] = cell.exec(each ?? ' ') ?? []
      if (style !== before) text += `\x1b[0m${style}`
      before = style
      text += character
    }
    if (before !== '') text += '\x1b[0m'
  })
  return text
}
