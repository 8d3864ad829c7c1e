// What a person sees who logged in with no more than a name: the credentials that are open to them, narrowed
// by what they type. Pure: keys in, text for the terminal out, and at last a choice. Names come from admins
// and are plain (resource names), so they can be printed as they are.
import type { Door } from '../../session/front.ts'

/** What a key or a line led to. */
export type Answer =
  | { kind: 'text', text: string }
  | { kind: 'chosen', door: Door, text: string }
  | { kind: 'left', text: string }

const shownMax = 10
const lineMax = 128
const help = [
  'type a part of a name to narrow the list, Enter to open it; a number opens that line',
  'list: everything that is open to you   help: this   quit: goodbye'
]

export class Menu {
  readonly #doors: readonly Door[]
  readonly #user: string
  #line = ''

  constructor(user: string, doors: readonly Door[]) {
    this.#user = user
    this.#doors = doors
  }

  /** The greeting and the first list. */
  begin(): string {
    const count = this.#doors.length === 1
      ? `1 target is open to ${this.#user}`
      : `${this.#doors.length} targets are open to ${this.#user}`
    return `${count}; type to narrow, Enter to open, help for more\r\n${this.#draw()}`
  }

  /** What was typed, in pieces of any size. */
  type(input: string): Answer {
    let text = ''
    for (const key of input) {
      if (key === '\r' || key === '\n') {
        const answer = this.#enter()
        if (answer.kind !== 'text') return { ...answer, text: text + answer.text }
        text += answer.text
      } else if (key === '\x03' || (key === '\x04' && this.#line === '')) {
        return { kind: 'left', text: `${text}\r\n` }
      } else if (key === '\x7f' || key === '\b') {
        this.#line = this.#line.slice(0, -1)
      } else if (key === '\x15') {
        this.#line = ''
      } else if (key >= ' ' && key <= '~' && this.#line.length < lineMax) {
        this.#line += key
      }
    }
    return { kind: 'text', text: text + this.#draw() }
  }

  /** Lines for somebody who has no terminal. */
  list(): string {
    return this.#doors.map(door => `  ${this.#words(door)}\n`).join('')
  }

  #enter(): Answer {
    const line = this.#line.trim()
    this.#line = ''
    if (line === 'quit' || line === 'exit') return { kind: 'left', text: '\r\n' }
    if (line === 'help' || line === '?') return { kind: 'text', text: said(help) }
    if (line === 'list' || line === 'ls') return { kind: 'text', text: said(this.#rows(this.#doors)) }
    const door = this.#meant(line)
    if (door?.protocol === 'tcp') {
      const how = `${nameOf(door)} has no shell; from your own machine: ssh ${this.#words(door)}@…`
      return { kind: 'text', text: said([how]) }
    }
    if (door !== undefined) return { kind: 'chosen', door, text: said([`opening ${nameOf(door)}`]) }
    const why = line === '' ? 'type a name, or list' : `${line}: none or several of these; list shows all`
    return { kind: 'text', text: said([why]) }
  }

  /** What stands behind `ssh` for a door; `…` is the proxy as the person reached it. */
  #words(door: Door): string {
    const login = `${this.#user}+${nameOf(door)}`
    if (door.protocol !== 'tcp') return login
    // Ports below 1024 are root's.
    const local = door.port < 1024 ? door.port + 10_000 : door.port
    return `-N -L ${local}:${door.target}:${door.port} ${login}`
  }

  /** The number of a line as it was numbered, a whole name, or a part that only one has. */
  #meant(line: string): Door | undefined {
    if (line === '') return undefined
    const numbered = /^\d+$/.test(line) ? this.#doors[Number(line) - 1] : undefined
    const exact = this.#doors.filter(door => door.credential === line || nameOf(door) === line)
    if (exact.length === 1) return exact[0]
    const matching = this.#matching(line)
    return matching.length === 1 ? matching[0] : numbered
  }

  #matching(part: string): readonly Door[] {
    const wanted = part.toLowerCase()
    return this.#doors.filter(door => nameOf(door).includes(wanted))
  }

  /** The prompt with what was typed, and what it matches below; the cursor stays behind the typed text. */
  #draw(): string {
    const matching = this.#matching(this.#line)
    const rows = this.#rows(matching.slice(0, shownMax))
    if (matching.length > shownMax) rows.push(`  … and ${matching.length - shownMax} more`)
    const prompt = `sallyport> ${this.#line}`
    const below = rows.map(row => `\r\n${row}`).join('')
    const up = rows.length === 0 ? '' : `\x1b[${rows.length}A`
    return `\r\x1b[J${prompt}${below}${up}\r\x1b[${prompt.length}C`
  }

  #rows(doors: readonly Door[]): string[] {
    return doors.map(door => {
      const number = String(this.#doors.indexOf(door) + 1).padStart(3)
      return `${number}  ${nameOf(door)}${door.username === undefined ? '' : `  (${door.username})`}`
    })
  }
}

function nameOf({ credential, target }: Door): string {
  return `${credential}@${target}`
}

/** Lines in place of the list below the prompt. */
function said(lines: readonly string[]): string {
  return `\r\x1b[J${lines.join('\r\n')}\r\n`
}
