// What a PostgreSQL client is told by us: refusals as FATAL errors with our SQLSTATE, code and reference,
// progress as notices. One thing of the target's passes too: the reason of a refused login, when it does not
// name the account that was injected ("database does not exist" helps the person; "password authentication
// failed for user jit_…" would tell a stranger what we logged in as, J14).
import type { SallyportError } from '../../errors.ts'
import { errorTable } from '../../errors.ts'
import { UpstreamError } from '../../wire/error.ts'
import { errorResponse, noticeResponse } from '../../wire/postgres/messages.ts'

/** A refusal of the target that the person may read; made by `connect`, shown by `refuse`. */
export class TargetSaid extends Error {
  readonly sqlstate: string

  constructor(sqlstate: string, message: string) {
    super(message)
    this.name = 'TargetSaid'
    this.sqlstate = sqlstate
  }
}

/** The ErrorResponse for a refusal or for the end of a session. */
export function fatal(error: SallyportError): Buffer {
  const { cause, clientMessage: message } = error
  const said = cause instanceof TargetSaid ? cause : undefined
  const detail = said === undefined ? clientDetail(error) : said.message
  return errorResponse({
    severity: 'FATAL', sqlstate: said?.sqlstate ?? errorTable[error.code].sqlstate, message, detail
  })
}

// What the client itself asked for may be said back to it; nothing else that is for operators.
function clientDetail({ code, detail }: SallyportError): string | undefined {
  return code === 'option-refused' || code === 'protocol-violation' ? detail : undefined
}

/** The NoticeResponse for one line. SQLSTATE 00000: nothing went wrong. */
export function notice(line: string): Buffer {
  return noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: line })
}

/**
 * What of a target's refusal may be passed on: not who we logged in as, and nothing about logging in at all.
 */
export function passable(error: UpstreamError, account: string): TargetSaid | undefined {
  const { sqlstate, serverMessage } = error
  if (sqlstate === undefined || serverMessage === undefined || serverMessage === '') return undefined
  // Class 28: invalid authorization. 08: the connection itself, which is ours and not the person's.
  if (sqlstate.startsWith('28') || sqlstate.startsWith('08')) return undefined
  if (serverMessage.toLowerCase().includes(account.toLowerCase())) return undefined
  return new TargetSaid(sqlstate, serverMessage)
}
