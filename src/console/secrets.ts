// Secrets outside sessions: what somebody may have, and of each what it is, who depends on it, its versions
// and its leases. Values are shown once, to whoever asked for them, and are gone when the page is left.
import { useEffect, useState } from 'preact/hooks'
import { allOf } from '../api/calling.ts'
import type { ComparedJson, LeaseJson, ReadingJson, SecretJson } from '../api/client-types.ts'
import { get, post, remove } from './call.ts'
import { TextField } from './fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin, isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Act, Facts, Filters, More, Problem, State, Table, When, counted, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'

const leasesShown = 100
/** Copied values said to be copied for so long. */
const copiedMs = 2_000

export function SecretsPage({ query, caller }: PageProps): View {
  const words = query.get('query') ?? ''
  const environment = query.get('environment') ?? undefined
  const page = { after: query.get('after') ?? undefined, limit: rowsPerPage }
  const loaded = useLoad(signal => words !== '' && isWatcher(caller)
    ? get('/secrets/search', { query: { query: words, ...page }, signal })
    : get('/secrets', { query: { environment, ...page }, signal }))
  return html`<h1>Secrets</h1>
    ${isAdmin(caller)
      ? html`<p class="acts"><a class="button" href="/console/access/new/secret">New secret</a></p>` : null}
    <${Filters} label="Filter secrets" values=${query} fields=${[
      { name: 'environment', label: 'Environment' },
      ...isWatcher(caller) ? [{ name: 'query', label: 'Path or description contains', wide: true }] : []
    ]} />
    ${show(loaded, ({ secrets }) => html`<${Table} label="Secrets" none="There is no secret for you here."
      heads=${['Path', 'Type', 'Provider', 'State', 'Lifetime', 'Description']}
      rows=${secrets.map(row)} />
      <${More} label="More secrets" rows=${secrets.length} values=${query} by="after"
        last=${secrets.at(-1)?.path} />`)}`
}

function row({
  path, type, provider, profile, linkedSecret, status, ttlSeconds, description
}: SecretJson): Content[] {
  return [
    html`<a href=${`/console/secrets/${path}`}>${path}</a>`, type,
    provider ?? profile ?? (linkedSecret === null ? '' : html`<span class="quiet">linked to</span>
      ${linkedSecret}`),
    html`<${State} of=${status} />`, ttlSeconds === null ? '' : lengthOf(ttlSeconds * 1000),
    description ?? ''
  ]
}

export function SecretPage({ parts: [path = ''], caller }: PageProps): View {
  const holds = !caller.roles.includes('auditor') || isAdmin(caller)
  const loaded = useLoad(async signal => {
    const { secrets: [secret] } = await get('/secrets', { query: { path }, signal })
    return { secret }
  }, [path])
  const leases = useLoad(signal => get('/leases', {
    query: { secret: path, limit: leasesShown }, signal
  }), [path])
  return html`<h1>Secret <code>${path}</code></h1>
    ${show(loaded, ({ secret }) => secret === undefined
      ? html`<p>There is no such secret for you.</p>`
      : html`${factsOf(secret)}
        ${isWatcher(caller) ? html`<p><a href=${`/console/access/secret/${path}`}>Its definition</a></p>
          <${Dependants} path=${path} />` : null}
        ${holds ? html`<${Values} secret=${secret} made=${leases.again} />
          <${Versions} path=${path} />` : null}
        ${secret.type === 'dynamic' ? html`<h2>Leases</h2>${show(leases, listOfLeases)}` : null}
        ${isAdmin(caller) ? html`<${Delete} path=${path} />` : null}`)}`
}

/** Refused with their names while others are linked to it (L4). */
function Delete({ path }: { path: string }): View {
  return html`<p><${Act} label="Delete this secret" sure="Revoke its leases and delete it" act=${async () => {
    await remove('/secrets/{path}', { params: { path }, query: { revokeActiveLeases: 'true' } })
    location.assign('/console/secrets')
  }} /></p>`
}

function factsOf(secret: SecretJson): View {
  const { type, status, provider, profile, target, linkedSecret, ttlSeconds, maxTtlSeconds, keys } = secret
  return html`<${Facts} of=${[
    ['Type', type], ['State', html`<${State} of=${status} />`], ['Environment', secret.environment],
    ['Description', secret.description ?? undefined], ['Provider', provider ?? undefined],
    ['Profile', profile ?? undefined], ['Target', target ?? undefined],
    ['Base secret', linkedSecret === null
      ? undefined : html`<a href=${`/console/secrets/${linkedSecret}`}>${linkedSecret}</a>`],
    ['Lifetime', ttlSeconds === null ? undefined : lengthOf(ttlSeconds * 1000)],
    ['At the most', maxTtlSeconds === null ? undefined : lengthOf(maxTtlSeconds * 1000)],
    ['Values', keys.length === 0 ? undefined : keys.join(', ')],
    ['Version', secret.version === null ? undefined : String(secret.version)]
  ]} />`
}

/** L3: who is linked to this base. */
function Dependants({ path }: { path: string }): View {
  const loaded = useLoad(signal => allOf(async page => (await get('/secrets/search', {
    query: { query: path, links: 'true', ...page }, signal
  })).secrets, each => each.path), [path])
  return show(loaded, secrets => secrets.length === 0 ? null : html`<h2>Linked to it</h2>
    <ul>${secrets.map(({ path: other }) => html`<li>
      <a href=${`/console/secrets/${other}`}>${other}</a></li>`)}</ul>`)
}

function listOfLeases({ leases }: { leases: LeaseJson[] }): Content {
  return html`<${Table} label="Leases" none="Nothing was generated yet."
    heads=${['Made', 'Name', 'Status', 'Owner', 'Expires', 'Can be prolonged by']}
    rows=${leases.map(lease => [
      html`<a href=${`/console/leases/${lease.id}`}><${When} at=${lease.createdAt} /></a>`, lease.name,
      html`<${State} of=${lease.status} />`, `${lease.ownerKind} ${lease.owner}`,
      html`<${When} at=${lease.expiresAt} />`,
      lease.status === 'active' ? lengthOf(lease.renewableSeconds * 1000) : ''
    ])} />`
}

/** Generates or reads, and shows what came, this once. */
function Values({ secret, made }: { secret: SecretJson, made(): void }): View {
  const [wish, setWish] = useState({ ttl: '', name: '' })
  const [reading, setReading] = useState<ReadingJson>()
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const isStatic = secret.type === 'static'
  const ask = async (event: Event): Promise<void> => {
    event.preventDefault()
    setBusy(true)
    setFailure(undefined)
    setReading(undefined)
    const given = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== ''))
    const then = isStatic
      ? post('/secrets/{path}/read', { params: { path: secret.path }, body: {} })
      : post('/secrets/{path}/generate', { params: { path: secret.path }, body: given })
    await then.then(setReading, setFailure)
    setBusy(false)
    made()
  }
  const set = (name: keyof typeof wish) => (value: string): void =>
    setWish(before => ({ ...before, [name]: value }))
  return html`<h2>${isStatic ? 'Values' : 'A new account'}</h2>
    <form class="fields" aria-label=${isStatic ? 'Read' : 'Generate'} onSubmit=${ask}>
      ${isStatic ? null : html`
        <${TextField} label="Lifetime" value=${wish.ttl} set=${set('ttl')}
          placeholder=${secret.ttlSeconds === null ? '1h' : `${secret.ttlSeconds}s`} hint="such as 15m" />
        <${TextField} label="Name of the lease" value=${wish.name} set=${set('name')} />`}
      <p><button class="main" disabled=${busy}>${isStatic ? 'Read' : 'Generate'}</button></p>
    </form>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${reading === undefined ? null
      : html`<${Shown} reading=${reading} forget=${() => setReading(undefined)} />`}`
}

function Shown({ reading, forget }: { reading: ReadingJson, forget(): void }): View {
  const { values, masked, lease } = reading
  return html`<section class="shown" aria-label="Values">
    <p role="status"><strong>Shown this once:</strong> ${counted(Object.keys(values).length, 'value')}.
      ${lease === null ? null : html` The account ends ${' '}<${Countdown} until=${lease.expiresAt} />.
        <a href=${`/console/leases/${lease.id}`}>Its lease</a>`}</p>
    <dl>${Object.entries(values).map(([key, value]) =>
      html`<${Value} key=${key} name=${key} value=${value} hidden=${masked.includes(key)} />`)}</dl>
    <p><button type="button" onClick=${forget}>Forget them</button></p>
  </section>`
}

function Value({ name, value, hidden }: { name: string, value: string, hidden: boolean }): View {
  const [open, setOpen] = useState(!hidden)
  const [copied, setCopied] = useState<'no' | 'yes' | 'failed'>('no')
  const copy = (): Promise<void> => navigator.clipboard.writeText(value)
    .then(() => setCopied('yes'), () => setCopied('failed'))
  useEffect(() => {
    if (copied === 'no') return undefined
    const timer = setTimeout(() => setCopied('no'), copiedMs)
    return () => clearTimeout(timer)
  }, [copied])
  const said = { no: 'Copy', yes: 'Copied', failed: 'Not allowed by the browser' }[copied]
  return html`<div><dt>${name}</dt><dd>
    <code>${open ? value : '••••••••'}</code>
    <span class="acts">${hidden ? html`<button type="button" onClick=${() => setOpen(!open)}
        aria-label=${`${open ? 'Hide' : 'Show'} ${name}`}>${open ? 'Hide' : 'Show'}</button>` : null}
      <button type="button" onClick=${copy} aria-label=${`Copy ${name}`}>${said}</button></span></dd></div>`
}

/** `in 14 min 59 s`, by the second; the server's clock and this one may differ a little. */
function Countdown({ until }: { until: string }): View {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000)
    return () => clearInterval(timer)
  }, [])
  const leftMs = Date.parse(until) - now
  return html`<strong role="timer">${leftMs <= 0 ? 'now' : `in ${lengthOf(leftMs)}`}</strong>`
}

function Versions({ path }: { path: string }): View {
  const params = { path }
  const loaded = useLoad(signal => allOf(async ({ after, limit }) => {
    const query = { limit, after: after === undefined ? undefined : Number(after) }
    return (await get('/secrets/{path}/versions', { params, query, signal })).versions
  }, ({ version }) => String(version)), [path])
  const [compared, setCompared] = useState<ComparedJson>()
  const [failure, setFailure] = useState<unknown>()
  const compare = (from: number, to: number): Promise<void> =>
    get('/secrets/{path}/compare', { params, query: { from, to } }).then(setCompared, setFailure)
  if (loaded.value === undefined || loaded.value.length === 0) return html``
  const sorted = loaded.value.toSorted((one, other) => other.version - one.version)
  return html`<h2>Versions</h2>
    <${Table} label="Versions" none="" heads=${['Version', 'State', 'Made', 'By', '']}
      rows=${sorted.map(({ version, state, createdAt, createdBy }, at) => [
        String(version), html`<${State} of=${state} />`, html`<${When} at=${createdAt} />`, createdBy,
        sorted[at + 1] === undefined ? null : html`<button type="button"
          onClick=${() => compare(sorted[at + 1]!.version, version)}>Compare with the one before</button>`
      ])} />
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${compared === undefined ? null : html`<p role="status">From ${compared.from} to ${compared.to}:${' '}
      ${compared.keys.map(({ key, is }) => html`<code>${key}</code> ${is} `)}</p>`}`
}
