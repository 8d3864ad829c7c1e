// Logging in at a target that may lie (PostgreSQL chapter "Start-up", reliability R7 and R21). Only SCRAM is
// answered: no cleartext, no MD5, no login without one unless the caller allows it, and the target must prove
// that it knows the account before anything else is believed. Each phase has its list of messages, the whole
// login has one budget of messages and bytes and one limit of time; what is outside ends in an UpstreamError.
import { UpstreamError, WireError } from '../error.ts'
import type { Channel, Message } from './channel.ts'
import { tagName } from './frame.ts'
import {
  saslInitialResponse, saslResponse, startupMessage, type Report, type TransactionStatus
} from './messages.ts'
import {
  parseAuthentication, parseBackendKeyData, parseNegotiateProtocolVersion, parseParameterStatus,
  parseReadyForQuery, parseReport
} from './parse.ts'
import { chooseMechanism, ScramClient, type ScramSecret } from './scram.ts'

/** One message of a login: the longest are error texts and search paths. */
const loginMessageBytesMax = 64 * 1024

/** All of them: PostgreSQL sends about 25 messages and 600 bytes. */
const loginBytesMax = 256 * 1024
const loginMessagesMax = 512

export interface LoginOptions {
  user: string
  database?: string | undefined
  /**
   * Called once, when the target (with TLS: a verified one) has asked for SCRAM: expose a secret here and not
   * before. What it throws passes through.
   */
  secret: () => ScramSecret
  /** Settings of the startup packet, `replication` among them. */
  parameters?: Iterable<readonly [string, string]> | undefined
  /** For the whole login, from the startup packet to the first ReadyForQuery. */
  loginMs: number
  /**
   * Accept a target that lets us in without a proof (`trust`). Only for targets that are reached by other
   * guards.
   */
  allowTrust?: boolean | undefined
  /** Notices during the login. */
  onNotice?: ((notice: Report) => void) | undefined
}

export interface LoggedIn {
  /** What the target reported: server_version, client_encoding … */
  parameters: Map<string, string>
  pid: number
  cancelKey: Buffer
  transactionStatus: TransactionStatus
}

interface Budget {
  messages: number
  bytes: number
}

function violation(text: string): UpstreamError {
  return new UpstreamError('violation', text)
}

function refused(body: Buffer): UpstreamError {
  const { sqlstate, message: serverMessage } = parseReport(body)
  return new UpstreamError('refused', `the target refused the login: ${sqlstate}`, {
    sqlstate, serverMessage
  })
}

/**
 * Runs the login over a channel that `dial` has opened. The caller destroys the channel when this rejects.
 */
export async function logIn(
  channel: Channel, channelBinding: Buffer | undefined, options: LoginOptions
): Promise<LoggedIn> {
  const done = channel.limit(options.loginMs, 'the login at the target')
  try {
    const { user, database, parameters = [] } = options
    const names: [string, string][] = [['user', user]]
    if (database !== undefined) names.push(['database', database])
    channel.write(startupMessage([...names, ...parameters]))
    const budget: Budget = { messages: loginMessagesMax, bytes: loginBytesMax }
    await authenticate(channel, channelBinding, budget, options)
    return await settle(channel, budget, options)
  } catch (thrown) {
    throw thrown instanceof WireError ? violation(thrown.message) : thrown
  } finally {
    done()
  }
}

/** The next message that is not a notice. An ErrorResponse ends the login in any phase. */
async function next(channel: Channel, budget: Budget, { onNotice }: LoginOptions): Promise<Message> {
  for (;;) {
    const message = await channel.message(loginMessageBytesMax)
    budget.bytes -= message.body.length
    if (--budget.messages < 0 || budget.bytes < 0) throw violation('the login of the target does not end')
    if (message.tag === 0x45) throw refused(message.body)
    if (message.tag !== 0x4e) return message
    // Parsed also when nobody listens: a malformed notice ends the login.
    const notice = parseReport(message.body)
    onNotice?.(notice)
  }
}

type Step = 'begin' | 'challenge' | 'proof' | 'proved'

async function authenticate(
  channel: Channel, channelBinding: Buffer | undefined, budget: Budget, options: LoginOptions
): Promise<void> {
  let step: Step = 'begin'
  let scram: ScramClient | undefined
  let negotiated = false
  for (;;) {
    const { tag, body } = await next(channel, budget, options)
    if (tag === 0x76 && step === 'begin' && !negotiated) {
      // We ask for 3.0 without options, so there is nothing to give way in.
      const { minor } = parseNegotiateProtocolVersion(body)
      if (minor > 0) throw violation('the target speaks another protocol version')
      negotiated = true
      continue
    }
    if (tag !== 0x52) throw violation(`message ${tagName(tag)} before the login`)
    const request = parseAuthentication(body)
    if (request.kind === 'ok') {
      if (step === 'proved' || step === 'begin' && options.allowTrust === true) return
      throw new UpstreamError('untrusted', 'the target asked for no proof of the login, or gave none')
    }
    if (request.kind === 'sasl' && step === 'begin') {
      const mechanism = chooseMechanism(request.mechanisms, channelBinding)
      if (mechanism === undefined) throw new UpstreamError('untrusted', 'the target offers no SCRAM-SHA-256')
      scram = new ScramClient({ mechanism, channelBinding, secret: options.secret() })
      channel.write(saslInitialResponse(scram.mechanism, scram.first))
      step = 'challenge'
    } else if (request.kind === 'sasl-continue' && step === 'challenge') {
      channel.write(saslResponse(await scram!.answer(request.data)))
      step = 'proof'
    } else if (request.kind === 'sasl-final' && step === 'proof') {
      if (!scram!.verify(request.data)) {
        throw new UpstreamError('untrusted', 'the target does not know the account')
      }
      step = 'proved'
    } else if (request.kind.startsWith('sasl')) {
      throw violation('the target broke the order of the login')
    } else {
      throw new UpstreamError('untrusted', `the target asked for a login that is not SCRAM (${request.kind})`)
    }
  }
}

/** From AuthenticationOk to ReadyForQuery. */
async function settle(channel: Channel, budget: Budget, options: LoginOptions): Promise<LoggedIn> {
  const parameters = new Map<string, string>()
  let keyData: { pid: number, key: Buffer } | undefined
  for (;;) {
    const { tag, body } = await next(channel, budget, options)
    if (tag === 0x53) {
      const { name, value } = parseParameterStatus(body)
      parameters.set(name, value)
    } else if (tag === 0x4b && keyData === undefined) {
      keyData = parseBackendKeyData(body)
    } else if (tag === 0x5a) {
      if (keyData === undefined) throw violation('the target gave no cancel key')
      const transactionStatus = parseReadyForQuery(body)
      return { parameters, pid: keyData.pid, cancelKey: keyData.key, transactionStatus }
    } else {
      throw violation(`message ${tagName(tag)} after the login`)
    }
  }
}
