// Brings the server's problems to the fields of a form. A problem of a document is one line that begins with
// the place and the path, `document 1 (credential/x): jit.maxSession: expected a duration …`; a field shows
// what is wrong with it and with everything inside it.

/** A document of a declared resource, as `apply` takes it. */
export type Document = Record<string, unknown> & { kind: string, name: string }

/** Sentences by the path of the field that shows them. */
export type Wrong = Readonly<Record<string, readonly string[]>>

const place = /^document 1(?: \([^)]*\))?: /
const path = /^([A-Za-z][\w.-]*(?:\[\d+\])*(?:\.[\w-]+|\[\d+\])*): (.+)$/s

/** What is wrong at each field of the form, and the lines that are about none of them. */
export function wrongIn(
  problems: readonly string[], fields: readonly string[]
): { wrong: Wrong, rest: readonly string[] } {
  const wrong: Record<string, string[]> = {}
  const rest: string[] = []
  for (const problem of problems) {
    const line = problem.replace(place, '')
    const [, at = '', message = line] = path.exec(line) ?? []
    // The field itself, else the nearest one around it.
    const field = fields.filter(each => at === each || at.startsWith(`${each}.`) || at.startsWith(`${each}[`))
      .toSorted((one, other) => other.length - one.length)[0]
    if (field === undefined) rest.push(line)
    else (wrong[field] ??= []).push(message)
  }
  return { wrong, rest }
}
