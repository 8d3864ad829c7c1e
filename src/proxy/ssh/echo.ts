// Which typed lines may be kept. Passwords are typed while the target's terminal does not echo, and nobody
// outside can see when that is. So a line is kept only when it came back: as its keys are typed, the output
// must show them, in order, before anything else. A line that did not is counted and forgotten. When in doubt
// nothing is kept: what was shown is in the output anyway.
import { nextOfSequence } from '../../wire/ssh/typed-lines.ts'

/** Of typed keys without an end of line so many are held. Longer pastes are counted only. */
const heldBytesMax = 4096
/** Lines that were typed ahead. */
const linesMax = 256

const [backspace, lineFeed, carriageReturn, erase] = [0x08, 0x0a, 0x0d, 0x7f]

class Line {
  /** As it was typed, with the end of the line. */
  raw: number[] = []
  /** What an echo would show: no controls, no sequences of arrow keys, without what was erased. */
  keys: number[] = []
  ended = false
  /** Where the cursor of the echo is, and how many keys it has shown. */
  at = 0
  shown = 0
  /** The output shows something else; until the next key. */
  stopped = false

  get echoed(): boolean {
    return this.shown >= this.keys.length
  }
}

export interface EchoSink {
  /** A line came back: keep it. */
  kept(line: Uint8Array): void
  /** So many bytes did not. */
  dropped(bytes: number): void
}

export class EchoedInput {
  readonly #sink: EchoSink
  #lines: Line[] = []
  #held = 0
  // Within an escape sequence of the keyboard, of the output.
  #keySequence = 0
  #outSequence = 0
  #afterReturn = false

  constructor(sink: EchoSink) {
    this.#sink = sink
  }

  /** What the client sends. */
  typed(bytes: Uint8Array): void {
    if (this.#held + bytes.length > heldBytesMax) {
      this.#dropAll()
      if (bytes.length > heldBytesMax) return this.#sink.dropped(bytes.length)
    }
    this.#held += bytes.length
    for (const byte of bytes) this.#key(byte)
    if (this.#lines.length > linesMax) this.#dropAll()
  }

  /** What the target sends; to be called before it is recorded. */
  shown(bytes: Uint8Array): void {
    const [first] = this.#lines
    if (first === undefined || (first.stopped && !first.ended)) {
      this.#outSequence = 0
      return
    }
    for (const byte of bytes) {
      this.#show(byte)
      const [line] = this.#lines
      // Until the next key nothing can come of it: long outputs are not looked at.
      if (line === undefined || (line.stopped && !line.ended)) break
    }
  }

  /** At the end of the channel. */
  end(): void {
    const [line] = this.#lines
    // A last line that nobody ended, as far as it was shown.
    if (line !== undefined && line.keys.length > 0 && line.echoed) this.#settle(line)
    this.#dropAll()
  }

  #key(byte: number): void {
    let line = this.#lines.at(-1)
    if (line === undefined || line.ended) {
      line = new Line()
      this.#lines.push(line)
    }
    line.raw.push(byte)
    line.stopped = false
    const inSequence = this.#keySequence
    this.#keySequence = nextOfSequence(inSequence, byte)
    if (inSequence > 0 || this.#keySequence > 0) return
    if (byte === carriageReturn || byte === lineFeed) line.ended = true
    else if (byte === erase || byte === backspace) {
      // The cursor stays until the output moves it.
      line.keys.pop()
      line.shown = Math.min(line.shown, line.keys.length)
    } else if (byte >= 0x20) {
      // Beyond the typed keys is what an editor completed.
      line.at = Math.min(line.at, line.keys.length)
      line.keys.push(byte)
    }
  }

  #show(byte: number): void {
    const inSequence = this.#outSequence
    this.#outSequence = nextOfSequence(inSequence, byte)
    if (inSequence > 0 || this.#outSequence > 0) return
    const afterReturn = this.#afterReturn
    this.#afterReturn = byte === carriageReturn
    const line = this.#lines[0]!
    if (byte === carriageReturn || byte === lineFeed) {
      // The terminal answers the end of a line with a return and a line feed: that is one end.
      if (line.ended && !(byte === lineFeed && afterReturn)) this.#settle(line)
      return
    }
    if (line.stopped) return
    // An editor that draws the line again goes back over it first.
    if (byte === backspace) line.at = Math.max(0, line.at - 1)
    if (byte < 0x20) return
    if (line.at >= line.keys.length) line.at++
    else if (line.keys[line.at] === byte) line.shown = Math.max(line.shown, ++line.at)
    else line.stopped = true
  }

  #settle(line: Line): void {
    this.#lines.shift()
    this.#held -= line.raw.length
    if (line.echoed) this.#sink.kept(Uint8Array.from(line.raw))
    else this.#sink.dropped(line.raw.length)
  }

  #dropAll(): void {
    if (this.#held > 0) this.#sink.dropped(this.#held)
    this.#lines = []
    this.#held = 0
  }
}
