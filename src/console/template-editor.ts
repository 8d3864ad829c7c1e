// The text of a template, for whoever may change it: lint answers while it is typed, marks the lines and
// names them in a list that leads there. Saving makes a new version with its author and time; the text says
// under which name.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { TemplateBodyJson } from '../api/client-types.ts'
import type { Answer } from '../api/table.ts'
import { post, put } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, State } from './parts.ts'

/** From the last key to the question what lint says. */
const lintAfterMs = 400

type Lint = Answer<'post', '/lint'>

/** The name that the text gives itself. */
function idIn(text: string): string | undefined {
  return /^id:\s*([a-z][a-z0-9-]{0,30}\/[a-z][a-z0-9-]{0,62})\s*$/m.exec(text)?.[1]
}

export function TemplateEditor({ template, admin, saved }: {
  template: TemplateBodyJson, admin: boolean, saved(id: string): void
}): View {
  const [text, setText] = useState(template.body)
  const { verdict, failure } = useLint(text)
  const area = useRef<HTMLTextAreaElement>(null)
  const marked = new Set(verdict?.lines.filter(line => line !== null) ?? [])
  const count = text.split('\n').length
  const goTo = (line: number): void => {
    const lines = text.split('\n')
    const from = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0)
    area.current?.focus()
    area.current?.setSelectionRange(from, from + (lines[line - 1]?.length ?? 0))
  }
  return html`<h2>Text</h2>
    <div class="coded">
      <div class="numbers" aria-hidden="true">${Array.from({ length: count }, (_, at) => html`
        <div class=${marked.has(at + 1) ? 'marked' : undefined}>${at + 1}</div>`)}</div>
      <textarea ref=${area} aria-label="Text" spellcheck=${false} wrap="off" rows=${count + 1} value=${text}
        readonly=${!admin} aria-describedby="lint"
        onInput=${(event: InputEvent) => setText((event.currentTarget as HTMLTextAreaElement).value)}
      ></textarea>
    </div>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${verdict === undefined ? null : html`<div id="lint" role="status" aria-label="Lint">
      <p>Lint: <${State} of=${verdict.valid ? 'valid' : 'broken'} /></p>
      <ul>${[...verdict.problems, ...verdict.warnings].map((line, at) => html`<li
        class=${at < verdict.problems.length ? 'bad' : undefined}>
          ${placed(line, verdict.lines[at], goTo)}</li>`)}</ul></div>`}
    ${admin
      ? html`<${Save} text=${text} template=${template} ready=${verdict?.valid === true} saved=${saved} />`
      : html`<p class="quiet">Only admins save a template.</p>`}`
}

function placed(line: string, at: number | null | undefined, goTo: (line: number) => void): Content {
  if (at === null || at === undefined) return line
  return html`<button type="button" class="link" onClick=${() => goTo(at)}>line ${at}</button> ${line}`
}

function useLint(text: string): { verdict: Lint | undefined, failure: unknown } {
  const [state, setState] = useState<{ of?: string, verdict?: Lint, failure?: unknown }>({})
  useEffect(() => {
    let gone = false
    const timer = setTimeout(() => {
      post('/lint', { body: { body: text } }).then(
        verdict => { if (!gone) setState({ of: text, verdict }) },
        (failure: unknown) => { if (!gone) setState({ of: text, failure }) })
    }, lintAfterMs)
    return () => {
      gone = true
      clearTimeout(timer)
    }
  }, [text])
  // What was said of another text counts for the marks only as long as nothing newer is there.
  const { verdict, failure } = state
  return {
    verdict: verdict === undefined || state.of === text ? verdict : { ...verdict, valid: false },
    failure
  }
}

function Save({ text, template, ready, saved }: {
  text: string, template: TemplateBodyJson, ready: boolean, saved(id: string): void
}): View {
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const id = idIn(text)
  const isOther = id !== undefined && id !== template.id
  const changed = text !== template.body
  const save = async (): Promise<void> => {
    setBusy(true)
    setFailure(undefined)
    const [plugin = '', name = ''] = (id ?? '').split('/')
    await put('/templates/{plugin}/{name}', { params: { plugin, name }, body: { body: text } })
      .then(row => saved(row.id), setFailure)
    setBusy(false)
  }
  const label = isOther ? `Save as ${id}` : 'Save a new version'
  return html`<p class="acts"><button type="button" class="main" onClick=${save}
      disabled=${busy || !ready || !changed || id === undefined}>${label}</button>
      <span class="quiet" role="status">${!changed ? 'This is the newest version.'
        : ready ? 'Sessions that are open keep the version that they began with.'
          : 'Saved only when lint has nothing against it.'}</span></p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}
