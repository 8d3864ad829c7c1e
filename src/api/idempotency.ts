// `Idempotency-Key`: a client that lost an answer repeats its request with the same key and gets the same
// answer, without anything being issued again. The key is claimed before the handler runs; what the handler
// answered is kept for minutes, sealed, because it may be a secret that is shown once; later a repeat only
// hears what was issued. The same key for another request, or for one that is still running, is refused; so
// is one whose outcome nobody knows after a crash: better no answer than a second account.
import { createHash } from 'node:crypto'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { canonicalJson } from '../lease/receipt.ts'
import { Secret } from '../secret.ts'
import { actorOf } from '../secrets/secrets.ts'
import type { ApiPorts } from './ports.ts'
import type { Caller } from './route.ts'
import { holderOf } from './routes-secrets.ts'

export const keyHeader = 'idempotency-key'
/** Says that an answer is a repeated one. */
export const repeatHeader = 'idempotency-replayed'
const keyPattern = /^[\x21-\x7e]{1,200}$/

// After these nobody knows whether it was done; after all others nothing came of it.
const doubtful: readonly ErrorCode[] = ['internal', 'store-unavailable']

export interface Attempt {
  caller: Caller
  address: string
  /** The header as it came. */
  key: string
  /** `POST /api/v1/…?…` */
  line: string
  body: unknown
}

/** The answer as JSON, and whether it is one of before. */
export interface Answered {
  json: string
  repeated: boolean
}

/** Runs `act` once for a key. `nameOf` says in words without secrets what it issued. */
export async function once(
  ports: Pick<ApiPorts, 'idempotency' | 'audit' | 'failed'>, attempt: Attempt,
  act: () => Promise<unknown>, nameOf: (answer: unknown) => string
): Promise<Answered> {
  const { caller, key, line, address } = attempt
  if (!keyPattern.test(key)) {
    const problems = [`${keyHeader}: expected 1 to 200 printable characters`]
    throw new SallyportError('invalid', { problems })
  }
  const { kind, name } = holderOf(caller)
  const principal = `${kind} ${name}`
  const request = createHash('sha256').update(`${line}\n${canonicalJson(attempt.body ?? null)}`).digest('hex')
  const known = await ports.idempotency.claim(principal, key, request)
  switch (known.state) {
    case 'new': return { json: await first(ports, principal, attempt, act, nameOf), repeated: false }
    case 'other': throw new SallyportError('key-reused', { detail: key })
    case 'running': throw new SallyportError('still-running', { detail: key })
    case 'unknown': throw new SallyportError('outcome-unknown', { detail: key })
    case 'done': {
      const { said, answer } = known
      if (answer === undefined) throw new SallyportError('already-issued', { detail: said, problems: [said] })
      await ports.audit.append('answer.repeated', actorOf(holderOf(caller)), said, { address })
      return { json: answer.expose(), repeated: true }
    }
  }
}

async function first(
  { idempotency, failed }: Pick<ApiPorts, 'idempotency' | 'failed'>, principal: string,
  { key, line }: Attempt, act: () => Promise<unknown>, nameOf: (answer: unknown) => string
): Promise<string> {
  let answer: unknown
  try {
    answer = await act()
  } catch (thrown) {
    const error = asSallyportError(thrown)
    const settle = doubtful.includes(error.code) ? idempotency.doubt : idempotency.free
    // Where the store is away the key stays claimed by this start of the node, which is doubt as well.
    await settle(principal, key).catch(() => undefined)
    throw error
  }
  const json = JSON.stringify(answer)
  try {
    await idempotency.done(principal, key, nameOf(answer), new Secret(json))
  } catch (thrown) {
    // It is done, and its answer is here: whoever asked gets it. A repeat will hear that nobody knows.
    failed(asSallyportError(thrown), line)
  }
  return json
}
