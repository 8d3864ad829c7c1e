// A session in the browser: a shell on an SSH target, or statements on a PostgreSQL one. It begins when the
// person says so, never because an address was opened.
import { html } from './html.ts'
import type { View } from './html.ts'
import { isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import { Shell } from './shell.ts'
import { SqlSession } from './sql.ts'

export function ConnectPage({ parts, caller }: PageProps): View {
  const [protocol, credential = '', target = ''] = parts
  const frame = { login: `${caller.name}+${credential}@${target}`, watches: isWatcher(caller) }
  return html`<h1><code>${credential}</code> on <code>${target}</code></h1>
    ${protocol === 'ssh' ? html`<${Shell} ...${frame} />` : html`<${SqlSession} ...${frame} />`}`
}
