// Changing what is declared, from a form: the document that the form means is tried on the server while
// somebody types (a dry run: nothing is stored), what is wrong comes back to its field, and what would change
// is shown before it is saved. Saving is `apply`, as from a file under git.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { AppliedJson } from '../api/client-types.ts'
import { Refusal, post } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, State, Table } from './parts.ts'
import { wrongIn } from './wrong.ts'
import type { Document, Wrong } from './wrong.ts'

/** From the last key to the question what would change. */
const tryAfterMs = 400

export type Result = AppliedJson['results'][0]

export interface Trial {
  /** What would change; undefined while that is not known, or something is wrong. */
  result: Result | undefined
  wrong: Wrong
  /** What is wrong with no field of the form. */
  failure: unknown
  /** The answer is about what stands in the form now. */
  current: boolean
  save(): Promise<void>
}

const apply = async (document: Document, dryRun: boolean): Promise<Result> =>
  (await post('/apply', { body: { documents: [document], dryRun } })).results[0]!

/** Tries the document whenever it is another one; `fields` are the paths that the form can show. */
export function useTrial(
  document: Document | undefined, fields: readonly string[], saved: (result: Result) => void
): Trial {
  const [state, setState] = useState<{ of?: string, result?: Result, failure?: unknown }>({})
  const text = document === undefined ? '' : JSON.stringify(document)
  const latest = useRef(text)
  latest.current = text
  const tell = (of: string, then: Promise<Result>): Promise<Result | undefined> => then.then(
    result => { if (latest.current === of) setState({ of, result }); return result },
    (failure: unknown) => { if (latest.current === of) setState({ of, failure }); return undefined })
  useEffect(() => {
    if (document === undefined) return undefined
    const timer = setTimeout(() => void tell(text, apply(document, true)), tryAfterMs)
    return () => clearTimeout(timer)
  }, [text])
  const { wrong, rest } = wrongIn(state.failure instanceof Refusal ? state.failure.problems : [], fields)
  const placed = state.failure instanceof Refusal && state.failure.code === 'invalid' && rest.length === 0
    && Object.keys(wrong).length > 0
  return {
    result: state.result, wrong, current: state.of === text,
    failure: placed ? undefined : withoutPlaced(state.failure, rest),
    async save() {
      if (document === undefined) return
      const result = await tell(text, apply(document, false))
      if (result !== undefined) saved(result)
    }
  }
}

/** What stands at a field need not stand above the form as well. */
function withoutPlaced(failure: unknown, rest: readonly string[]): unknown {
  if (!(failure instanceof Refusal) || failure.code !== 'invalid') return failure
  const { code, message, reference, detail, hint } = failure
  return new Refusal({
    code, message, problems: [...rest],
    ...reference === undefined ? {} : { reference }, ...detail === undefined ? {} : { detail },
    ...hint === undefined ? {} : { hint }
  })
}

/** What would change, and the button that makes it so. */
export function Saving({ trial }: { trial: Trial }): View {
  const [busy, setBusy] = useState(false)
  const { result, failure, wrong, current } = trial
  const isWrong = failure !== undefined || Object.keys(wrong).length > 0
  const ready = current && result !== undefined && result.action !== 'unchanged' && !isWrong
  const save = async (): Promise<void> => {
    setBusy(true)
    await trial.save()
    setBusy(false)
  }
  return html`<section class="saving" aria-label="What would change">
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${result === undefined || isWrong ? null : changesView(result)}
    <p class="acts"><button type="button" class="main" disabled=${!ready || busy} onClick=${save}>
      Save</button>
      <span class="quiet" role="status">${saidOf(trial, isWrong)}</span></p>
  </section>`
}

function saidOf({ current, result }: Trial, isWrong: boolean): string {
  if (!current) return 'Checking …'
  if (isWrong) return 'Something above is not right yet; nothing is saved.'
  if (result?.action === 'unchanged') return 'Nothing to save: this is what is stored.'
  return 'Tried on the server; nothing is saved yet.'
}

function changesView({ action, changes, notes }: Result): Content {
  return html`
    ${action === 'unchanged' ? null : html`<h2>What would change</h2>`}
    ${action === 'created' ? html`<p><${State} of="new" /> It would be created.</p>` : null}
    ${changes.length === 0 ? null : html`<${Table} label="Changes" none="" heads=${['Field', 'Now', 'Then']}
      rows=${changes.map(({ path, from, to }) => [
        html`<code>${path}</code>`, valueView(from), valueView(to)
      ])} />`}
    ${notes.length === 0 ? null : html`<ul class="quiet">${notes.map(note => html`<li>${note}</li>`)}</ul>`}`
}

function valueView(value: unknown): Content {
  if (value === undefined || value === null) return html`<span class="quiet">not set</span>`
  return html`<code class="data">${typeof value === 'string' ? value : JSON.stringify(value)}</code>`
}
