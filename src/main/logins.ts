// Ways in for people beside password and code, over the rooms that are open: passkeys, and an identity
// provider. What they are bound to is where the console is, as browsers see it: the origin that the
// configuration says, or the address that we listen on.
import { hostname } from 'node:os'
import { isIP } from 'node:net'
import type { LoginPorts } from '../api/ports-login.ts'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import type { AuditLog } from '../store/audit.ts'
import type { Database } from '../store/database.ts'
import { createIdentities } from '../store/identities.ts'
import { createLoginRequests } from '../store/login-requests.ts'
import { createPasskeys } from '../store/passkeys.ts'
import { createLoginRequestPort } from './login-requests.ts'
import { createOidcPort } from './oidc.ts'
import { createPasskeyPort } from './passkeys.ts'

export interface LoginNeeds {
  config: Config
  clock: Clock
  database: Database
  audit: AuditLog
  /** The same on every node and at every start. */
  key: Buffer
}

export function createLogins({ config, clock, database, audit, key }: LoginNeeds): LoginPorts {
  const rows = createPasskeys(database, audit)
  const origin = consoleOrigin(config)
  const setting = config.login.oidc
  return {
    passkeys: createPasskeyPort({ clock, rows, audit, key, origin: domainOf(origin) }),
    oidc: setting === undefined || origin === undefined
      ? undefined
      : createOidcPort({ clock, key, setting, origin, spend: challenge => rows.spend(challenge) }),
    identities: createIdentities(database, audit),
    requests: createLoginRequestPort({ clock, rows: createLoginRequests(database, audit), origin })
  }
}

/** `https://host:port` of the console; undefined when this node has none. */
export function consoleOrigin({ console: { origin }, listen }: Config): string | undefined {
  if (origin !== undefined || listen.http === undefined) return origin
  const { host, port } = listen.http
  const isEverywhere = /^(0\.0\.0\.0|::)$/.test(host)
  const isLoopback = /^(127\.\d+\.\d+\.\d+|::1)$/.test(host)
  const name = isLoopback ? 'localhost' : isEverywhere ? hostname() : host
  return `https://${name.includes(':') ? `[${name}]` : name}${port === 443 ? '' : `:${port}`}`
}

/** Browsers know no passkeys of bare addresses. */
export function domainOf(origin: string | undefined): string | undefined {
  const host = origin === undefined ? '' : new URL(origin).hostname.replace(/^\[|\]$/g, '')
  return host === '' || isIP(host) > 0 ? undefined : origin
}
