// How a command fails: with a sentence for the person, lines of what is wrong, and a hint at what to do.
// Failures of the server carry its code and reference, so that an operator finds the same event in the log.

export interface FailureDetail {
  code?: string | undefined
  reference?: string | undefined
  problems?: readonly string[] | undefined
  hint?: string | undefined
}

/** The command failed: exit code 1. */
export class Failure extends Error {
  readonly code: string
  readonly reference: string | undefined
  readonly problems: readonly string[]
  readonly hint: string | undefined

  constructor(message: string, { code = 'failed', reference, problems = [], hint }: FailureDetail = {}) {
    super(message)
    this.code = code
    this.reference = reference
    this.problems = problems
    this.hint = hint
  }
}

/** Turns whatever was thrown into a failure; errors of the house are recognised by their members. */
export function asFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown
  if (!(thrown instanceof Error)) return new Failure(String(thrown))
  const { code, reference, detail, problems } = thrown as Partial<Failure> & { detail?: string }
  const ours = typeof reference === 'string' && Array.isArray(problems)
  return ours
    ? new Failure(detail ?? thrown.message, { code, reference, problems })
    : new Failure(thrown.message, { code: typeof code === 'string' ? code : 'failed' })
}
