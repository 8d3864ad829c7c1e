// What every plugin says when its target cannot be reached: an error of the wire room in the words of the
// contract, so that the runner knows that nothing was sent, and whether the target is away, is another one,
// or does not take our login. And the knock that finds out whether it is back.
import { connect } from 'node:net'
import { SallyportError } from '../src/errors.ts'
import type { Access, TargetAddress } from '../src/jit/plugin.ts'
import { UpstreamError } from '../src/wire/error.ts'
import { ConnectionLost } from '../src/wire/postgres/query.ts'

/** `notNow`: SQLSTATEs of refusals that say "later", not "not you". */
export function unreached(
  error: unknown, target: TargetAddress, signal: AbortSignal, notNow: readonly string[] = []
): unknown {
  if (error instanceof ConnectionLost) {
    const lies = error.reason === 'violation' || error.reason === 'too-large'
    const detail = `${target.name}: ${error.message}`
    return new SallyportError(lies ? 'target-violation' : 'target-unreachable', { detail, cause: error })
  }
  if (!(error instanceof UpstreamError)) return error
  if (error.kind === 'aborted' && signal.aborted) {
    return new SallyportError('hook-timeout', { detail: 'given up while connecting' })
  }
  const said = error.serverMessage === undefined ? '' : ` (${error.serverMessage})`
  const what = error.kind === 'aborted' ? 'connecting took too long' : error.message
  const detail = `${target.name}: ${what}${said}`
  if (error.kind === 'untrusted') return new SallyportError('target-untrusted', { detail, cause: error })
  if (error.kind === 'violation') return new SallyportError('target-violation', { detail, cause: error })
  const refused = error.kind === 'refused' && !notNow.includes(error.sqlstate ?? '')
  return new SallyportError(refused ? 'target-refused' : 'target-unreachable', { detail, cause: error })
}

/** True when something accepts connections there; says nothing. */
export function knockAt({ host, port }: TargetAddress, limitMs: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host, port, signal: AbortSignal.timeout(limitMs) })
    const end = (answered: boolean): void => {
      socket.destroy()
      resolve(answered)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
    socket.unref()
  })
}

/** The password of a hook's login; these targets know no other secret. @throws SallyportError */
export function passwordOf({ secret, target }: Access): string {
  if (secret.kind === 'password') return secret.password.expose()
  throw new SallyportError('target-refused', { detail: `${target.name}: the login needs a password` })
}

/**
 * Runs what only reads over a connection that is then closed. @throws SallyportError, whatever went wrong
 */
export async function reading<L extends { close(): void }, T>(
  link: L, { target }: Access, act: (link: L) => Promise<T>
): Promise<T> {
  try {
    return await act(link)
  } catch (error) {
    if (error instanceof SallyportError) throw error
    const detail = `${target.name}: ${error instanceof Error ? error.message : String(error)}`
    throw new SallyportError(error instanceof ConnectionLost ? 'hook-timeout' : 'hook-failed', { detail })
  } finally {
    link.close()
  }
}

/** A warning when nothing proves that the target is the right one. */
export function trustWarnings({ target: { tls, host } }: Access): string[] {
  const local = host === 'localhost' || host.startsWith('127.') || host === '::1'
  const weak = tls.mode === 'disable' || (tls.mode === 'require' && tls.ca === undefined)
  if (local || !weak) return []
  return [`tls ${tls.mode}: somebody between us and the target could take its place; use verify-full`]
}
