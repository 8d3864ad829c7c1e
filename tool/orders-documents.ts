// Documents of a database with orders, as the demo, the soak run and many tests declare it: a PostgreSQL
// target, the login of its hooks, and credentials whose role is made for each session. Each ends with a line
// of its own, so that they are put together with `---` in between.

export interface RoleOptions {
  target?: string
  maxSession?: string | undefined
  /** Where the hooks' login is, when it is not `TARGET-admin`. */
  authenticator?: string
}

/** A credential whose role, in `app_rw`, lives as long as a session. */
export function roleCredential(
  name: string, { target = 'orders', maxSession, authenticator = `${target}-admin` }: RoleOptions = {}
): string {
  return `kind: credential
name: ${name}
target: ${target}
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: ${authenticator}
  create: { plugin: postgres, template: postgres/create-role }
  delete: { plugin: postgres, template: postgres/delete-role }
  variables: { roles: [app_rw] }
${maxSession === undefined ? '' : `  maxSession: ${maxSession}\n`}`
}

export interface OrdersOptions {
  port: number
  /** Of the target; its credentials are NAME-admin and NAME-rw. */
  name?: string
  protocol?: 'postgres' | 'tcp'
  /** Where the password of the hooks' login is. */
  password?: string
  maxSession?: string | undefined
}

export function ordersDocuments({
  port, name = 'orders', protocol = 'postgres', password = '{ env: ORDERS_ADMIN_PASSWORD }', maxSession
}: OrdersOptions): string {
  return `kind: target
name: ${name}
protocol: ${protocol}
address: 127.0.0.1:${port}
database: orders
${protocol === 'tcp' ? '' : 'tls: { mode: disable }\n'}---
kind: credential
name: ${name}-admin
target: ${name}
username: sallyport
password: ${password}
---
${roleCredential(`${name}-rw`, { target: name, maxSession })}`
}
