// Routes of coming and going: log in, redeem the first token, who am I, log out, and what a stranger may know
// (whether this node is ready, and the public key that evidence is checked with).
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import { codeCharactersMax, hashToken, logIn, passwordCharactersMax, redeem } from './access.ts'
import type { Issued } from './access.ts'
import type { ApiPorts } from './ports.ts'
import { everyone, route } from './route.ts'
import type { Caller, CookieJar } from './route.ts'
import { callerShape, doorsShape, done, enteredShape, issuedShape, sshDoorShape } from './shapes.ts'

const given = z.strictObject({
  user: z.string().max(256), password: z.string().max(passwordCharactersMax),
  code: z.string().max(codeCharactersMax).optional()
}).transform(({ user: name, password, code }) => ({ name, password: new Secret(password), code }))
const oneToken = z.strictObject({ token: z.string().max(256) })

export function accessRoutes(ports: ApiPorts, loginTokenSeconds: number) {
  return [
    route({
      method: 'post', path: '/login', roles: 'anyone',
      summary: 'Exchanges a password, and a one-time code where one is enrolled, for a token.',
      body: given, response: issuedShape,
      run: async ({ body, address }) =>
        issuedJson(await logIn(ports, body, address, loginTokenSeconds))
    }),
    route({
      method: 'post', path: '/redeem', roles: 'anyone',
      summary: 'Exchanges the one-time token of the first start for a token of an hour.',
      body: oneToken, response: issuedShape,
      run: async ({ body, address }) => issuedJson(await redeem(ports, body.token, address))
    }),
    ...browserRoutes(ports, loginTokenSeconds),
    route({
      method: 'get', path: '/whoami', roles: [...everyone, 'application'],
      summary: 'Who the token stands for.',
      response: callerShape,
      run: async ({ caller: { name, roles, how } }) => ({ name, roles: [...roles], how })
    }),
    route({
      method: 'get', path: '/doors', roles: everyone, summary: 'Where clients connect to this node.',
      response: doorsShape,
      run: async () => {
        const ssh = ports.ssh()
        return {
          ssh: ssh === undefined ? null : { host: ssh.host, port: ssh.port },
          postgres: ports.postgres() ?? null
        }
      }
    }),
    route({
      method: 'get', path: '/ssh-config', roles: everyone,
      summary: 'What an SSH client must know: address, host keys, and the targets behind it.',
      response: sshDoorShape,
      run: async ({ caller }) => {
        const door = ports.ssh()
        if (door === undefined) throw new SallyportError('not-found', { detail: 'this node takes no SSH' })
        const declared = await ports.policy.declared()
        const open = ports.policy.choicesFor(declared, caller.name, 'ssh', ports.clock.now())
        const all = [...declared.targets.values()].filter(({ protocol }) => protocol === 'ssh')
        const own = open.map(({ target }) => target).filter(({ protocol }) => protocol === 'ssh')
        const seen = caller.roles.includes('admin') ? all : own
        return { ...door, targets: [...new Set(seen.map(({ name }) => name))].sort() }
      }
    }),
    route({
      method: 'post', path: '/logout', roles: everyone, summary: 'Ends the token that is given.',
      body: oneToken, response: done,
      run: async ({ body, caller, address }) => {
        await logOut(ports, body.token, caller, address)
        return { done: true }
      }
    }),
    route({
      method: 'get', path: '/health', roles: 'anyone', summary: 'Whether this node takes sessions.',
      response: z.object({ status: z.enum(['ready', 'not-ready']), version: z.string() }),
      run: async () => {
        const status = await ports.health.ready() ? 'ready' as const : 'not-ready' as const
        return { status, version: ports.version }
      }
    }),
    route({
      method: 'get', path: '/public-key', roles: 'anyone',
      summary: 'The key (PEM) that recordings, receipts and audit checkpoints are verified with.',
      response: z.object({ publicKey: z.string() }),
      run: async () => ({ publicKey: ports.recordings.publicKey() })
    })
  ]
}

/** The same for the console: the token is in a cookie that no script can read, and not in the answer. */
function browserRoutes(ports: ApiPorts, loginTokenSeconds: number) {
  return [
    route({
      method: 'post', path: '/browser/login', roles: 'anyone',
      summary: 'Logs a browser in: the token comes as a cookie.', body: given, response: enteredShape,
      run: async ({ body, address, cookie }) =>
        entered(cookie, await logIn(ports, body, address, loginTokenSeconds))
    }),
    route({
      method: 'post', path: '/browser/redeem', roles: 'anyone',
      summary: 'Logs a browser in with the one-time token of the first start.',
      body: oneToken, response: enteredShape,
      run: async ({ body, address, cookie }) => entered(cookie, await redeem(ports, body.token, address))
    }),
    route({
      method: 'post', path: '/browser/logout', roles: everyone,
      summary: 'Ends the token in the cookie, and the cookie.', response: done,
      run: async ({ caller, address, cookie }) => {
        if (cookie.token === undefined) throw new SallyportError('not-found', { detail: 'no cookie' })
        await logOut(ports, cookie.token, caller, address)
        cookie.clear()
        return { done: true }
      }
    })
  ]
}

/** The token into the cookie, and not into the answer. */
export function entered(cookie: CookieJar, { token, ...rest }: Issued): z.output<typeof enteredShape> {
  cookie.set(token)
  return { ...rest, roles: [...rest.roles], expiresAt: rest.expiresAt.toISOString() }
}

async function logOut(ports: ApiPorts, token: string, caller: Caller, address: string): Promise<void> {
  const row = await ports.tokens.find(hashToken(token))
  if (row === undefined || row.user !== caller.name) throw new SallyportError('not-found')
  await ports.tokens.remove(hashToken(token))
  await ports.audit.append('logout', caller.name, address, {})
}

export function issuedJson({ token, name, roles, expiresAt }: Issued): z.output<typeof issuedShape> {
  return { token, name, roles: [...roles], expiresAt: expiresAt.toISOString() }
}
