// The connection to the target, as the account of the session. Nothing of the client decides where it goes or
// as whom; the client's settings come from the allow-list of wire/postgres/startup.ts. Errors of the login
// become errors of the table: the target's own words name the account, so they are for the operator.
import { SallyportError } from '../../errors.ts'
import type { Injectable } from '../../jit/plugin.ts'
import type { Upstreaming } from '../../session/front.ts'
import type { Judge } from '../../session/judge.ts'
import { asUpstreamError } from '../../wire/error.ts'
import type { UpstreamErrorKind } from '../../wire/error.ts'
import type { ErrorCode } from '../../errors.ts'
import type { ScramSecret } from '../../wire/postgres/scram.ts'
import type { Report } from '../../wire/postgres/messages.ts'
import type { StartupWishes } from '../../wire/postgres/startup.ts'
import { openUpstream, sendCancel } from '../../wire/postgres/upstream.ts'
import type { Upstream } from '../../wire/postgres/upstream.ts'
import { ReadBuffer } from '../buffers.ts'
import { passable } from './words.ts'

/** Connecting, TLS and login each have their own limit: a mute target costs no more than their sum (F10). */
export interface TargetTimeouts {
  connectMs: number
  tlsMs: number
  loginMs: number
}

/** A cancel request is worth nothing when it comes late. */
const cancelMs = 2000

export interface Target {
  upstream: Upstream
  buffer: ReadBuffer
  /** Asks the target to cancel what runs. Never rejects. */
  cancel(): Promise<unknown>
  /** What the grant's rules say; undefined: it has none. */
  judge?: Judge | undefined
}

const codes: Record<UpstreamErrorKind, ErrorCode> = {
  unreachable: 'target-unreachable',
  timeout: 'target-unreachable',
  untrusted: 'target-untrusted',
  refused: 'target-refused',
  violation: 'target-violation',
  aborted: 'internal'
}

/**
 * Connects and logs in.
 * @throws SallyportError `target-unreachable`, `target-untrusted`, `target-refused`, `target-violation`,
 *   `replication-refused`, or the signal's reason
 */
export async function connectTarget(
  upstreaming: Upstreaming, wishes: StartupWishes, timeouts: TargetTimeouts, signal: AbortSignal,
  onNotice: (notice: Report) => void
): Promise<Target> {
  const { target, username, secret, database, allowReplication } = upstreaming
  if (wishes.replication !== 'none' && !allowReplication) throw new SallyportError('replication-refused')
  const { host, port, tls } = target
  const buffer = new ReadBuffer()
  const parameters = new Map(wishes.settings)
  if (wishes.replication === 'database') parameters.set('replication', 'database')
  if (wishes.replication === 'physical') parameters.set('replication', 'true')
  try {
    const upstream = await openUpstream({
      host, port, tls, timeouts, signal, parameters, onNotice,
      user: username,
      database: database ?? target.database,
      secret: () => exposed(secret),
      readBuffer: buffer.next
    })
    const cancel = (): Promise<boolean> =>
      sendCancel({ host, port, tls, pid: upstream.pid, key: upstream.cancelKey, timeoutMs: cancelMs })
    return { upstream, buffer, cancel, judge: upstreaming.judge }
  } catch (thrown) {
    throw refusal(thrown, username, signal)
  }
}

/** The one place of this room where a secret is opened: on its way into the login. */
function exposed(secret: Injectable | undefined): ScramSecret {
  if (secret === undefined) throw new SallyportError('internal', { detail: 'no secret to present' })
  if (secret.kind === 'password') return { kind: 'password', password: secret.password.expose() }
  if (secret.kind === 'private-key') {
    throw new SallyportError('target-refused', { detail: 'PostgreSQL has no login with an SSH key' })
  }
  const { clientKey, serverKey } = secret
  return { kind: 'scram-keys', clientKey: clientKey.expose(), serverKey: serverKey.expose() }
}

function refusal(thrown: unknown, account: string, signal: AbortSignal): SallyportError {
  if (thrown instanceof SallyportError) return thrown
  if (signal.reason instanceof SallyportError) return signal.reason
  const error = asUpstreamError(thrown)
  const said = error.serverMessage === undefined ? '' : `: ${error.serverMessage}`
  return new SallyportError(codes[error.kind], {
    detail: `${error.message}${said}`, cause: passable(error, account) ?? error
  })
}
