// The plugin for LDAP directories (OpenLDAP): accounts that exist, have a password or are in groups only
// while a session lives. How an account stands is in link.ts, what steps do in verbs.ts. The directory checks
// the marker together with each change of it, but not our claim, so the runner looks before and after.
import { createHash, randomBytes } from 'node:crypto'
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Pinned, Plugin, Probe, Residue, Variables,
  Verified
} from '../src/jit/plugin.ts'
import type { Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { assertName, escaped, refusalOf } from './ldap/directory.ts'
import { openLink } from './ldap/link.ts'
import type { Link } from './ldap/link.ts'
import { assertBase, attributesOf } from './ldap/values.ts'
import { verbs } from './ldap/verbs.ts'
import type { LdapRung } from './ldap/verbs.ts'
import { reading, trustWarnings } from './reach.ts'
import {
  StepFailed, assertOurs, listOf, orderAdvice, planSteps, prolonging, readMarker, renderAll,
  verbOnlyProblems, walk
} from './steps.ts'
import { unfenced } from './unfenced.ts'

export const ldap: Plugin = {
  id: 'ldap',
  ...unfenced,
  variables: {
    username: 'uid of the account',
    password_hash: 'salted SHA-1 ({SSHA}) of a fresh password of 256 bits (secret)',
    expires_at: 'end of the longest session, with some grace: for pwdEndTime'
  },
  lint: template => verbOnlyProblems(template, verbs, 'a directory', 'make-entry'),
  advise: template => orderAdvice(template, 'remove-entry', 'wait-for-sessions'),
  plan: (template, variables) => planSteps(template, {
    username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', password_hash: '********', ...variables
  }, verbs),
  mint,
  prolong: prolonging('ldap', "do: move-end, with: { until: '{{ expires_at }}' }"),
  probe,
  run,
  verify,
  listOwned
}

/** Random bits need no stretching; SSHA is what every OpenLDAP reads without a module. */
function mint(): Minted {
  const password = randomBytes(32).toString('base64url')
  const salt = randomBytes(16)
  const digest = createHash('sha1').update(password).update(salt).digest()
  const hash = `{SSHA}${Buffer.concat([digest, salt]).toString('base64')}`
  return {
    inject: { kind: 'password', password: new Secret(password) },
    variables: { password_hash: new Secret(hash) }
  }
}

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  assertName(account.name)
  const all = { ...variables, username: account.name }
  const rendered = renderAll(template, all)
  attributesOf(listOf({ template, variables: all }, 'attributes'))
  for (const [, { with: { base } }] of rendered.steps) if (base !== undefined) assertBase(base)
  const link = await openLink(access, context)
  const rung: LdapRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin({ link, account, template: { action } }: LdapRung): Promise<boolean> {
  const found = await link.standing(account.name)
  assertOurs(found !== undefined, found?.marker, account)
  if (found === undefined) {
    if (action === 'enable') throw new StepFailed('there is no such account')
    return action === 'create' || (await link.sessions(account.name, undefined) ?? 0) > 0
  }
  await link.mark(found, account)
  // Somebody may have its old password.
  if (action === 'create') await link.remove(found.dn)
  return true
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  assertName(account.name)
  const link = await openLink(access, context)
  return await reading(link, access, async open => await seen(open, account, pinned))
}

async function seen(link: Link, account: AccountRef, pinned: Pinned | undefined): Promise<Verified> {
  const found = await link.standing(account.name)
  const sessions = await link.sessions(account.name, found?.dn) ?? 0
  if (found === undefined) {
    const residue = await danglingIn(link, account, pinned)
    return { exists: false, enabled: false, ours: false, sessions, residue }
  }
  let enabled = found.hasPassword
  if (pinned?.template.proof === 'privileges') {
    const groups = (await link.groupsOf(found.dn, account.name)).map(group => group.toLowerCase())
    enabled = listOf(pinned, 'roles').some(role => groups.includes(role.toLowerCase()))
  }
  const ours = found.marker?.accountId === account.accountId
  return { exists: true, enabled, ours, epoch: found.marker?.epoch, sessions, residue: [] }
}

/** Groups that name an entry which is gone: whoever gets the name next would be in them. */
async function danglingIn(link: Link, { name }: AccountRef, pinned: Pinned | undefined): Promise<Residue[]> {
  const base = pinned?.variables['base']
  const dn = typeof base === 'string' ? `uid=${escaped(name)},${base}` : `uid=${escaped(name)}`
  const groups = await link.groupsOf(dn, name)
  return groups.map(group => ({ kind: 'group', name: `${group} names the account`, fate: 'left' }))
}

async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  return await reading(await openLink(access, context), access, async link => {
    const entries = await link.find(
      { startsWith: ['description', 'sallyport account='] }, ['uid', 'description'])
    return entries.flatMap(({ attributes }) => {
      const [name] = attributes.get('uid') ?? []
      const marker = (attributes.get('description') ?? []).map(readMarker).find(one => one !== undefined)
      return name === undefined || marker === undefined ? [] : [{ name, accountId: marker.accountId }]
    })
  })
}

async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  return await reading(await openLink(access, context), access, async link => {
    const { bases, hasPpolicy, version } = await link.root()
    const { username } = access
    const missingRights: string[] = []
    const warnings = trustWarnings(access)
    const rule = `access to * by dn.exact="${username}" manage by * break`
    for (const base of bases.length === 0 ? ['the base'] : bases) {
      if (await link.shows(base)) continue
      missingRights.push(`cannot read ${base}; give the login of the hooks the rule: ${rule}`)
    }
    if (!await link.seesPasswords()) {
      missingRights.push(`cannot see whether there is a password; first of all rules: access to `
        + `attrs=userPassword by dn.exact="${username}" manage by * break`)
    }
    const roles = Array.isArray(variables['roles']) ? variables['roles'].map(String) : []
    for (const role of roles) {
      if (!await link.shows(role)) missingRights.push(`the group ${role} is not there, or hidden: ${rule}`)
    }
    if (!hasPpolicy) warnings.push('no ppolicy overlay: no account is locked, or ends by itself')
    else warnings.push('pwdEndTime and locks hold only where a password policy with pwdLockout applies')
    if (await link.sessions('', undefined) === undefined) {
      warnings.push('connections cannot be seen: `database monitor` and read access to cn=Monitor show them')
    }
    return { version, missingRights, warnings }
  })
}
