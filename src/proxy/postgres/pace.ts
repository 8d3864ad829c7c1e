// Large transfers in fewer, larger pieces. A server sends 8 KiB at a time; whoever reads each piece as it
// comes pays a read, a write and two wake-ups for every 8 KiB. Once a transfer is known to be large,
// reading rests for a moment after each piece, the kernel gathers what comes meanwhile, and the next read
// takes it all: measured with COPY, half the CPU at the same rate. Short answers never get that far, so
// nobody waits for it.
import type { Clock } from '../../clock.ts'

/** A transfer is large from here on: some milliseconds of it. */
const largeTransferBytes = 2 * 1024 * 1024

/** One tick of the timer. At 400 MB/s the kernel holds 400 KB after it, which its buffers have room for. */
export const restMs = 1

/** One direction of a session. */
export class Pace {
  readonly #clock: Clock
  readonly #resume: () => void
  #bytes = 0

  /** `resume` starts reading again. */
  constructor(clock: Clock, resume: () => void) {
    this.#clock = clock
    this.#resume = resume
  }

  /**
   * True when reading is to rest now; `resume` follows. `large`: the transfer goes on, in pieces worth a
   * buffer of their own; false is its end.
   */
  rests(bytes: number, large: boolean): boolean {
    this.#bytes = large ? this.#bytes + bytes : 0
    if (this.#bytes < largeTransferBytes) return false
    this.#clock.after(restMs, this.#resume)
    return true
  }
}
