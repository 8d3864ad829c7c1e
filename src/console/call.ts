// Speaks to the API. The browser adds the cookie by itself; what is refused arrives as a `Refusal` with the
// sentence, the code and the reference of the table of errors. Long answers come line by line, so that a
// recording of hours is read only as far as it is shown.

/** Longest line of a stream that is read; one statement with its text and parameters is shorter. */
const lineCharactersMax = 16 * 1024 ** 2

interface ErrorJson {
  code: string
  message: string
  reference: string
  problems: string[]
  detail?: string
  hint?: string
}

/** The API said no, or nothing at all. */
export class Refusal extends Error {
  readonly code: string
  readonly reference: string | undefined
  readonly problems: readonly string[]
  readonly detail: string | undefined
  readonly hint: string | undefined

  constructor({ code, message, reference, problems, detail, hint }: Partial<ErrorJson>) {
    super(message ?? 'the server gave an answer that is none')
    this.code = code ?? 'no-answer'
    this.reference = reference
    this.problems = problems ?? []
    this.detail = detail
    this.hint = hint
  }
}

export type Query = Readonly<Record<string, string | number | undefined>>

/** Address of a route, with what the query really says. */
export function addressOf(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '')
  const words = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString()
  return `/api/v1${path}${words === '' ? '' : `?${words}`}`
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const answer = await answered(addressOf(path, query), signal === undefined ? {} : { signal })
  return answer.json() as Promise<T>
}

export async function post<T>(path: string, body?: unknown): Promise<T> {
  return (await answered(addressOf(path), posted(body))).json() as Promise<T>
}

export async function put<T>(path: string, body: unknown): Promise<T> {
  return (await answered(addressOf(path), { ...posted(body), method: 'PUT' })).json() as Promise<T>
}

function posted(body: unknown): RequestInit {
  return body === undefined
    ? { method: 'POST' }
    : { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }
}

export async function remove(path: string): Promise<void> {
  await answered(addressOf(path), { method: 'DELETE' })
}

async function answered(address: string, init: RequestInit): Promise<Response> {
  const answer = await fetch(address, { ...init, credentials: 'same-origin' }).catch((thrown: unknown) => {
    if (thrown instanceof DOMException && thrown.name === 'AbortError') throw thrown
    throw new Refusal({ message: 'the server cannot be reached' })
  })
  if (answer.ok) return answer
  const json = await answer.json().catch(() => ({})) as { error?: Partial<ErrorJson> }
  throw new Refusal(json.error ?? { message: `the server answered with status ${answer.status}` })
}

/**
 * The JSON lines of a stream, until it ends or is cut; `signal` stops the sender as well. With `given` it is
 * asked for by POST. `heard` is called whenever something came, were it an empty line.
 */
export async function* lines<T>(
  path: string, query: Query, signal: AbortSignal, given?: unknown, heard?: () => void
): AsyncGenerator<T> {
  const asked = given === undefined ? {} : posted(given)
  const { body } = await answered(addressOf(path, query), { ...asked, signal })
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
      for (const line of whole) if (line !== '') yield JSON.parse(line) as T
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
