// Connections that are refused before anything was read: in the protocol's words where there is time for
// that, and with a line in the log for all of a second's together. A flood must cost neither sockets nor
// disk.
import type { Socket } from 'node:net'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'

/** Refusals that are waited for at once; beyond it a connection is closed without a word. */
const turnedAwayMax = 64
/** A peer that was turned away may take so long to read why. */
const turnedAwayMs = 500
/** One line for all that were turned away in this time. */
const turnedAwayLogMs = 1000

export interface FrontLog {
  info(fields: Record<string, unknown>, message: string): void
  warn(fields: Record<string, unknown>, message: string): void
}

type TurnAway = (socket: Socket, code: 'too-many-connections' | 'auth-throttled', address: string) => void

/** `words`: the refusal as the protocol says it. */
export function createTurnAway(
  clock: Clock, log: FrontLog, words: (error: SallyportError) => Uint8Array
): TurnAway {
  let turnedAway = 0
  // No line is written before this instant; how many had none so far.
  let quietUntil = 0
  let unlogged = 0

  const logTurnedAway = ({ code, reference }: SallyportError, address: string): void => {
    const now = clock.monotonicMs()
    if (now < quietUntil) {
      unlogged++
      return
    }
    log.info({ address, code, reference, others: unlogged }, 'connection turned away')
    unlogged = 0
    quietUntil = now + turnedAwayLogMs
  }

  return (socket, code, address) => {
    const error = new SallyportError(code)
    logTurnedAway(error, address)
    socket.on('error', () => undefined)
    if (turnedAway >= turnedAwayMax) {
      socket.destroy()
      return
    }
    turnedAway++
    const stop = clock.after(turnedAwayMs, () => socket.destroy())
    socket.once('close', () => {
      stop()
      turnedAway--
    })
    // Unread bytes would turn the close into a reset, and the reason would be lost.
    socket.resume().once('end', () => socket.destroy())
    socket.end(words(error))
  }
}
