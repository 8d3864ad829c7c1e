// Days and hours of a grant: whether it is open at an instant, when it closes, when it opens next. Hours are
// those that the clocks of a zone show, so a day with a change of time is an hour shorter or longer; an hour
// that a clock skips is the one after it. Windows that touch are one. Pure.
import { weekDays } from './types.ts'
import type { Window } from './types.ts'

export interface Look {
  isOpen: boolean
  /** When it closes; undefined when it is closed, or never does. */
  closesAt?: Date | undefined
  /** When it opens next; undefined when it is open. */
  opensAt?: Date | undefined
}

const minuteMs = 60_000
const dayMs = 86_400_000
// Windows come again every week: what does not close within one never does.
const weekMs = 7 * dayMs
const daysAhead = 8

interface Span {
  from: number
  to: number
}

export function lookAt(windows: readonly Window[], now: Date): Look {
  const at = now.getTime()
  const spans = joined(windows.flatMap(window => spansOf(window, at)))
  const open = spans.find(({ from, to }) => from <= at && at < to)
  if (open !== undefined) {
    return { isOpen: true, closesAt: open.to - at > weekMs ? undefined : new Date(open.to) }
  }
  const next = spans.find(({ from }) => from > at)
  return { isOpen: false, opensAt: next === undefined ? undefined : new Date(next.from) }
}

/** Whether the name of a zone is known. */
export function isZone(zone: string): boolean {
  try {
    return shown(zone, 0) !== undefined
  } catch {
    return false
  }
}

/** The spans of a window from yesterday's on (it may last past midnight) to those of a week ahead. */
function spansOf({ days, from, to, zone }: Window, at: number): Span[] {
  const spans: Span[] = []
  const today = Math.floor(shown(zone, at) / dayMs) * dayMs
  const overnight = minutesOf(to) <= minutesOf(from) ? dayMs : 0
  for (let ahead = -1; ahead <= daysAhead; ahead++) {
    const midnight = today + ahead * dayMs
    // Days are counted from Monday, JavaScript's from Sunday.
    if (!days.includes(weekDays[(new Date(midnight).getUTCDay() + 6) % 7]!)) continue
    spans.push({
      from: instantOf(zone, midnight + minutesOf(from) * minuteMs),
      to: instantOf(zone, midnight + overnight + minutesOf(to) * minuteMs)
    })
  }
  return spans
}

function joined(spans: readonly Span[]): Span[] {
  const all: Span[] = []
  for (const span of spans.toSorted((one, other) => one.from - other.from)) {
    const last = all.at(-1)
    if (last !== undefined && span.from <= last.to) last.to = Math.max(last.to, span.to)
    else all.push({ ...span })
  }
  return all
}

function minutesOf(text: string): number {
  const [hours = 0, minutes = 0] = text.split(':').map(Number)
  return hours * 60 + minutes
}

/** The instant at which the clocks of a zone show this (as if it were UTC). */
function instantOf(zone: string, wall: number): number {
  // The offset of about then, and, next to a change of time, that of what came out.
  const first = wall - (shown(zone, wall) - wall)
  return wall - (shown(zone, first) - first)
}

// Making one costs a hundred times what using it costs; zones are as many as admins have declared.
const formats = new Map<string, Intl.DateTimeFormat>()

/** What the clocks of a zone show at an instant, as if it were UTC; whole seconds. */
function shown(zone: string, at: number): number {
  let format = formats.get(zone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric',
      minute: 'numeric', second: 'numeric'
    })
    formats.set(zone, format)
  }
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]))
  const { year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0 } = parts
  return Date.UTC(year, month - 1, day, hour, minute, second)
}
