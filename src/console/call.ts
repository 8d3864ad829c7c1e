// Speaks to the API. The browser adds the cookie by itself; what is refused arrives as a `Refusal` with the
// sentence, the code and the reference of the table of errors. Long answers come line by line, so that a
// recording of hours is read only as far as it is shown.
import { addressWith } from '../api/calling.ts'
import type { Words } from '../api/calling.ts'
import type { ErrorJson } from '../api/client-types.ts'
import type { Answer, Asked, LineOf, PathOf, Rest, StreamAsked, StreamPath } from '../api/table.ts'

/** Longest line of a stream that is read; one statement with its text and parameters is shorter. */
const lineCharactersMax = 16 * 1024 ** 2

/** What the API says, or one of our own with a code of its own. */
type Said = Partial<Omit<ErrorJson, 'code'>> & { code?: string }

/** The API said no, or nothing at all. */
export class Refusal extends Error {
  readonly code: string
  readonly reference: string | undefined
  readonly problems: readonly string[]
  readonly detail: string | undefined
  readonly hint: string | undefined

  constructor({ code, message, reference, problems, detail, hint }: Said) {
    super(message ?? 'the server gave an answer that is none')
    this.code = code ?? 'no-answer'
    this.reference = reference
    this.problems = problems ?? []
    this.detail = detail
    this.hint = hint
  }
}

interface Signalled {
  signal?: AbortSignal
}

/** Paths are those of the route table, `/sessions/{id}`; what is asked and what comes back are its types. */
type Ask<M extends 'get' | 'post' | 'put' | 'delete'> =
  <P extends PathOf<M>>(path: P, ...asked: Rest<Asked<M, P> & Signalled>) => Promise<Answer<M, P>>

interface Loose extends Signalled {
  params?: Words
  query?: Words
  body?: unknown
}

// The types are the table's, and the server holds its answers to the same schemas.
const ask = (method: string) => async (path: string, asked: Loose = {}): Promise<unknown> =>
  (await answered(method, path, asked)).json()

export const get = ask('GET') as Ask<'get'>
export const post = ask('POST') as Ask<'post'>
export const put = ask('PUT') as Ask<'put'>
export const remove = ask('DELETE') as Ask<'delete'>

/** Where a browser saves what comes piece by piece. */
export function linkTo<P extends StreamPath>(path: P, ...[asked]: Rest<StreamAsked<P>>): string {
  const { params, query }: Loose = asked ?? {}
  return addressWith(path, params, query)
}

async function answered(
  method: string, path: string, { params, query = {}, body, signal }: Loose
): Promise<Response> {
  // What nobody filled in asks for nothing.
  const given = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ''))
  const answer = await fetch(addressWith(path, params, given), {
    method, credentials: 'same-origin', ...signal === undefined ? {} : { signal },
    ...body === undefined ? {} : {
      body: JSON.stringify(body), headers: { 'content-type': 'application/json' }
    }
  }).catch((thrown: unknown) => {
    if (thrown instanceof DOMException && thrown.name === 'AbortError') throw thrown
    throw new Refusal({ message: 'the server cannot be reached' })
  })
  if (answer.ok) return answer
  const json = await answer.json().catch(() => ({})) as { error?: Said }
  throw new Refusal(json.error ?? { message: `the server answered with status ${answer.status}` })
}

/**
 * The JSON lines of a stream, until it ends or is cut; `signal` stops the sender as well. `heard` is called
 * whenever something came, were it an empty line.
 */
export async function* lines<P extends StreamPath>(
  path: P, asked: StreamAsked<P> & { signal: AbortSignal }, heard?: () => void
): AsyncGenerator<LineOf<P>> {
  const loose: Loose = asked
  const { body } = await answered(loose.body === undefined ? 'GET' : 'POST', path, loose)
  const decoder = new TextDecoder()
  const reader = body!.getReader()
  let text = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      text += decoder.decode(value, { stream: true })
      if (text.length > lineCharactersMax) throw new Refusal({ message: 'a line of the answer is too long' })
      const whole = text.split('\n')
      text = whole.pop()!
      heard?.()
      // An empty one says that the line is alive.
      for (const line of whole) if (line !== '') yield JSON.parse(line) as LineOf<P>
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
