// Who calls. A person logs in with a password, and a one-time code where one is enrolled, and gets a bearer
// token for a working day; the first admin of a new installation redeems the one-time token that the first
// start printed; and whoever can read the owner-only files of the data folder, on the machine that serves,
// is the local admin, because that person could change the store as well. Applications have tokens that
// admins make. Tokens are stored as hashes; a user or an application that is disabled or removed is out at
// once, whatever token is left. The token in a browser is replaced every hour.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { BlockList, isIP, isIPv4 } from 'node:net'
import { SallyportError } from '../errors.ts'
import type { User } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import type { ApiPorts, StoredToken, TokenRow } from './ports.ts'
import type { PasskeyAnswer } from './ports-login.ts'
import type { Caller } from './route.ts'

/** Name of the account that the one-time token of the first start opens; users cannot be called so. */
export const firstAdminName = 'first-admin'
export const localAdminName = 'local'

/** The first start's token: long enough for a lunch, too short for a forgotten terminal scrollback. */
export const oneTimeTokenSeconds = 24 * 3600
// A person who sets a system up the first time makes real users next.
const firstAdminTokenSeconds = 3600
// 256 bits, in front of them a mark by which secret scanners know it.
const tokenMark = 'sally_'
const tokenPattern = /^sally_[A-Za-z0-9_-]{43}$/
const applicationMark = 'sallyapp_'
const applicationPattern = /^sallyapp_[A-Za-z0-9_-]{43}$/
// A password that is longer is no password of a person, and hashing it is work for a stranger.
export const passwordCharactersMax = 1024
/** Six digits, and what people put around them. */
export const codeCharactersMax = 64

type Needs = Pick<ApiPorts, 'clock' | 'tokens' | 'passwords' | 'policy' | 'audit'>
type LoginNeeds = Needs & Pick<ApiPorts, 'secondFactors' | 'logins'>

/** What may be asked of a login that is no older: nobody who finds a browser open has that. */
export const freshLoginSeconds = 900
/** Age at which a browser's token is replaced … */
const tokenAgeSecondsMax = 3600
/** … and how long the old one still counts: other requests are on their way. */
const overlapSeconds = 60

export function mintToken(): string {
  return tokenMark + randomBytes(32).toString('base64url')
}

export function mintApplicationToken(): string {
  return applicationMark + randomBytes(32).toString('base64url')
}

export function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}

export interface Issued {
  token: string
  name: string
  roles: readonly string[]
  expiresAt: Date
}

/** What a person gives to log in. */
export interface Given {
  name: string
  password: Secret<string>
  /** The one-time code, when it was asked for. */
  code?: string | undefined
}

/**
 * Logs a user in. Throws `auth-throttled`, or `auth-failed` in the same words and time for a wrong
 * password, an unknown user, and one without a password or disabled; after a right password also
 * `second-factor-required` where a code is missing, and `auth-failed` for a wrong one.
 */
export async function logIn(
  ports: LoginNeeds, { name, password, code }: Given, address: string, ttlSeconds: number
): Promise<Issued> {
  ports.passwords.admit(address)
  const declared = await ports.policy.declared()
  const user = declared.users.get(name)
  const verifier = await ports.passwords.verifierOf(declared, name)
  const proved = await ports.passwords.matches(verifier, password)
  // Again, before anything is told: many guesses may have come at the same moment.
  ports.passwords.admit(address)
  const why = user === undefined
    ? 'unknown user'
    : user.verifier === undefined
      ? 'the user has no password'
      : !proved ? 'wrong password' : user.disabled ? 'the user is disabled' : undefined
  if (why !== undefined || user === undefined) return refuseLogin(ports, name, address, why ?? '')
  const factor = await ports.secondFactors.of(name, address)
  const passkeys = await ports.logins.passkeys.list(name)
  if (passkeys.length > 0 && (factor === undefined || code === undefined)) {
    return askForMore(ports, name, address, [passkeyWords, ...factor === undefined ? [] : [codeWords]])
  }
  if (factor !== undefined) {
    if (code === undefined) return askForMore(ports, name, address, [codeWords])
    const isRight = await factor.check(code)
    ports.passwords.admit(address)
    if (!isRight) return refuseLogin(ports, name, address, 'wrong one-time code')
  }
  ports.passwords.tried(address, true)
  const method = factor === undefined ? 'password' : 'password, one-time code'
  return issue(ports, { name: user.name, roles: user.roles, ttlSeconds, address, method })
}

const codeWords = 'code: of the authenticator app'
const passkeyWords = 'passkey: in the console, or in a browser after `sallyport login`'

/** Usually the client asks and comes again; where it does not, somebody has only the password. */
async function askForMore(
  ports: Needs, name: string, address: string, problems: readonly string[]
): Promise<never> {
  await ports.audit.append('second-factor.asked', name, address, { protocol: 'https' })
  throw new SallyportError('second-factor-required', { detail: name, problems })
}

/** Logs in whoever's passkey answered. Throws `auth-throttled`, `auth-failed`, `passkeys-unavailable`. */
export async function logInByPasskey(
  ports: LoginNeeds, answer: PasskeyAnswer, address: string, ttlSeconds: number
): Promise<Issued> {
  ports.passwords.admit(address)
  const found = await ports.logins.passkeys.check(answer)
  ports.passwords.admit(address)
  const user = (await ports.policy.declared()).users.get(found.user ?? '')
  const why = 'why' in found
    ? found.why
    : user === undefined ? 'unknown user' : user.disabled ? 'the user is disabled' : ofGroups(user)
  if (why !== undefined || user === undefined) {
    return refuseLogin(ports, found.user ?? '?', address, why ?? '')
  }
  ports.passwords.tried(address, true)
  return issue(ports, { name: user.name, roles: user.roles, ttlSeconds, address, method: 'passkey' })
}

/** Whoever logs in past the provider would keep the roles of groups that they have left. */
function ofGroups({ rolesFromGroups }: User): string | undefined {
  return rolesFromGroups === true ? 'roles of groups are given at the identity provider only' : undefined
}

/** Throws `fresh-login-required`. */
export function expectFresh({ name, login }: Caller, now: Date): void {
  const isFresh = login !== undefined && now.getTime() - login.at.getTime() <= freshLoginSeconds * 1000
  if (!isFresh) throw new SallyportError('fresh-login-required', { detail: name })
}

async function refuseLogin(ports: Needs, name: string, address: string, why: string): Promise<never> {
  ports.passwords.tried(address, false)
  await ports.audit.append('login.refused', name, address, { protocol: 'https', why })
  throw new SallyportError('auth-failed', { detail: `${name}: ${why}` })
}

/** Exchanges a one-time token for one of an hour; throws `auth-failed`, also at the second attempt. */
export async function redeem(ports: Needs, token: string, address: string): Promise<Issued> {
  ports.passwords.admit(address)
  const row = tokenPattern.test(token) ? await ports.tokens.redeem(hashToken(token)) : undefined
  ports.passwords.tried(address, row !== undefined)
  if (row === undefined) {
    const detail = { protocol: 'https', why: 'one-time token' }
    await ports.audit.append('login.refused', firstAdminName, address, detail)
    throw new SallyportError('auth-failed', { detail: 'the one-time token is unknown, used or expired' })
  }
  const { user: name, roles } = row
  return issue(ports, { name, roles, ttlSeconds: firstAdminTokenSeconds, address, method: 'one-time token' })
}

export interface Entering {
  name: string
  roles: TokenRow['roles']
  ttlSeconds: number
  address: string
  /** How it was proved. */
  method: string
  /** The proof is somebody's who confirmed this from elsewhere: it is none for anything else. */
  isRemote?: boolean | undefined
}

/** The token of somebody who has proved who they are. */
export async function issue(
  ports: Needs, { name, roles, ttlSeconds, address, method, isRemote = false }: Entering
): Promise<Issued> {
  const token = mintToken()
  const at = ports.clock.now()
  const expiresAt = new Date(at.getTime() + ttlSeconds * 1000)
  const detail = { protocol: 'https', method, expiresAt: expiresAt.toISOString() }
  await ports.audit.append('login', name, address, detail)
  const login = isRemote ? {} : { login: { method, at } }
  await ports.tokens.add(hashToken(token), { user: name, roles, expiresAt, oneTime: false, ...login })
  return { token, name, roles, expiresAt }
}

/** A token in place of the one that a browser has; undefined when another request is replacing it. */
export async function replaceToken(
  ports: Pick<ApiPorts, 'tokens'>, token: string, { roles }: Caller
): Promise<string | undefined> {
  const next = mintToken()
  return await ports.tokens.supersede(hashToken(token), hashToken(next), roles) ? next : undefined
}

/**
 * The token that the first start prints, or undefined when an admin exists or an unused one is still valid.
 * Whoever redeems it is `first-admin` for an hour.
 */
export async function createFirstAdminToken(
  ports: Pick<ApiPorts, 'clock' | 'tokens' | 'policy'>
): Promise<string | undefined> {
  const { users } = await ports.policy.declared()
  if ([...users.values()].some(user => user.roles.includes('admin') && !user.disabled)) return undefined
  if (await ports.tokens.hasOneTime()) return undefined
  const token = mintToken()
  const expiresAt = new Date(ports.clock.now().getTime() + oneTimeTokenSeconds * 1000)
  const row: TokenRow = { user: firstAdminName, roles: ['admin'], expiresAt, oneTime: true }
  await ports.tokens.add(hashToken(token), row)
  return token
}

/**
 * Makes the function that tells who a bearer token stands for; `localToken` is this start's, see
 * local-admin.ts; `metricsToken` is the configuration's, for whoever scrapes.
 */
export function createIdentify(
  ports: Pick<ApiPorts, 'clock' | 'tokens' | 'applicationTokens' | 'policy' | 'audit'>,
  localToken: Secret<string> | undefined, metricsToken?: Secret<string>
): (token: string | undefined, address: string) => Promise<Caller> {
  const [localHash, metricsHash] = [localToken, metricsToken].map(token =>
    token === undefined ? undefined : Buffer.from(hashToken(token.expose()), 'hex'))
  return async (token, address) => {
    if (token === undefined) throw new SallyportError('auth-required')
    const hash = hashToken(token)
    // The file proves that the caller is on this machine; a copy of it elsewhere proves nothing.
    if (localHash !== undefined && timingSafeEqual(localHash, Buffer.from(hash, 'hex'))) {
      if (isLoopback(address)) return { name: localAdminName, roles: ['admin'], how: 'local' }
      throw new SallyportError('auth-required', { detail: `local token from ${address}` })
    }
    if (metricsHash !== undefined && timingSafeEqual(metricsHash, Buffer.from(hash, 'hex'))) {
      return { name: 'metrics', roles: ['metrics'], how: 'token' }
    }
    if (applicationPattern.test(token)) return applicationOf(ports, hash, address)
    const row = tokenPattern.test(token) ? await ports.tokens.find(hash) : undefined
    if (row === undefined || row.oneTime) throw new SallyportError('auth-required')
    if (isOver(row, ports.clock.now())) {
      // Somebody has a copy of what was in a browser: whose login it is, nobody has it any more.
      await ports.tokens.remove(hash)
      await ports.audit.append('token.reused', row.user, address, { superseded: row.supersededAt })
      throw new SallyportError('auth-required', { detail: `a token of ${row.user} that was replaced` })
    }
    const { login } = row
    const how = { how: 'token' as const, family: row.family ?? hash, ...login === undefined ? {} : { login } }
    if (row.user === firstAdminName) return { name: row.user, roles: row.roles, ...how }
    const user: User | undefined = (await ports.policy.declared()).users.get(row.user)
    if (user !== undefined && !user.disabled) {
      const isDue = isDueAt(row, user, ports.clock.now())
      return { name: user.name, roles: user.roles, ...how, ...isDue ? { isDue } : {} }
    }
    throw new SallyportError('auth-required', { detail: `user ${row.user} is gone or disabled` })
  }
}

function isOver({ supersededAt }: StoredToken, now: Date): boolean {
  return supersededAt !== undefined && now.getTime() - supersededAt.getTime() > overlapSeconds * 1000
}

/** It is old, or the person may do something else than when it was made. */
function isDueAt({ createdAt, supersededAt, roles }: StoredToken, user: User, now: Date): boolean {
  if (createdAt === undefined || supersededAt !== undefined) return false
  const isOld = now.getTime() - createdAt.getTime() > tokenAgeSecondsMax * 1000
  return isOld || [...roles].sort().join() !== [...user.roles].sort().join()
}

/** A token counts while its application is declared and on, and from the networks that it is bound to. */
async function applicationOf(
  ports: Pick<ApiPorts, 'applicationTokens' | 'policy' | 'audit'>, hash: string, address: string
): Promise<Caller> {
  const row = await ports.applicationTokens.find(hash)
  if (row === undefined) throw new SallyportError('auth-required')
  const application = (await ports.policy.declared()).applications.get(row.application)
  const name = row.application
  if (application === undefined || application.disabled) {
    throw new SallyportError('auth-required', { detail: `application ${name} is gone or disabled` })
  }
  if (application.networks !== undefined && !isWithin(address, application.networks)) {
    // Whoever sits there has a valid token that is not theirs to have.
    await ports.audit.append('application.refused', `application/${name}`, address, { token: row.id })
    throw new SallyportError('auth-required', { detail: `application ${name} from ${address}` })
  }
  return { name, roles: ['application'], how: 'token' }
}

function isWithin(address: string, networks: readonly string[]): boolean {
  const list = new BlockList()
  for (const network of networks) {
    const [base = '', bits] = network.split('/')
    list.addSubnet(base, Number(bits), isIPv4(base) ? 'ipv4' : 'ipv6')
  }
  // What a socket of both families says of a client with an address of the older one.
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '')
  return isIP(plain) > 0 && list.check(plain, isIPv4(plain) ? 'ipv4' : 'ipv6')
}

function isLoopback(address: string): boolean {
  return /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(address) || address === '::1'
}
