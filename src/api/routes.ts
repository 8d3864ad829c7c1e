// The whole route table, and the API made from it: what main.ts calls. Adding a route means adding an entry
// to one of the files; the server, the document and the role test follow by themselves.
import type { Hono } from 'hono'
import type { Secret } from '../secret.ts'
import { createIdentify, replaceToken } from './access.ts'
import { createApi } from './api.ts'
import type { Bindings } from './api.ts'
import type { ConsoleFiles } from './console.ts'
import { once } from './idempotency.ts'
import { serveNodes } from './nodes.ts'
import { serveOidc } from './oidc.ts'
import type { ApiPorts } from './ports.ts'
import { accessRoutes } from './routes-access.ts'
import { applicationRoutes } from './routes-applications.ts'
import { auditRoutes } from './routes-audit.ts'
import { healthRoutes } from './routes-health.ts'
import { hookRoutes } from './routes-hooks.ts'
import { leaseRoutes } from './routes-leases.ts'
import { connectRoutes } from './routes-connect.ts'
import { loginRequestRoutes } from './routes-login-requests.ts'
import { passkeyRoutes } from './routes-passkeys.ts'
import { profileRoutes } from './routes-profiles.ts'
import { requestRoutes } from './routes-requests.ts'
import { resourceRoutes } from './routes-resources.ts'
import { ruleRoutes } from './routes-rules.ts'
import { secretRoutes } from './routes-secrets.ts'
import { sessionRoutes } from './routes-sessions.ts'
import { templateRoutes } from './routes-templates.ts'
import { userRoutes } from './routes-users.ts'

export interface SallyportApiOptions {
  /** Of this start, see local-admin.ts; undefined switches the local admin off. */
  localToken: Secret<string> | undefined
  /** Of the configuration: whoever has it reads the metrics, and nothing else. */
  metricsToken?: Secret<string> | undefined
  /** Validity of a token of `sallyport login`. */
  loginTokenSeconds: number
  /** See console.ts. */
  console?: (() => ConsoleFiles) | undefined
}

export function allRoutes(
  ports: ApiPorts, { loginTokenSeconds }: Pick<SallyportApiOptions, 'loginTokenSeconds'>
) {
  return [
    ...accessRoutes(ports, loginTokenSeconds), ...passkeyRoutes(ports, loginTokenSeconds),
    ...loginRequestRoutes(ports, loginTokenSeconds), ...userRoutes(ports), ...resourceRoutes(ports),
    ...connectRoutes(ports), ...sessionRoutes(ports), ...templateRoutes(ports), ...hookRoutes(ports),
    ...leaseRoutes(ports),
    ...secretRoutes(ports), ...applicationRoutes(ports), ...profileRoutes(ports), ...requestRoutes(ports),
    ...ruleRoutes(ports), ...auditRoutes(ports), ...healthRoutes(ports)
  ]
}

/** The API over its ports; `serveApi` of server.ts puts it on the network. */
export function createSallyportApi(
  ports: ApiPorts, options: SallyportApiOptions
): Hono<{ Bindings: Bindings }> {
  return createApi({
    version: ports.version,
    routes: allRoutes(ports, options),
    identify: createIdentify(ports, options.localToken, options.metricsToken),
    once: (attempt, act, nameOf) => once(ports, attempt, act, nameOf),
    replace: (token, caller) => replaceToken(ports, token, caller),
    more: app => {
      serveOidc(app, ports, options.loginTokenSeconds)
      serveNodes(app, ports)
    },
    console: options.console,
    failed: (error, request) => ports.failed(error, request)
  })
}
