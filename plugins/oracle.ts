// The plugin for Oracle Database: users that exist or are open only while a session lives. Built from the
// manual and run against a double at the driver's own interface (test/peers/oracle-double.ts); of a real
// server only the ways not to reach one were tried with the real driver. Local users of one database (PDB).
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Pinned, Plugin, Variables, Verified
} from '../src/jit/plugin.ts'
import type { Step, Template } from '../src/jit/template.ts'
import { mintTypedPassword } from '../src/jit/typed-password.ts'
import { Secret } from '../src/secret.ts'
import { isRefused } from './apart/words.ts'
import { keepHold, markerOf, takeAccount, whenQuiet } from './books.ts'
import {
  connectOracle, folded, isBound, openLink, passwordVerifier, passwordVerifierNow, refused
} from './oracle/link.ts'
import type { Connect, Link } from './oracle/link.ts'
import { advise, lint, plan } from './oracle/lint.ts'
import { probeWith } from './oracle/probe.ts'
import { clearAway, estateOf, verbs } from './oracle/verbs.ts'
import type { OracleRung } from './oracle/verbs.ts'
import { reading } from './reach.ts'
import { StepFailed, listOf, renderAll, walk, withBefore } from './steps.ts'
import { unfenced } from './unfenced.ts'

export const oracle: Plugin = oracleWith(connectOracle)

/** The plugin over some way of connecting. */
export function oracleWith(connect: Connect): Plugin {
  return {
    id: 'oracle',
    ...unfenced,
    variables: {
      username: 'name of the user',
      verifier: 'what 12c stores of a fresh password, for IDENTIFIED BY VALUES (secret)',
      password: 'the fresh password itself, for servers that take no VALUES (secret)',
      expires_at: 'end of the longest session, with some grace'
    },
    lint,
    advise,
    plan,
    mint: () => {
      const password = mintTypedPassword()
      return mintedOf(password, passwordVerifierNow(password.expose()))
    },
    async mintTyped() {
      const password = mintTypedPassword()
      return mintedOf(password, await passwordVerifier(password.expose()))
    },
    probe: probeWith(connect),
    run: (access, template, account, variables, context) =>
      run(connect, access, template, account, variables, context),
    verify: async (access, account, context, pinned) => {
      folded(account.name)
      const link = await openLink(connect, access, context)
      return await reading(link, access, () => seen(link, account, pinned))
    },
    listOwned: async (access, context) => {
      const link = await openLink(connect, access, context)
      return await reading(link, access, () => owned(link))
    }
  }
}

/** Letters and digits, below the 30 bytes that servers before 23ai take. */
function mintedOf(password: Secret<string>, verifier: string): Minted {
  return { inject: { kind: 'password', password }, variables: { verifier: new Secret(verifier), password } }
}

const heldVerbs = withBefore(verbs, ({ link, account }) => keepHold(link, account.name))

async function run(
  connect: Connect, access: Access, template: Template, account: AccountRef, variables: Variables,
  context: HookContext
): Promise<Outcome> {
  folded(account.name)
  const all = { ...variables, username: account.name }
  const rendered = renderAll(template, all)
  const link = await openLink(connect, access, context)
  const rung: OracleRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs: heldVerbs, statement, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin(rung: OracleRung): Promise<boolean> {
  const { link, account, template: { action } } = rung
  const there = await takeAccount(
    link, account, () => link.user(account.name), seen => isBound(seen, account))
  if (action === 'enable' && there === undefined) throw new StepFailed('there is no such user')
  if (there?.isMaintained === true) throw new StepFailed('the user is one of Oracle’s own', false)
  if (action === 'create' && there !== undefined) await clearAway(rung)
  if (action === 'create' || action === 'enable' || there !== undefined) return true
  await link.markGone(account.name)
  return (await link.sessions(account.name)).length > 0
}

async function statement({ link, account }: OracleRung, sql: string, { ignore }: Step): Promise<void> {
  await keepHold(link, account.name)
  try {
    await link.query(sql)
  } catch (error) {
    if (!isRefused(error) || !ignore.includes(String(error.number))) throw error
  }
}

/** Locked, deadlock, timed out, out of space, still connected: later it may work. */
const later: readonly number[] = [54, 60, 1013, 1536, 1653, 2049, 4021, 4068, refused.loggedIn]

function refusalOf(error: unknown): { retryable: boolean } | undefined {
  return isRefused(error) ? { retryable: later.includes(error.number) } : undefined
}

async function seen(link: Link, account: AccountRef, pinned: Pinned | undefined): Promise<Verified> {
  const { name, kind, accountId } = account
  // What an action is about to do counts.
  const marker = markerOf(await whenQuiet(link, name))
  const user = await link.user(name)
  const sessions = (await link.sessions(name)).length
  const exists = user !== undefined
  const open = user?.isLocked === false
  // What a live account has made is nobody's residue yet.
  const residue = kind === 'create' && exists && !open ? await estateOf(link, name, 'left') : []
  let enabled = open
  if (pinned?.template.proof === 'privileges') {
    const has = exists ? await link.roles(name) : []
    enabled = listOf(pinned, 'roles').some(role => has.includes(folded(role)))
  }
  const ours = exists && marker?.accountId === accountId && isBound(user, account)
  return { exists, enabled, sessions, ours, epoch: exists ? marker?.epoch : undefined, residue }
}

/** Users that our table names; names that were folded are ours as we wrote them. */
async function owned(link: Link): Promise<readonly Owned[]> {
  const found: Owned[] = []
  for (const { name, accountId } of await link.marked()) {
    const written = /^[A-Z][A-Z0-9_$#]*$/.test(name) ? name.toLowerCase() : `"${name}"`
    if (await link.user(written) !== undefined) found.push({ name: written, accountId })
  }
  return found
}
