// How much of a command's output is put on record. Keeping a byte costs three times what passing it on does
// (figures: ARCHITECTURE.md, Decisions), and a dump of a database is no evidence of what a person did: the
// first part of it is kept whole, the rest is counted and hashed. What comes slower than a person can read is
// always kept, so that nobody is off the record for good who floods the screen first. Both ends of a gap are
// events.
import type { Clock } from '../../clock.ts'
import { frameKind } from '../../recording/recording.ts'
import { Meter } from './content.ts'
import type { ContentSetting, Facts, Output } from './content.ts'

/** Of one command so much is kept at once … */
export const outputKeptBytesMax = 64 * 1024 * 1024
/** … and after that so much for each second: nobody reads faster. */
export const outputBytesPerSecond = 256 * 1024
/** A gap ends when so much may be kept again: one event for each message would cost more than the output. */
const resumeBytes = 1024 * 1024

export class KeptOutput implements Output {
  readonly #setting: ContentSetting
  readonly #clock: Clock
  readonly #bytesMax: number
  readonly #bytesPerSecond: number
  #room: number
  #filledMs: number
  #bytes = 0
  #notKept = 0
  #gap: { at: number, meter: Meter } | undefined

  constructor(setting: ContentSetting, clock: Clock, bytesMax: number, bytesPerSecond: number) {
    this.#setting = setting
    this.#clock = clock
    this.#bytesMax = this.#room = bytesMax
    this.#bytesPerSecond = bytesPerSecond
    this.#filledMs = clock.monotonicMs()
  }

  add(data: Buffer): void {
    if (this.#takes(data.length)) {
      this.#endGap()
      this.#room -= data.length
      this.#setting.recording.append(frameKind.output, this.#setting.lane, data)
    } else {
      this.#gap ??= this.#beginGap()
      this.#gap.meter.add(data)
    }
    this.#bytes += data.length
  }

  end(): Facts {
    this.#endGap()
    return { outputBytes: this.#bytes, ...this.#notKept > 0 && { outputNotKept: this.#notKept } }
  }

  #takes(bytes: number): boolean {
    if (this.#gap === undefined && bytes <= this.#room) return true
    const nowMs = this.#clock.monotonicMs()
    const more = (nowMs - this.#filledMs) * this.#bytesPerSecond / 1000
    this.#room = Math.min(this.#bytesMax, this.#room + more)
    this.#filledMs = nowMs
    const needed = this.#gap === undefined ? bytes : Math.max(bytes, Math.min(resumeBytes, this.#bytesMax))
    return needed <= this.#room
  }

  /** On record before the first byte that is not: a recording that is cut short must not seem whole. */
  #beginGap(): { at: number, meter: Meter } {
    this.#setting.event({ type: 'output-limit', at: this.#bytes })
    return { at: this.#bytes, meter: new Meter(this.#setting.hashes) }
  }

  #endGap(): void {
    const gap = this.#gap
    if (gap === undefined) return
    this.#gap = undefined
    this.#notKept += gap.meter.bytes
    this.#setting.event({ type: 'output-not-kept', at: gap.at, ...gap.meter.facts() })
  }
}
