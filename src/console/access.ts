// What admins declare, to be read: targets, credentials, grants, users. It is changed with `sallyport apply`,
// from files under git. A credential's JIT settings have the names that the documents have, and the page says
// what each means.
import type { ResourceJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import type { PageProps } from './page.ts'
import { Facts, State, Table, When, show, useLoad } from './parts.ts'

const kinds = ['credential', 'target', 'grant', 'user'] as const
type Kind = typeof kinds[number]

interface Jit {
  enabled?: boolean
  type?: 'creation-deletion' | 'enable-disable'
  useOwnCredential?: boolean
  authenticationCredential?: string
  variables?: Record<string, string | number | string[]>
  maxSession?: string
  namePrefix?: string
  [action: string]: unknown
}

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
  const setting = jit as Jit | undefined
  return setting?.enabled === true ? setting.type ?? 'enabled' : 'disabled'
}

function listed(values: unknown): string {
  return (values as string[] | undefined ?? []).join(', ')
}

export function AccessPage({ parts: [kind = 'credential'] }: PageProps): View {
  const shown = kind as Kind
  const loaded = useLoad(signal =>
    get<{ resources: ResourceJson[] }>(`/resources/${shown}`, {}, signal), [shown])
  return html`<h1>Access</h1>
    <nav class="tabs" aria-label="Kinds">${kinds.map(each => html`
      <a href=${`/console/access/${each}`} aria-current=${each === shown ? 'page' : undefined}>
        ${each}s</a>`)}</nav>
    ${show(loaded, ({ resources }) => html`<${Table} label=${`${shown}s`} none=${`There is no ${shown} yet.`}
      heads=${[...columns[shown].map(([head]) => head), 'Changed']}
      rows=${resources.map(({ document, updatedAt, updatedBy }) => [
        ...columns[shown].map(([, cell]) => cell(document)),
        html`<${When} at=${updatedAt} /> <span class="quiet">by ${updatedBy}</span>`
      ])} />`)}
    <p class="quiet">Changed with <code>sallyport apply -f access.yaml</code>.</p>`
}

export function CredentialPage({ parts: [name = ''] }: PageProps): View {
  const loaded = useLoad(signal => get<ResourceJson>(`/resources/credential/${name}`, {}, signal), [name])
  return html`<h1>Credential <code>${name}</code></h1>
    ${show(loaded, ({ document, version, updatedAt, updatedBy }) => html`
      <${Facts} of=${[
        ['target', html`${document['target']}`], ['username', document['username'] ?? undefined],
        ['password', document['password'] ?? undefined], ['privateKey', document['privateKey'] ?? undefined],
        ['Version', String(version)],
        ['Changed', html`<${When} at=${updatedAt} /> by ${updatedBy}`]
      ]} />
      <h2>JIT settings</h2>
      ${jitView(document['jit'] as Jit | undefined)}`)}`
}

const typeWords: Readonly<Record<string, string>> = {
  'creation-deletion': 'made when a session starts, removed when it ends',
  'enable-disable': 'exists; on while at least one session uses it, off otherwise'
}

function jitView(jit: Jit | undefined): Content {
  if (jit?.enabled !== true) {
    return html`<p>Disabled: the stored secret is injected, and no hook runs.</p>`
  }
  const actions = jit.type === 'enable-disable' ? ['enable', 'disable'] : ['create', 'delete']
  return html`<${Facts} of=${[
    ['enabled', 'true'],
    ['type', html`${jit.type}<div class="quiet">${typeWords[jit.type ?? ''] ?? ''}</div>`],
    ['useOwnCredential', html`${String(jit.useOwnCredential)}
      <div class="quiet">${jit.useOwnCredential === true ? 'the credential itself' : 'another credential'}
        ${' '}authenticates the hooks</div>`],
    ['authenticationCredential', jit.authenticationCredential === undefined ? undefined
      : html`<a href=${`/console/access/credential/${jit.authenticationCredential}`}>
          ${jit.authenticationCredential}</a>`],
    ...actions.map(action => {
      const { plugin, template } = (jit[action] ?? {}) as { plugin?: string, template?: string }
      return [action, html`<a href=${`/console/templates/${template}`}>${template}</a>
        <div class="quiet">plugin ${plugin}</div>`] as const
    }),
    ...Object.entries(jit.variables ?? {}).map(([variable, value]) => [
      `variables.${variable}`, html`<code>${Array.isArray(value) ? value.join(', ') : String(value)}</code>`
    ] as const),
    ['maxSession', jit.maxSession],
    ['namePrefix', jit.type === 'creation-deletion' ? jit.namePrefix : undefined]
  ]} />`
}
