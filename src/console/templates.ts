// Templates: what runs on the targets, with admins' rights. Each with its text, and what lint has to say of
// it: of the stored one, and of a text that somebody tries out here. Saving is the command line tool's.
import { useEffect, useState } from 'preact/hooks'
import type { TemplateBodyJson, TemplateJson } from '../api/client-types.ts'
import { get, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { PageProps } from './page.ts'
import { Facts, Filters, Problem, State, Table, When, show, useLoad } from './parts.ts'

/** From the last key to the question what lint says. */
const lintAfterMs = 400

const rowsMax = 40

interface Lint {
  valid: boolean
  problems: string[]
  warnings: string[]
}

export function TemplatesPage({ query }: PageProps): View {
  const loaded = useLoad(signal => get<{ templates: TemplateJson[] }>('/templates', {
    plugin: query.get('plugin') ?? undefined, action: query.get('action') ?? undefined
  }, signal))
  return html`<h1>Templates</h1>
    <${Filters} label="Filter templates" values=${query} fields=${[
      { name: 'plugin', label: 'Plugin' },
      { name: 'action', label: 'Action', choices: ['create', 'delete', 'enable', 'disable'] }
    ]} />
    ${show(loaded, ({ templates }) => html`<${Table} label="Templates" none="No template matches."
      heads=${['Template', 'Plugin', 'Action', 'Version', 'State', 'By']}
      rows=${templates.map(({ id, plugin, action, version, active, shipped, author, createdAt }) => [
        html`<a href=${`/console/templates/${id}`}>${id}</a>`, plugin, action, String(version),
        html`<${State} of=${active ? 'on' : 'off'} />`,
        shipped ? 'shipped' : html`${author}, <${When} at=${createdAt} />`
      ])} />`)}`
}

export function TemplatePage({ parts: [plugin = '', name = ''] }: PageProps): View {
  const loaded = useLoad(signal =>
    get<TemplateBodyJson>(`/templates/${plugin}/${name}`, {}, signal), [plugin, name])
  return html`<h1>Template <code>${plugin}/${name}</code></h1>
    ${show(loaded, template => html`
      <${Facts} of=${[
        ['Action', template.action], ['Version', String(template.version)],
        ['State', html`<${State} of=${template.active ? 'on' : 'off'} />`],
        ['By', template.shipped ? 'shipped' : template.author],
        ['Saved', html`<${When} at=${template.createdAt} />`],
        ['SHA-256', html`<code class="hash">${template.sha256}</code>`]
      ]} />
      <${Editor} body=${template.body} />`)}`
}

/** The text, to be read and tried: lint answers as it is typed. */
function Editor({ body }: { body: string }): View {
  const [text, setText] = useState(body)
  const [verdict, setVerdict] = useState<Lint>()
  const [failure, setFailure] = useState<unknown>()
  useEffect(() => {
    let gone = false
    const timer = setTimeout(() => {
      post<Lint>('/lint', { body: text }).then(
        lint => { if (!gone) { setVerdict(lint); setFailure(undefined) } },
        (thrown: unknown) => { if (!gone) setFailure(thrown) })
    }, lintAfterMs)
    return () => {
      gone = true
      clearTimeout(timer)
    }
  }, [text])
  return html`<label class="editor">Text
      <textarea spellcheck="false" rows=${Math.min(rowsMax, body.split('\n').length + 2)} value=${text}
        onInput=${(event: InputEvent) => setText((event.currentTarget as HTMLTextAreaElement).value)}
      ></textarea>
    </label>
    ${text === body ? null : html`<p class="quiet">Tried out here only: nothing is saved.</p>`}
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${verdict === undefined ? null : html`<div role="status" aria-label="Lint">
      <p>Lint: <${State} of=${verdict.valid ? 'valid' : 'broken'} /></p>
      <ul>${[...verdict.problems, ...verdict.warnings].map(line => html`<li>${line}</li>`)}</ul></div>`}`
}
