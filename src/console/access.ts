// What admins declare, in lists, a tab for each kind. Each document has a page of its own, where admins
// change it; everything can be declared with `sallyport apply`, from files.
import type { ResourceJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Filters, More, State, Table, When, chosen, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'

const kinds = [
  'credential', 'target', 'grant', 'user', 'application', 'environment', 'secret', 'profile'
] as const
type Kind = typeof kinds[number]
const statuses = ['active', 'inactive'] as const

/** The columns of each list: what it says, of which document. */
const columns: Readonly<Record<Kind, readonly [head: string, cell: Cell][]>> = {
  credential: [
    ['Credential', ({ name }) => linked('credential', name)],
    ['Target', ({ target }) => target], ['Account', ({ username }) => username ?? 'made for each session'],
    ['JIT', ({ jit }) => html`<${State} of=${jitOf(jit)} />`]
  ],
  target: [
    ['Target', ({ name }) => linked('target', name)], ['Protocol', ({ protocol }) => protocol],
    ['Address', ({ address }) => html`<code>${address}</code>`],
    ['Database', ({ database }) => database],
    ['TLS', ({ tls }) => (tls as { mode?: string } | undefined)?.mode]
  ],
  grant: [
    ['Grant', ({ name }) => linked('grant', name)], ['Users', ({ users }) => listed(users)],
    ['Credentials', ({ credentials }) => listed(credentials)],
    ['From', ({ notBefore }) => notBefore], ['Until', ({ notAfter }) => notAfter],
    ['Longest session', ({ maxSession }) => maxSession],
    ['Channels', ({ channels }) => channels === undefined ? undefined : listed(channels)]
  ],
  user: [
    ['User', ({ name }) => linked('user', name)], ['Roles', ({ roles }) => listed(roles)],
    ['Password', ({ password }) => password === undefined ? 'none' : 'set'],
    ['Public keys', ({ publicKeys }) => String((publicKeys as unknown[] | undefined)?.length ?? 0)],
    ['Disabled', ({ disabled }) => disabled === true ? html`<${State} of="refused" />` : 'no']
  ],
  application: [
    ['Application', ({ name }) => linked('application', name)],
    ['Description', ({ description }) => description], ['Networks', ({ networks }) => listed(networks)],
    ['Disabled', ({ disabled }) => disabled === true ? html`<${State} of="refused" />` : 'no']
  ],
  environment: [
    ['Environment', ({ name }) => linked('environment', name)],
    ['Description', ({ description }) => description]
  ],
  secret: [
    ['Secret', (_, name) => linked('secret', name)], ['Description', ({ description }) => description],
    ['Made by', ({ provider, profile, data }) => provider ?? profile ?? (data === undefined ? '' : 'nobody')],
    ['Target', ({ target }) => target], ['Lifetime', ({ ttl }) => ttl]
  ],
  profile: []
}

type Document = Record<string, unknown>
/** `name`: that of the resource, which is a secret's path. */
type Cell = (document: Document, name: string) => Content

function linked(kind: Kind, name: unknown): Content {
  return html`<a href=${`/console/access/${kind}/${String(name)}`}>${name}</a>`
}

function jitOf(jit: unknown): string {
  const setting = jit as { enabled?: boolean, type?: string } | undefined
  return setting?.enabled === true ? setting.type ?? 'enabled' : 'disabled'
}

function listed(values: unknown): string {
  return (values as string[] | undefined ?? []).join(', ')
}

export function AccessPage({ parts: [kind = 'credential'], caller, query }: PageProps): View {
  const shown = kind as Kind
  return html`<h1>Access</h1>
    <nav class="tabs" aria-label="Kinds">${kinds.map(each => html`
      <a href=${`/console/access/${each}`} aria-current=${each === shown ? 'page' : undefined}>
        ${each}s</a>`)}</nav>
    ${isAdmin(caller)
      ? html`<p class="acts"><a class="button" href=${`/console/access/new/${shown}`}>New ${shown}</a></p>`
      : null}
    ${shown === 'profile' ? html`<${Profiles} query=${query} />`
      : html`<${Resources} key=${shown} shown=${shown} query=${query} />`}
    <p class="quiet">The same can be declared in files: <code>sallyport apply -f access.yaml</code>.</p>`
}

function Resources({ shown, query }: { shown: Kind, query: URLSearchParams }): View {
  const loaded = useLoad(signal => get('/resources/{kind}', {
    params: { kind: shown },
    query: {
      name: query.get('name') ?? undefined, after: query.get('after') ?? undefined, limit: rowsPerPage
    }, signal
  }), [shown])
  const isFiltered = query.has('name') || query.has('after')
  return html`<${Filters} label=${`Filter ${shown}s`} values=${query}
      fields=${[{ name: 'name', label: 'Name contains' }]} />
    ${show(loaded, ({ resources }) => html`
      ${tableOf(shown, resources, isFiltered ? `No ${shown} matches.` : `There is no ${shown} yet.`)}
      <${More} label=${`More ${shown}s`} rows=${resources.length} values=${query} by="after"
        last=${resources.at(-1)?.name} />`)}`
}

function tableOf(shown: Kind, resources: readonly ResourceJson[], none: string): Content {
  return html`<${Table} label=${`${shown}s`} none=${none}
    heads=${[...columns[shown].map(([head]) => head), 'Changed']}
    rows=${resources.map(({ name, document, updatedAt, updatedBy }) => [
      ...columns[shown].map(([, cell]) => cell(document, name)),
      html`<${When} at=${updatedAt} /> <span class="quiet">by ${updatedBy}</span>`
    ])} />`
}

/** P4: with what people remember of one. */
function Profiles({ query }: { query: URLSearchParams }): View {
  const named = (name: string): string | undefined => query.get(name) ?? undefined
  const loaded = useLoad(signal => get('/profiles', {
    query: {
      id: named('id'), identifier: named('identifier'), type: named('type'),
      status: chosen(query, 'status', statuses), after: named('after'), limit: rowsPerPage
    }, signal
  }))
  return html`<${Filters} label="Filter profiles" values=${query} fields=${[
      { name: 'identifier', label: 'Identifier' }, { name: 'id', label: 'Id' },
      { name: 'type', label: 'Type' },
      { name: 'status', label: 'Status', choices: statuses }
    ]} />
    ${show(loaded, ({ profiles }) => html`<${Table} label="Profiles" none="No profile matches."
      heads=${['Profile', 'Type', 'Status', 'Access', 'Roles', 'Lifetime', 'Made', 'Changed']}
      rows=${profiles.map(profile => [
        linked('profile', profile.identifier), profile.type, html`<${State} of=${profile.status} />`,
        profile.registeredCredential ?? profile.credentialUsername, profile.roles.join(', '),
        lengthOf(profile.ttlSeconds * 1000), html`<${When} at=${profile.createdAt} />`,
        html`<${When} at=${profile.updatedAt} /> <span class="quiet">by ${profile.updatedBy}</span>`
      ])} />
      <${More} label="More profiles" rows=${profiles.length} values=${query} by="after"
        last=${profiles.at(-1)?.identifier} />`)}`
}
