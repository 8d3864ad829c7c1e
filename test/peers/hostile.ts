// Runs a client of ours against a scripted target and measures what that cost everybody else: the error that
// came out, how long it took, and the longest time for which this process did nothing else. The bounds are
// far above what is seen (some milliseconds), because other work runs on the machine; an endless loop never
// reaches them, it meets the deadline of the test file.
import * as assert from 'uvu/assert'
import { UpstreamError, type UpstreamErrorKind } from '../../src/wire/error.ts'
import { openUpstream, type UpstreamOptions } from '../../src/wire/postgres/upstream.ts'
import { randomKeys, verifierFromKeys } from '../../src/wire/postgres/verifier.ts'
import type { SelfSigned } from '../../src/wire/x509.ts'
import { startTarget, type Script, type Target } from './postgres-target.ts'

export const keys = randomKeys()
export const verifier = verifierFromKeys(keys)

/** A password that must never be seen in clear. */
export const canary = 'canary-7d1f0c'

/** Other sessions may wait so long for us at most. */
const stallMsMax = 1000

/** Bytes that a target may get rid of before it is cut: our limit and the buffers of two kernels' sockets. */
const floodBytesMax = 32 * 1024 * 1024

/** Limits of the steps in these tests; the longest case takes the sum. */
export const quick = { connectMs: 1000, tlsMs: 1000, loginMs: 1000 }

export function optionsFor(port: number, changes: Partial<UpstreamOptions> = {}): UpstreamOptions {
  return {
    host: '127.0.0.1', port, user: 'jit_1', database: 'orders', tls: { mode: 'disable' },
    secret: () => ({ kind: 'scram-keys', ...keys }), timeouts: quick, ...changes
  }
}

/** Runs `work` while a clock ticks; asserts that it kept ticking. */
export async function assertNoStall<T>(work: () => Promise<T>): Promise<T> {
  let last = performance.now()
  let longest = 0
  const tick = (): void => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }
  const timer = setInterval(tick, 5)
  try {
    return await work()
  } finally {
    tick()
    clearInterval(timer)
    assert.ok(longest < stallMsMax, `nothing else ran for ${Math.round(longest)} ms`)
  }
}

export interface LoginCase {
  /** Reads on from "a target that …". */
  name: string
  script: Script
  kind: UpstreamErrorKind
  options?: Partial<UpstreamOptions>
  certificate?: SelfSigned
  /** More to look at. */
  check?: (error: UpstreamError, target: Target) => void
}

/** Asserts that the login fails as the case says, harms nobody, and gives no secret away. */
export async function assertLoginFails(
  { script, kind, options, certificate, check }: LoginCase
): Promise<void> {
  await using target = await startTarget(script, certificate)
  const started = performance.now()
  const thrown: unknown = await assertNoStall(() => openUpstream(optionsFor(target.port, options)).then(
    upstream => {
      upstream.close()
      return 'logged in'
    },
    (error: unknown) => error
  ))
  assert.instance(thrown, UpstreamError, String(thrown))
  const error = thrown as UpstreamError
  assert.is(error.kind, kind, error.message)
  assert.ok(error.message.length < 500)
  assert.ok(performance.now() - started < 5000)
  await left(target)
  assert.not.ok(Buffer.concat(target.received).includes(canary), 'the password was sent in clear')
  check?.(error, target)
}

/**
 * Waits until every connection is closed, and asserts that little was taken from each, and no script failed.
 */
export async function left(target: Target): Promise<void> {
  const until = performance.now() + 5000
  while (target.peers.some(peer => !peer.closed) && performance.now() < until) {
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  for (const { closed, broke, bytesSent } of target.peers) {
    assert.is(closed, true, 'the connection was left open')
    assert.is(broke, undefined)
    assert.ok(bytesSent < floodBytesMax, `the target could send ${bytesSent} bytes`)
  }
}
