// Lines as somebody types them, so that a rule can look at one before its end is passed on. Only keys are
// seen: what a shell completes, recalls or pastes by itself is not in them, and neither is what an editor
// makes of them. So a line is a guess, good enough to warn of or to end a session, and no more.

/** Longer lines are judged by their beginning. */
const lineBytesMax = 64 * 1024
const [interrupt, endOfFile, backspace, lineFeed, carriageReturn, killLine, killWord, escape, erase] =
  [0x03, 0x04, 0x08, 0x0a, 0x0d, 0x15, 0x17, 0x1b, 0x7f]

/** No other blank gets into a line. */
const blank = 0x20

/** The keys of one channel. */
export class TypedLines {
  #keys: number[] = []
  #sequence = 0

  /** The lines that end in these bytes; empty ones are left out. */
  feed(bytes: Uint8Array): string[] {
    const lines: string[] = []
    for (const byte of bytes) {
      if (byte === carriageReturn || byte === lineFeed) {
        const line = Buffer.from(this.#keys).toString('utf8').trim()
        if (line !== '') lines.push(line)
        this.#keys = []
        this.#sequence = 0
      } else this.#key(byte)
    }
    return lines
  }

  #key(byte: number): void {
    const inSequence = this.#sequence
    this.#sequence = nextOfSequence(inSequence, byte)
    if (inSequence > 0 || this.#sequence > 0) return
    switch (byte) {
      case interrupt:
      case endOfFile:
      case killLine: this.#keys = []; break
      case erase:
      case backspace: this.#eraseCharacter(); break
      case killWord: this.#eraseWord(); break
      default: if (byte >= 0x20 && this.#keys.length < lineBytesMax) this.#keys.push(byte)
    }
  }

  /** Key by key: each is taken off once, however often this is asked for. */
  #eraseWord(): void {
    while (this.#keys.at(-1) === blank) this.#keys.pop()
    while (this.#keys.length > 0 && this.#keys.at(-1) !== blank) this.#keys.pop()
  }

  /** A character of UTF-8 may be several bytes. */
  #eraseCharacter(): void {
    while (((this.#keys.at(-1) ?? 0) & 0xc0) === 0x80) this.#keys.pop()
    this.#keys.pop()
  }
}

/**
 * 0: text. 1: behind an escape. 2: in a control sequence. 3: behind ESC O. 4: in an operating system command.
 * What this returns is the state behind `byte`; the byte that ends a sequence still belongs to it.
 */
export function nextOfSequence(state: number, byte: number): number {
  if (byte === escape) return 1
  switch (state) {
    case 1: return byte === 0x5b ? 2 : byte === 0x4f ? 3 : byte === 0x5d ? 4 : 0
    case 2: return byte >= 0x40 && byte <= 0x7e ? 0 : 2
    case 4: return byte === 0x07 ? 0 : 4
    default: return 0
  }
}
