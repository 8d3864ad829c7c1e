// Templates: what runs on the targets, with admins' rights. The list, one with its text and its versions, and
// two versions side by side.
import { useState } from 'preact/hooks'
import { allOf } from '../api/calling.ts'
import type { TemplateJson } from '../api/client-types.ts'
import { get, post } from './call.ts'
import { diffOf } from './diff.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Act, Facts, Filters, More, State, Table, When, chosen, rowsPerPage, show, useLoad
} from './parts.ts'
import { TemplateEditor } from './template-editor.ts'

/** Lines around a difference that are shown. */
const linesAround = 3
const actions = ['create', 'delete', 'enable', 'disable'] as const
const at = '/templates/{plugin}/{name}'

export function TemplatesPage({ query }: PageProps): View {
  const loaded = useLoad(signal => get('/templates', {
    query: {
      plugin: query.get('plugin') ?? undefined, action: chosen(query, 'action', actions),
      after: query.get('after') ?? undefined, limit: rowsPerPage
    }, signal
  }))
  return html`<h1>Templates</h1>
    <${Filters} label="Filter templates" values=${query} fields=${[
      { name: 'plugin', label: 'Plugin' },
      { name: 'action', label: 'Action', choices: actions }
    ]} />
    ${show(loaded, ({ templates }) => html`<${Table} label="Templates" none="No template matches."
      heads=${['Template', 'Plugin', 'Action', 'Version', 'State', 'By']}
      rows=${templates.map(({ id, plugin, action, version, active, shipped, author, createdAt }) => [
        html`<a href=${`/console/templates/${id}`}>${id}</a>`, plugin, action, String(version),
        html`<${State} of=${active ? 'on' : 'off'} />`,
        shipped ? 'shipped' : html`${author}, <${When} at=${createdAt} />`
      ])} />
      <${More} label="More templates" rows=${templates.length} values=${query} by="after"
        last=${templates.at(-1)?.id} />`)}`
}

export function TemplatePage({ parts: [plugin = '', name = ''], caller }: PageProps): View {
  const id = `${plugin}/${name}`
  const params = { plugin, name }
  const loaded = useLoad(async signal => ({
    template: await get(at, { params, signal }), versions: await versionsOf(params, signal)
  }), [id])
  const admin = isAdmin(caller)
  const saved = (as: string): void => as === id ? loaded.again() : location.assign(`/console/templates/${as}`)
  return html`<h1>Template <code>${id}</code></h1>
    ${show(loaded, ({ template, versions }) => html`
      <${Facts} of=${[
        ['Action', template.action], ['Version', String(template.version)],
        ['State', html`<${State} of=${template.active ? 'on' : 'off'} />
          ${!admin ? null : html`
            <${Switch} params=${params} active=${template.active} done=${loaded.again} />`}`],
        ['By', template.shipped ? 'shipped' : template.author],
        ['Saved', html`<${When} at=${template.createdAt} />`],
        ['SHA-256', html`<code class="hash">${template.sha256}</code>`]
      ]} />
      <${TemplateEditor} key=${template.sha256} template=${template} admin=${admin} saved=${saved} />
      <${Versions} key=${versions.length} id=${id} versions=${versions} />`)}`
}

function versionsOf(params: { plugin: string, name: string }, signal: AbortSignal): Promise<TemplateJson[]> {
  return allOf(async ({ after, limit }) => {
    const query = { limit, before: after === undefined ? undefined : Number(after) }
    return (await get(`${at}/versions`, { params, query, signal })).versions
  }, ({ version }) => String(version))
}

function Switch({ params, active, done }: {
  params: { plugin: string, name: string }, active: boolean, done(): void
}): View {
  const [label, sure] = active ? ['Switch off', 'Do not offer it'] : ['Switch on', 'Offer it']
  return html`<${Act} label=${label} sure=${sure} act=${async () => {
      await post(`${at}/active`, { params, body: { active: !active } })
      done()
    }} />`
}

function Versions({ id, versions }: { id: string, versions: readonly TemplateJson[] }): View {
  const [[from, to], setPair] = useState(() => [versions[1]?.version ?? 1, versions[0]?.version ?? 1])
  const mark = (label: string, name: string, version: number, chosen: boolean, set: () => void): Content =>
    html`<input type="radio" name=${name} aria-label=${`${label} version ${version}`} checked=${chosen}
      onChange=${set} />`
  return html`<h2>Versions</h2>
    <${Table} label="Versions" none="" heads=${['Version', 'By', 'Saved', 'SHA-256', 'From', 'To']}
      rows=${versions.map(({ version, shipped, author, createdAt, sha256 }) => [
        String(version), shipped ? 'shipped' : author, html`<${When} at=${createdAt} />`,
        html`<code class="hash">${sha256.slice(0, 16)}</code>`,
        mark('From', 'from', version, from === version, () => setPair([version, to])),
        mark('To', 'to', version, to === version, () => setPair([from, version]))
      ])} />
    ${versions.length < 2 ? null : html`<p><a class="button"
      href=${`/console/templates/${id}/compare?from=${from}&to=${to}`}>Compare</a></p>`}`
}

export function ComparePage({ parts: [plugin = '', name = ''], query }: PageProps): View {
  const id = `${plugin}/${name}`
  const [from, to] = ['from', 'to'].map(which => Number(query.get(which) ?? 1))
  const loaded = useLoad(signal => Promise.all([from, to].map(version =>
    get(at, { params: { plugin, name }, query: { version }, signal }))), [id])
  return html`<h1><a href=${`/console/templates/${id}`}><code>${id}</code></a>: ${from} → ${to}</h1>
    ${show(loaded, ([before, after]) => html`
      <${Table} label="Versions" none="" heads=${['Version', 'By', 'Saved', 'SHA-256']}
        rows=${[before!, after!].map(({ version, shipped, author, createdAt, sha256 }) => [
          String(version), shipped ? 'shipped' : author, html`<${When} at=${createdAt} />`,
          html`<code class="hash">${sha256}</code>`
        ])} />
      <${Diff} before=${before!.body} after=${after!.body} />`)}`
}

function Diff({ before, after }: { before: string, after: string }): View {
  const all = diffOf(before, after)
  const near = (at: number): boolean => all.slice(Math.max(0, at - linesAround), at + linesAround + 1)
    .some(({ kind }) => kind !== 'same')
  if (all.every(({ kind }) => kind === 'same')) return html`<p>Both are the same text.</p>`
  const signs = { same: ' ', added: '+', removed: '−' } as const
  return html`<h2>Difference</h2>
    <pre class="diff" aria-label="Difference">${all.map(({ kind, text }, at) => near(at)
      ? html`<div class=${kind}>${kind === 'added' ? html`<ins>${`${signs[kind]} ${text}`}</ins>`
        : kind === 'removed' ? html`<del>${`${signs[kind]} ${text}`}</del>` : `${signs[kind]} ${text}`}</div>`
      : near(at - 1) ? html`<div class="quiet">…</div>` : null)}</pre>`
}
