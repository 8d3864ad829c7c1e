// What admins declare, in lists: targets, credentials, grants, users. Credentials and grants have pages of
// their own, where admins change them; everything can be declared with `sallyport apply`, from files.
import type { ResourceJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import { State, Table, When, show, useLoad } from './parts.ts'

const kinds = ['credential', 'target', 'grant', 'user'] as const
type Kind = typeof kinds[number]

/** The columns of each list: what it says, of which document. */
const columns: Readonly<Record<Kind, readonly [head: string, cell: (document: Document) => Content][]>> = {
  credential: [
    ['Credential', ({ name }) => html`<a href=${`/console/access/credential/${String(name)}`}>${name}</a>`],
    ['Target', ({ target }) => target], ['Account', ({ username }) => username ?? 'made for each session'],
    ['JIT', ({ jit }) => html`<${State} of=${jitOf(jit)} />`]
  ],
  target: [
    ['Target', ({ name }) => name], ['Protocol', ({ protocol }) => protocol],
    ['Address', ({ address }) => html`<code>${address}</code>`],
    ['Database', ({ database }) => database],
    ['TLS', ({ tls }) => (tls as { mode?: string } | undefined)?.mode]
  ],
  grant: [
    ['Grant', ({ name }) => name], ['Users', ({ users }) => listed(users)],
    ['Credentials', ({ credentials }) => listed(credentials)],
    ['From', ({ notBefore }) => notBefore], ['Until', ({ notAfter }) => notAfter],
    ['Longest session', ({ maxSession }) => maxSession],
    ['Channels', ({ channels }) => channels === undefined ? undefined : listed(channels)]
  ],
  user: [
    ['User', ({ name }) => name], ['Roles', ({ roles }) => listed(roles)],
    ['Password', ({ password }) => password === undefined ? 'none' : 'set'],
    ['Public keys', ({ publicKeys }) => String((publicKeys as unknown[] | undefined)?.length ?? 0)],
    ['Disabled', ({ disabled }) => disabled === true ? html`<${State} of="refused" />` : 'no']
  ]
}

type Document = Record<string, unknown>

function jitOf(jit: unknown): string {
  const setting = jit as { enabled?: boolean, type?: string } | undefined
  return setting?.enabled === true ? setting.type ?? 'enabled' : 'disabled'
}

function listed(values: unknown): string {
  return (values as string[] | undefined ?? []).join(', ')
}

export function AccessPage({ parts: [kind = 'credential'], caller }: PageProps): View {
  const shown = kind as Kind
  const loaded = useLoad(signal =>
    get<{ resources: ResourceJson[] }>(`/resources/${shown}`, {}, signal), [shown])
  return html`<h1>Access</h1>
    <nav class="tabs" aria-label="Kinds">${kinds.map(each => html`
      <a href=${`/console/access/${each}`} aria-current=${each === shown ? 'page' : undefined}>
        ${each}s</a>`)}</nav>
    ${shown === 'credential' && isAdmin(caller)
      ? html`<p class="acts"><a class="button" href="/console/access/new/credential">New credential</a></p>`
      : null}
    ${show(loaded, ({ resources }) => html`<${Table} label=${`${shown}s`} none=${`There is no ${shown} yet.`}
      heads=${[...columns[shown].map(([head]) => head), 'Changed']}
      rows=${resources.map(({ document, updatedAt, updatedBy }) => [
        ...columns[shown].map(([, cell]) => cell(document)),
        html`<${When} at=${updatedAt} /> <span class="quiet">by ${updatedBy}</span>`
      ])} />`)}
    <p class="quiet">The same can be declared in files: <code>sallyport apply -f access.yaml</code>.</p>`
}
