// The plugin for Redis 7 and later (and what speaks like it): accounts of the ACL that exist, or are on, only
// while a session lives. Their marker is part of the ACL (link.ts); what they may do is a list of rules
// (rules.ts); the steps are verbs (verbs.ts). Redis cannot check our claim together with an effect, so the
// runner looks before and after, and it has no clock for accounts: nothing there ends one by itself.
import { createHash, randomBytes } from 'node:crypto'
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Plugin, Probe, Variables, Verified
} from '../src/jit/plugin.ts'
import type { Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { reading, trustWarnings } from './reach.ts'
import { assertName, isRefused, openLink, readMarker } from './redis/link.ts'
import type { Link } from './redis/link.ts'
import { rulesOf, tooStrong } from './redis/rules.ts'
import { verbs } from './redis/verbs.ts'
import type { RedisRung } from './redis/verbs.ts'
import {
  StepFailed, assertOurs, orderAdvice, planSteps, renderAll, stepsOf, verbProblems, walk
} from './steps.ts'
import { unfenced } from './unfenced.ts'

export const redis: Plugin = {
  id: 'redis',
  ...unfenced,
  variables: {
    username: 'name of the account',
    password_sha256: 'SHA-256 of a fresh password, which is what Redis keeps of it (secret)',
    expires_at: 'end of the longest session; Redis has no use for it'
  },
  lint,
  advise,
  plan: (template, variables) => {
    rulesOf({ template, variables })
    return planSteps(template, { username: 'jit_0000000', password_sha256: '********', ...variables }, verbs)
  },
  mint,
  prolong: 'none',
  probe,
  run,
  verify,
  listOwned
}

function mint(): Minted {
  const password = randomBytes(32).toString('base64url')
  const digest = createHash('sha256').update(password).digest('hex')
  return {
    inject: { kind: 'password', password: new Secret(password) },
    variables: { password_sha256: new Secret(digest) }
  }
}

function lint(template: Template): string[] {
  const problems = verbProblems(template, verbs, 'Redis')
  for (const [path, step] of stepsOf(template)) {
    if (step.sql !== undefined) problems.push(`${path}.sql: Redis has no SQL; write do`)
    if (step.ignore.length > 0) problems.push(`${path}.ignore: is for sql steps`)
  }
  if (template.proof === 'privileges') problems.push('proof: Redis has no roles that could come and go')
  const declared = template.variables['commands']?.default
  if (Array.isArray(declared)) {
    for (const word of tooStrong(declared.map(String))) {
      problems.push(`variables.commands: ${word} lets the account outlive its session: put -@admin after it`)
    }
  }
  return problems
}

function advise(template: Template): string[] {
  const advice = orderAdvice(template, 'remove-user')
  if (!template.steps.some(step => step.do === 'save')) {
    advice.push('steps: no save: a restart of the server takes back what was done, where it has an ACL file')
  }
  return advice
}

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  assertName(account.name)
  const all = { ...variables, username: account.name }
  const rendered = renderAll(template, all)
  rulesOf({ template, variables: all })
  const link = await openLink(access, context)
  const rung: RedisRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin({ link, account, template: { action } }: RedisRung): Promise<boolean> {
  const found = await link.standing(account.name)
  assertOurs(found !== undefined, found?.marker, account)
  if (action === 'enable' && found === undefined) throw new StepFailed('there is no such account')
  // Somebody may have its old password, and be in.
  if (action === 'create' && found !== undefined) await link.send('ACL', 'DELUSER', account.name)
  const opening = action === 'create' || action === 'enable'
  return opening || found !== undefined || await link.sessions(account.name) > 0
}

function refusalOf(error: unknown): { retryable: boolean } | undefined {
  if (!isRefused(error)) return undefined
  return { retryable: ['LOADING', 'BUSY', 'TRYAGAIN', 'OOM'].includes(error.code) }
}

async function verify(access: Access, account: AccountRef, context: HookContext): Promise<Verified> {
  assertName(account.name)
  return await reading(await openLink(access, context), access, async link => {
    const found = await link.standing(account.name)
    return {
      exists: found !== undefined, enabled: found?.on === true,
      ours: found?.marker?.accountId === account.accountId, epoch: found?.marker?.epoch,
      sessions: await link.sessions(account.name), residue: []
    }
  })
}

async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  return await reading(await openLink(access, context), access, async link => {
    const lines = await link.send('ACL', 'LIST')
    return (Array.isArray(lines) ? lines : []).flatMap(line => {
      const marker = readMarker(String(line))
      const [, name] = /^user (\S+) /.exec(String(line)) ?? []
      return marker === undefined || name === undefined ? [] : [{ name, accountId: marker.accountId }]
    })
  })
}

/** Commands that hooks send, in a form that the server can judge without carrying them out. */
const needed: readonly (readonly string[])[] = [
  ['ACL', 'SETUSER', 'x'], ['ACL', 'GETUSER', 'x'], ['ACL', 'DELUSER', 'x'], ['ACL', 'LIST'], ['ACL', 'SAVE'],
  ['ACL', 'DRYRUN', 'x', 'PING'], ['CLIENT', 'LIST'], ['CLIENT', 'KILL', 'USER', 'x'], ['INFO']
]

async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  return await reading(await openLink(access, context), access, async link => {
    const missingRights: string[] = []
    for (const words of needed) {
      const right = words.slice(0, words[0] === 'INFO' ? 1 : 2).join('|').toLowerCase()
      if (await allowed(link, access.username, words)) continue
      missingRights.push(`may not run ${right.replace('|', ' ')}: ACL SETUSER ${access.username} +${right}`)
    }
    const account = variables['username']
    const absent = typeof account === 'string' && missingRights.length === 0
      && await link.standing(account) === undefined
    if (absent) missingRights.push(`the account ${account} does not exist: ACL SETUSER ${account} off`)
    return {
      version: await versionOf(link), missingRights,
      warnings: [
        ...trustWarnings(access), ...await fileWarnings(link),
        'ACL SETUSER reaches every account: guard this login as you guard the server'
      ]
    }
  })
}

/** Asks the server, or, where even that is forbidden, assumes that the rest is as well. */
async function allowed(link: Link, login: string, words: readonly string[]): Promise<boolean> {
  try {
    return await link.send('ACL', 'DRYRUN', login, ...words) === 'OK'
  } catch (error) {
    if (isRefused(error)) return false
    throw error
  }
}

async function versionOf(link: Link): Promise<string> {
  try {
    const info = String(await link.send('INFO', 'server'))
    return /^(?:redis|valkey)_version:(\S+)/m.exec(info)?.[1] ?? 'Redis'
  } catch (error) {
    if (!isRefused(error)) throw error
    return 'Redis'
  }
}

async function fileWarnings(link: Link): Promise<string[]> {
  try {
    const found = await link.send('CONFIG', 'GET', 'aclfile')
    if (Array.isArray(found) && found[1] !== '') return []
    return ['no aclfile is set: accounts live in memory, and CONFIG REWRITE would write them down']
  } catch (error) {
    if (isRefused(error)) return []
    throw error
  }
}
