// The plugin for Microsoft SQL Server: logins, and their users in databases, that exist or are open only
// while a session lives. Built from the manual and run against a double that the stock driver talks to
// (test/peers/mssql-server.ts): no server of Microsoft's was at hand. Logins on a server only: not Azure SQL
// Database, and no users with passwords of contained databases.
import { randomBytes } from 'node:crypto'
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Pinned, Plugin, Variables, Verified
} from '../src/jit/plugin.ts'
import type { Step, Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { isRefused } from './apart/words.ts'
import { keepHold, markerOf, takeAccount, whenQuiet } from './books.ts'
import { serverEstate, usersLeft } from './mssql/estate.ts'
import { isBound, openLink, passwordHash, quoted, refused, sidOf } from './mssql/link.ts'
import type { Link } from './mssql/link.ts'
import { advise, lint, plan } from './mssql/lint.ts'
import { probe } from './mssql/probe.ts'
import { clearAway, verbs } from './mssql/verbs.ts'
import type { MssqlRung } from './mssql/verbs.ts'
import { reading } from './reach.ts'
import { StepFailed, listOf, renderAll, textOf, walk, withBefore } from './steps.ts'
import { unfenced } from './unfenced.ts'

export const mssql: Plugin = {
  id: 'mssql',
  ...unfenced,
  variables: {
    username: 'name of the login',
    verifier: 'hash of a fresh password, for PASSWORD = … HASHED (secret)',
    sid: 'SID that marks the login as ours',
    expires_at: 'end of the longest session, with some grace'
  },
  lint,
  advise,
  plan,
  mint,
  probe,
  run,
  verify,
  listOwned
}

/** 256 random bits: the statement holds a salted hash of them, from which nobody can log in. */
function mint(): Minted {
  const password = randomBytes(32).toString('base64url')
  return {
    inject: { kind: 'password', password: new Secret(password) },
    variables: { verifier: new Secret(passwordHash(password)) }
  }
}

const heldVerbs = withBefore(verbs, ({ link, account }) => keepHold(link, account.name))

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  quoted(account.name)
  const all = { ...variables, username: account.name, sid: sidOf(account) }
  const rendered = renderAll(template, all)
  const link = await openLink(access, context)
  const rung: MssqlRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs: heldVerbs, statement, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin(rung: MssqlRung): Promise<boolean> {
  const { link, account, template: { action } } = rung
  const seen = await takeAccount(
    link, account, () => link.login(account.name), seen => isBound(seen, account))
  if (action === 'enable' && seen === undefined) throw new StepFailed('there is no such login')
  if (action === 'enable' && seen?.kind !== 'S') {
    throw new StepFailed('the login has no password of its own', false)
  }
  if (action === 'create' && seen !== undefined) await clearAway(rung)
  if (action === 'create' || action === 'enable' || seen !== undefined) return true
  // The login is gone; users and sessions of it may have stayed.
  const left = await usersLeft(link, sidOf(account))
  if (action === 'delete' && left.some(({ kind }) => kind === 'user')) return true
  await link.markGone(account.name)
  return (await link.sessions(account.name)).length > 0
}

async function statement({ link, account }: MssqlRung, sql: string, { ignore }: Step): Promise<void> {
  await keepHold(link, account.name)
  try {
    await link.query(sql)
  } catch (error) {
    if (!isRefused(error) || !ignore.includes(String(error.number))) throw error
  }
}

/** Deadlock, lock or memory not had in time, shutting down, still logged in: later it may work. */
const later: readonly number[] = [701, 1204, 1205, 1222, 6005, 8645, refused.loggedIn]

function refusalOf(error: unknown): { retryable: boolean } | undefined {
  return isRefused(error) ? { retryable: later.includes(error.number) } : undefined
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  quoted(account.name)
  return await reading(await openLink(access, context), access, link => seen(link, account, pinned))
}

async function seen(link: Link, account: AccountRef, pinned: Pinned | undefined): Promise<Verified> {
  // What an action is about to do counts.
  const marker = markerOf(await whenQuiet(link, account.name))
  const login = await link.login(account.name)
  const sessions = (await link.sessions(account.name)).length
  const open = login?.isDisabled === false
  const sid = login?.sid ?? sidOf(account)
  const bound = login === undefined || isBound(login, account)
  // What a live account has made is nobody's residue yet.
  const residue = account.kind === 'create' && !open && bound
    ? [...await usersLeft(link, sid), ...await serverEstate(link, sid)]
    : []
  // Somebody else may have dropped the login: users with its SID are still to be removed.
  const exists = login !== undefined || residue.some(({ kind }) => kind === 'user')
  let enabled = open
  if (pinned?.template.proof === 'privileges') {
    const has = exists ? await link.roles(textOf(pinned, 'database'), sid) : []
    enabled = listOf(pinned, 'roles').some(role => has.includes(role))
  }
  const ours = exists && bound && marker?.accountId === account.accountId
  return { exists, enabled, sessions, ours, epoch: exists ? marker?.epoch : undefined, residue }
}

/** Logins that our table names. */
async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  return await reading(await openLink(access, context), access, async link => {
    const owned: Owned[] = []
    for (const { name, accountId } of await link.marked()) {
      const login = await link.login(name)
      if (login !== undefined) owned.push({ name, accountId })
    }
    return owned
  })
}
