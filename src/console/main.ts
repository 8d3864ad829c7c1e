// The console begins here: who is it, which page is this address, and the frame around it. Each address is a
// page of its own and links are plain links, so that back, middle click and the keyboard do what they always
// do; there is no router. It speaks only to the API and knows of it only the types of its answers.
import { render } from 'preact'
import { useState } from 'preact/hooks'
import type { CallerJson } from '../api/client-types.ts'
import { AccountPage } from './account.ts'
import { AccessPage } from './access.ts'
import { AuditPage } from './audit.ts'
import { Refusal, get, post } from './call.ts'
import { ConnectPage } from './connect.ts'
import { ConfirmPage } from './confirm.ts'
import { CredentialPage, NewCredentialPage } from './credential.ts'
import { DocumentPage, NewDocumentPage } from './document.ts'
import { formKinds } from './form-fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { LeasePage, LeasesPage } from './leases.ts'
import { Login } from './login.ts'
import { isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import { Problem, show, useLoad } from './parts.ts'
import { ReceiptPage } from './receipt.ts'
import { RequestPage, RequestsPage } from './requests.ts'
import { SearchPage } from './search.ts'
import { SecretPage, SecretsPage } from './secrets.ts'
import { SessionPage } from './session.ts'
import { SessionsPage } from './sessions.ts'
import { StartPage } from './start.ts'
import { OrphansPage, TargetsPage } from './targets.ts'
import { ComparePage, TemplatePage, TemplatesPage } from './templates.ts'

interface Page {
  address: RegExp
  title: string
  /** In the menu: its address. */
  menu?: string
  /** Only for auditors and admins. */
  watchers?: boolean
  view(props: PageProps): View
}

const pages: readonly Page[] = [
  { address: /^\/console\/$/, title: 'Start', menu: '/console/', view: StartPage },
  { address: /^\/console\/sessions$/, title: 'Sessions', menu: '/console/sessions', view: SessionsPage },
  { address: /^\/console\/sessions\/([0-9a-z]+)$/, title: 'Session', view: SessionPage },
  {
    address: /^\/console\/sessions\/([0-9a-z]+)\/receipt$/, title: 'Receipt', watchers: true,
    view: ReceiptPage
  },
  {
    address: /^\/console\/search$/, title: 'Search', menu: '/console/search', watchers: true, view: SearchPage
  },
  { address: /^\/console\/requests$/, title: 'Requests', menu: '/console/requests', view: RequestsPage },
  { address: /^\/console\/requests\/([\w-]+)$/, title: 'Request', view: RequestPage },
  { address: /^\/console\/secrets$/, title: 'Secrets', menu: '/console/secrets', view: SecretsPage },
  { address: /^\/console\/secrets\/([\w.-]+(?:\/[\w.-]+)+)$/, title: 'Secret', view: SecretPage },
  { address: /^\/console\/leases$/, title: 'Leases', menu: '/console/leases', view: LeasesPage },
  { address: /^\/console\/leases\/([\w-]+)$/, title: 'Lease', view: LeasePage },
  {
    address: new RegExp(`^/console/access(?:/(credential|${formKinds.join('|')}))?$`), title: 'Access',
    menu: '/console/access', watchers: true, view: AccessPage
  },
  {
    address: new RegExp(`^/console/access/new/(${formKinds.join('|')})$`), title: 'Access', watchers: true,
    view: NewDocumentPage
  },
  {
    address: new RegExp(`^/console/access/(${formKinds.join('|')})/([\\w.-]+(?:/[\\w.-]+)*)$`),
    title: 'Access', watchers: true, view: DocumentPage
  },
  {
    address: /^\/console\/access\/credential\/([\w.-]+)(?:\/(jit|try))?$/, title: 'Credential',
    watchers: true, view: CredentialPage
  },
  {
    address: /^\/console\/access\/new\/credential$/, title: 'New credential', watchers: true,
    view: NewCredentialPage
  },
  {
    address: /^\/console\/targets$/, title: 'Targets', menu: '/console/targets', watchers: true,
    view: TargetsPage
  },
  { address: /^\/console\/targets\/orphans$/, title: 'Orphans', watchers: true, view: OrphansPage },
  {
    address: /^\/console\/templates$/, title: 'Templates', menu: '/console/templates', watchers: true,
    view: TemplatesPage
  },
  {
    address: /^\/console\/templates\/([\w.-]+)\/([\w.-]+)$/, title: 'Template', watchers: true,
    view: TemplatePage
  },
  {
    address: /^\/console\/templates\/([\w.-]+)\/([\w.-]+)\/compare$/, title: 'Versions', watchers: true,
    view: ComparePage
  },
  {
    address: /^\/console\/connect\/(ssh|postgres)\/([\w.-]+)\/([\w.-]+)$/, title: 'Connect', view: ConnectPage
  },
  { address: /^\/console\/confirm$/, title: 'Confirm a login', view: ConfirmPage },
  { address: /^\/console\/account$/, title: 'Your logins', view: AccountPage },
  { address: /^\/console\/audit$/, title: 'Audit', menu: '/console/audit', watchers: true, view: AuditPage }
]

function Console(): View {
  const who = useLoad<CallerJson | null>(signal => get('/whoami', { signal }).catch(orNobody))
  return show(who, caller => caller === null
    ? html`<${Login} entered=${who.again} />`
    : html`<${Frame} caller=${caller} />`)
}

/** The cookie is missing, or worth nothing any more. */
function orNobody(thrown: unknown): null {
  if (thrown instanceof Refusal && thrown.code === 'auth-required') return null
  throw thrown
}

function Frame({ caller }: { caller: CallerJson }): View {
  const path = location.pathname.replace(/(.)\/$/, (_, last: string) => last)
  const address = path === '/console' ? '/console/' : path
  const page = pages.find(each => each.address.test(address))
  const menu = pages.filter(each => each.menu !== undefined && (each.watchers !== true || isWatcher(caller)))
  document.title = `${page?.title ?? 'Not found'} · Sallyport`
  return html`
    <a class="skip" href="#content">Skip to the content</a>
    <header>
      <nav aria-label="Pages">${menu.map(each => html`
        <a href=${each.menu} aria-current=${isBelow(address, each.menu!) ? 'page' : undefined}>
          ${each.title}</a>`)}
      </nav>
      <div class="who"><a href="/console/account">${caller.name}</a><${LogOut} /></div>
    </header>
    <main id="content" tabindex="-1">${contentOf(page, address, caller)}</main>`
}

function contentOf(page: Page | undefined, address: string, caller: CallerJson): Content {
  if (page === undefined) return html`<h1>Not found</h1><p>There is no such page.</p>`
  if (page.watchers === true && !isWatcher(caller)) {
    return html`<${Problem} failure=${new Refusal({ code: 'not-allowed', message: 'access denied' })} />`
  }
  const parts = page.address.exec(address)!.slice(1)
  return html`<${page.view} parts=${parts} query=${new URLSearchParams(location.search)} caller=${caller} />`
}

function isBelow(address: string, menu: string): boolean {
  return address === menu || (menu !== '/console/' && address.startsWith(`${menu}/`))
}

function LogOut(): View {
  const [failure, setFailure] = useState<unknown>()
  const leave = (): Promise<void> =>
    post('/browser/logout').then(() => location.assign('/console/'), setFailure)
  return html`<button type="button" onClick=${leave}>Log out</button>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}

render(html`<${Console} />`, document.getElementById('root')!)
