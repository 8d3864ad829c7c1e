// The plugin for MariaDB and MySQL: accounts that exist, are open or have roles only while a session lives.
// The server keeps no marker on an account and knows no transactions of accounts, so both are made up for
// here: a table of our own says who is ours, a named lock keeps nodes apart (link.ts), each step looks first
// (verbs.ts), and the runner looks before and after.
import { randomBytes } from 'node:crypto'
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Pinned, Plugin, Variables, Verified
} from '../src/jit/plugin.ts'
import type { Step, Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { nativeVerifier } from '../src/wire/mysql/packet.ts'
import { advise, assertShared, lint, plan } from './mysql/lint.ts'
import { isRefused, openLink, quoted } from './mysql/link.ts'
import type { Link } from './mysql/link.ts'
import { probe } from './mysql/probe.ts'
import { clearAway, markGone, verbs } from './mysql/verbs.ts'
import type { MysqlRung } from './mysql/verbs.ts'
import { reading } from './reach.ts'
import { StepFailed, listOf, prolonging, renderAll, walk } from './steps.ts'
import { unfenced } from './unfenced.ts'

export const mysql: Plugin = {
  id: 'mysql',
  ...unfenced,
  variables: {
    username: 'name of the account',
    verifier: 'what mysql_native_password stores of a fresh password (secret)',
    expires_at: 'end of the longest session, with some grace: for arm-deadline'
  },
  lint,
  advise,
  plan,
  mint,
  prolong: prolonging('mysql', "do: arm-deadline, with: { at: '{{ expires_at }}' }"),
  probe,
  run,
  verify,
  listOwned
}

/** 256 random bits: the target gets only their double hash, from which nobody can log in. */
function mint(): Minted {
  const password = randomBytes(32).toString('base64url')
  return {
    inject: { kind: 'password', password: new Secret(password) },
    variables: { verifier: new Secret(nativeVerifier(password)) }
  }
}

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  quoted(account.name)
  const all = { ...variables, username: account.name }
  const rendered = renderAll(template, all)
  for (const [step, { sql }] of [...rendered.steps, ...rendered.undo]) assertShared(sql ?? '', step.name)
  const link = await openLink(access, context)
  const rung: MysqlRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs, statement, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin(rung: MysqlRung): Promise<boolean> {
  const { link, account, template: { action } } = rung
  const hosts = await link.take(account)
  if (action === 'enable' && hosts.length === 0) throw new StepFailed('there is no such account')
  if (action === 'create' && hosts.length > 0) await clearAway(rung)
  if (action === 'create' || action === 'enable' || hosts.length > 0) return true
  await markGone(link, account.name)
  return (await link.sessions(account.name)).length > 0
}

async function statement({ link }: MysqlRung, sql: string, { ignore }: Step): Promise<void> {
  try {
    await link.query(sql)
  } catch (error) {
    if (!isRefused(error) || !ignore.includes(String(error.number))) throw error
  }
}

/** Busy, full, shutting down, a lost race: later it may work. */
const later = [1040, 1053, 1203, 1205, 1213, 1226, 1290, 1317, 1969]

function refusalOf(error: unknown): { retryable: boolean } | undefined {
  return isRefused(error) ? { retryable: later.includes(error.number) } : undefined
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  quoted(account.name)
  return await reading(await openLink(access, context), access, async link => {
    // What an action is about to do counts.
    await link.lock(account.name)
    return await seen(link, account, pinned)
  })
}

async function seen(link: Link, account: AccountRef, pinned: Pinned | undefined): Promise<Verified> {
  const { name, kind, accountId } = account
  const hosts = await link.hosts(name)
  const marker = await link.marker(name)
  const sessions = (await link.sessions(name)).length
  const exists = hosts.length > 0
  const open = hosts.some(({ locked }) => !locked)
  // What a live account has made is nobody's residue yet.
  const left = kind === 'create' && !open ? await link.query(link.dialect.definers(name)) : []
  let enabled = open
  if (pinned?.template.proof === 'privileges') {
    const roles = (await link.query(link.dialect.roles(name))).map(([role]) => role ?? '')
    enabled = listOf(pinned, 'roles').some(role => roles.includes(role))
  }
  return {
    exists, enabled, sessions,
    ours: exists && marker?.accountId === accountId, epoch: exists ? marker?.epoch : undefined,
    residue: left.map(([what, where]) =>
      ({ kind: what ?? 'object', name: `${where ?? ''} (its definer is gone)`, fate: 'left' }))
  }
}

/** Accounts that our table names. */
async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  return await reading(await openLink(access, context), access, async link => {
    const owned: Owned[] = []
    for (const { name, accountId } of await link.marked()) {
      if ((await link.hosts(name)).length > 0) owned.push({ name, accountId })
    }
    return owned
  })
}
