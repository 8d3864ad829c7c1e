// A service that says "too often" has done nothing: the same request is sent again after a while, as long as
// the action has time. Nothing else is ever repeated by itself.
import type { HookContext } from '../../src/jit/plugin.ts'
import { pause } from '../../src/wire/pause.ts'
import type { Refusal } from './answer.ts'

const triesMax = 6
const pauseMsMax = 8000
/** What must be left of the action's time after the wait. */
const reserveMs = 5000

const busyCodes: readonly string[] = [
  'Throttling', 'ThrottlingException', 'RequestLimitExceeded', 'TooManyRequestsException',
  'RESOURCE_EXHAUSTED'
]

export function isBusy({ status, code }: Refusal): boolean {
  return status === 429 || (status < 500 && busyCodes.includes(code))
}

/** Waits as the service asks, or longer each time; false when there is no time for another try. */
export async function waitFor(
  context: HookContext, retryAfterSeconds: number | undefined, tries: number
): Promise<boolean> {
  const waitMs = retryAfterSeconds === undefined ? 250 * 2 ** tries : retryAfterSeconds * 1000
  if (tries >= triesMax || waitMs > pauseMsMax || context.remainingMs() - waitMs < reserveMs) return false
  await pause(waitMs)
  context.signal.throwIfAborted()
  return true
}
