// The page of a declared document (a grant, a user, a secret's definition …): its form, what would change,
// who changed it last. Everybody who may look sees the same; admins change it.
import { get, remove } from './call.ts'
import { DocumentForm } from './document-form.ts'
import type { FormKind } from './form-fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { loadOffers } from './offers.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import { Act, When, show, useLoad } from './parts.ts'
import { SecondFactorOf } from './second-factor.ts'

export function DocumentPage({ parts: [kind = '', name = ''], caller }: PageProps): View {
  const of = kind as FormKind
  const params = { kind: of, name }
  const loaded = useLoad(async signal => ({
    row: await get('/resources/{kind}/{name}', { params, signal }), offers: await loadOffers(of, signal)
  }), [kind, name])
  const admin = isAdmin(caller)
  return html`<h1><span class="word">${kind}</span> <code>${name}</code></h1>
    ${show(loaded, ({ row, offers }) => html`
      <p class="quiet">Version ${row.version}, made <${When} at=${row.createdAt} />, changed${' '}
        <${When} at=${row.updatedAt} /> by ${row.updatedBy}</p>
      <${DocumentForm} key=${row.version} kind=${of} document=${row.document} offers=${offers} admin=${admin}
        saved=${loaded.again} />
      ${around(of, name, admin)}
      ${admin && of !== 'secret' ? html`<p><${Act} label=${`Delete this ${kind}`} sure="Delete it"
        act=${async () => {
          await remove('/resources/{kind}/{name}', { params })
          location.assign(`/console/access/${kind}`)
        }} /></p>` : null}`)}`
}

/** What belongs to some kinds only. */
function around(kind: FormKind, name: string, admin: boolean): Content {
  if (kind === 'user' && admin) return html`<${SecondFactorOf} user=${name} />`
  return kind === 'secret'
    ? html`<p><a href=${`/console/secrets/${name}`}>Its values, versions and leases</a></p>` : null
}

export function NewDocumentPage({ parts: [kind = ''], caller }: PageProps): View {
  const of = kind as FormKind
  const loaded = useLoad(signal => loadOffers(of, signal), [kind])
  const opened = ({ name }: { name: string }): void => location.assign(`/console/access/${kind}/${name}`)
  return html`<h1>New ${kind}</h1>
    ${show(loaded, offers => html`<${DocumentForm} kind=${of} document=${undefined} offers=${offers}
      admin=${isAdmin(caller)} saved=${opened} />`)}`
}
