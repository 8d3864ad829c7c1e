// The first page: to a person what is open to them, with lines to paste; to an admin of a new installation
// what to do next, step by step, until such a line works.
import type { DoorsJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import { Problem, State, Table, show, useLoad } from './parts.ts'
import { allResources } from './whole.ts'

/** Live sessions on the first page; the list has the others. */
const liveShown = 20

interface Choice {
  user: string
  credential: string
  target: string
  protocol: string
}

export function StartPage({ caller }: PageProps): View {
  return html`<h1>Start</h1>
    ${isWatcher(caller) ? html`<${FirstSteps} /><${Live} />` : null}
    <${Open} user=${caller.name} watches=${isWatcher(caller)} />`
}

/** What a person may open; whoever looks after others often may nothing, and need not be told. */
function Open({ user, watches }: { user: string, watches: boolean }): View {
  const loaded = useLoad(async signal => ({
    doors: await get('/doors', { signal }),
    explained: await get('/explain', { query: { login: user }, signal })
  }), [user])
  if (watches && loaded.value === undefined) return html`<span hidden></span>`
  return show(loaded, ({ doors, explained }) => {
    const choices = explained.choices.filter(({ refusal }) => refusal === null)
    if (choices.length === 0 && watches) return null
    if (choices.length === 0) return html`<p>Nothing is open to you yet: an admin declares a grant.</p>`
    return html`<h2>Open to you</h2>
      ${choices.map(choice => html`<${Ready} choice=${{ user, ...choice }} doors=${doors} own />`)}`
  })
}

function Live(): View {
  const loaded = useLoad(signal =>
    get('/sessions', { query: { status: 'live', limit: liveShown }, signal }))
  return html`<h2>Live now</h2>
    ${show(loaded, ({ sessions }) => html`<${Table} label="Live sessions" none="Nobody is connected."
      heads=${['Session', 'User', 'Credential', 'Target']} rows=${sessions.map(session => [
        html`<a href=${`/console/sessions/${session.id}#watch`}>${session.protocol}</a>`, session.user,
        session.credential, session.target
      ])} />`)}`
}

const kinds = ['target', 'credential', 'user', 'grant'] as const

const example = `kind: target
name: orders
protocol: postgres
address: 10.0.0.5:5432
---
kind: credential                      # the hooks log in with this one
name: orders-admin
target: orders
username: sallyport
password: { env: ORDERS_ADMIN_PASSWORD }
---
kind: credential                      # people get an account of their own from this one
name: orders-rw
target: orders
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: orders-admin
  create: { plugin: postgres, template: postgres/create-role }
  delete: { plugin: postgres, template: postgres/delete-role }
  variables: { roles: [app_rw] }
---
kind: user
name: alice
roles: [user]
password: { env: ALICE_PASSWORD }
---
kind: grant
name: devs-on-orders
users: [alice]
credentials: [orders-rw]`

/** What is there already, and for each protocol a login that somebody has been granted. */
async function estate(
  signal: AbortSignal
): Promise<{ counts: number[], ready: Choice[], doors: DoorsJson }> {
  const lists = await Promise.all(kinds.map(kind => allResources(kind, signal)))
  const [targets = [], credentials = [], , grants = []] = lists
  const doors = await get('/doors', { signal })
  const all = grants.flatMap(({ document }) => {
    const { users, credentials: named } = document as { users: string[], credentials: string[] }
    return users.flatMap(user => named.map(credential => ({ user, credential })))
  })
  const ready = new Map<string, Choice>()
  for (const { user, credential } of all) {
    const target = String(credentials.find(each => each.name === credential)?.document['target'])
    const protocol = String(targets.find(each => each.name === target)?.document['protocol'])
    if (!ready.has(protocol)) ready.set(protocol, { user, credential, target, protocol })
  }
  return { counts: lists.map(({ length }) => length), ready: [...ready.values()], doors }
}

function FirstSteps(): View {
  const loaded = useLoad(estate)
  return show(loaded, ({ counts, ready, doors }) => {
    const missing = kinds.filter((_, index) => counts[index] === 0)
    if (ready.length > 0 && missing.length === 0) {
      return html`<h2>Ready</h2>
        ${ready.map(choice => html`<${Ready} choice=${choice} doors=${doors} />`)}`
    }
    return html`<h2>First steps</h2>
      <ol class="steps">
        <li>Declare what people may reach. ${kinds.map((kind, index) => html`
          <${State} of=${`${counts[index]} ${kind}${counts[index] === 1 ? '' : 's'}`} /> `)}
          <pre><code>${example}</code></pre></li>
        <li>Save it as <code>access.yaml</code>, with your own addresses, and apply it on the machine that
          serves: <pre><code>npx sallyport apply -f access.yaml</code></pre></li>
        <li>See that every target answers and no right is missing:
          <pre><code>npx sallyport doctor</code></pre></li>
        <li>Come back to this page: a line to connect with stands here.</li>
      </ol>`
  })
}

/** Of the person's own machine, where their client finds a TCP target. */
const tunnelPort = 10_000

/** The line to paste, for what stock clients can open. */
function Ready(
  { choice, doors, own = false }: { choice: Choice, doors: DoorsJson, own?: boolean }
): View {
  const { user, credential, target, protocol } = choice
  const explained = useLoad(signal =>
    get('/explain', { query: { login: `${user}+${credential}@${target}` }, signal }), [user, credential])
  const refusal = explained.value?.choices.find(({ refusal: why }) => why !== null)?.refusal
  const line = lineOf(choice, doors)
  return html`<div class="ready">
    <p><strong>${user}</strong> with ${credential} on ${target}</p>
    ${line === undefined ? html`<p class="quiet">This node takes no ${protocol} sessions.</p>`
      : html`<pre><code>${line}</code></pre>`}
    ${line === undefined || protocol !== 'tcp' ? null : html`<p class="quiet">
      Then use any client on port ${tunnelPort} of your machine: ssh says the login of the new account.</p>`}
    ${!own || (protocol !== 'ssh' && protocol !== 'postgres') ? null : html`<p>
      <a href=${`/console/connect/${protocol}/${credential}/${target}`}>Open it in this browser</a></p>`}
    ${refusal === undefined || refusal === null ? null
      : html`<p class="bad">It would be refused: ${refusal}</p>`}
    ${explained.failure === undefined ? null : html`<${Problem} failure=${explained.failure} />`}
  </div>`
}

function lineOf({ user, credential, target, protocol }: Choice, doors: DoorsJson): Content {
  const login = `${user}+${credential}@${target}`
  if (protocol === 'postgres' && doors.postgres !== null) {
    return `psql 'host=${doors.postgres.host} port=${doors.postgres.port} user=${login} sslmode=require'`
  }
  if (doors.ssh === null) return undefined
  const at = `-p ${doors.ssh.port} ${login}@${doors.ssh.host}`
  if (protocol === 'ssh') return `ssh ${at}`
  // Any free port does here, and any behind the name; ssh then says the login of the new account.
  return protocol === 'tcp' ? `ssh -N -L ${tunnelPort}:${target}:${tunnelPort} ${at}` : undefined
}
