// The plugin for Active Directory: accounts of a domain that exist, are switched on or are in groups only
// while a session or a lease lives. How an account stands is in link.ts, what steps do in verbs.ts. A domain
// checks the marker together with each change of it, but not our claim, so the runner looks before and after.
// A domain takes passwords over TLS only, and the end of an account (`accountExpires`) is kept by every
// domain controller without us.
import type {
  Access, AccountRef, HookContext, Minted, Outcome, Owned, Pinned, Plugin, Probe, Variables, Verified
} from '../src/jit/plugin.ts'
import type { Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { drawPassword, flag, markerAttribute, openLink } from './active-directory/link.ts'
import type { Link } from './active-directory/link.ts'
import { isMember, ours, verbs } from './active-directory/verbs.ts'
import type { DirectoryRung } from './active-directory/verbs.ts'
import { assertName, markerOf, refusalOf } from './ldap/directory.ts'
import { assertBase, attributesOf } from './ldap/values.ts'
import { reading, trustWarnings } from './reach.ts'
import {
  Foreign, StepFailed, assertOurs, listOf, orderAdvice, planSteps, prolonging, renderAll, verbOnlyProblems,
  walk
} from './steps.ts'
import { unfenced } from './unfenced.ts'

export const activeDirectory: Plugin = {
  id: 'active-directory',
  ...unfenced,
  variables: {
    username: 'sAMAccountName of the account, and the part of userPrincipalName before @',
    password: 'a fresh password of 229 bits (secret)',
    expires_at: 'end of the longest session, with some grace: for accountExpires'
  },
  lint: template => verbOnlyProblems(template, verbs, 'a domain', 'make-account'),
  advise: template => orderAdvice(template, 'remove-account', 'refuse-logins'),
  plan: (template, variables) => planSteps(template, {
    username: 'jit_0000000', expires_at: '2030-01-01T00:00:00Z', password: '********', ...variables
  }, verbs),
  mint,
  prolong: prolonging('active-directory', "do: move-end, with: { until: '{{ expires_at }}' }"),
  probe,
  run,
  verify,
  listOwned
}

/** Longer ones are refused for accounts of people, and so is a full stop at the end. */
const nameForm = /^[\w-][\w.-]{0,18}[\w-]$|^[\w-]$/

function mint(): Minted {
  const password = drawPassword()
  return {
    inject: { kind: 'password', password: new Secret(password) },
    variables: { password: new Secret(password) }
  }
}

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  assertName(account.name, nameForm)
  const all = { ...variables, username: account.name }
  const rendered = renderAll(template, all)
  attributesOf(listOf({ template, variables: all }, 'attributes'), ours)
  for (const [, { with: { base } }] of rendered.steps) if (base !== undefined) assertBase(base)
  const link = await openLink(access, context)
  const rung: DirectoryRung = { link, account, context, template, variables: all, residue: [] }
  try {
    return await walk(rung, rendered, { verbs, refusalOf }, () => begin(rung))
  } finally {
    link.close()
  }
}

async function begin({ link, account, template: { action } }: DirectoryRung): Promise<boolean> {
  const found = await link.standing(account.name)
  if (found?.isCritical === true) throw new Foreign(`${account.name} is an account of the system`)
  assertOurs(found !== undefined, found?.marker, account)
  if (found === undefined) {
    if (action === 'enable') throw new StepFailed('there is no such account')
    return action === 'create'
  }
  await link.mark(found, account)
  // Somebody may have its old password.
  if (action === 'create') await link.remove(found.dn)
  return true
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  assertName(account.name, nameForm)
  return await reading(await openLink(access, context), access, async link => {
    const found = await link.standing(account.name)
    if (found === undefined) {
      return { exists: false, enabled: false, ours: false, sessions: 0, residue: [] }
    }
    // What is hidden counts as open.
    const isOn = ((found.flags ?? 0) & flag.off) === 0
    const enabled = pinned?.template.proof === 'privileges'
      ? listOf(pinned, 'roles').some(role => isMember(found, role))
      : isOn
    const isOurs = found.marker?.accountId === account.accountId
    return { exists: true, enabled, ours: isOurs, epoch: found.marker?.epoch, sessions: 0, residue: [] }
  })
}

async function listOwned(access: Access, context: HookContext): Promise<readonly Owned[]> {
  return await reading(await openLink(access, context), access, async link => {
    const entries = await link.find(
      { startsWith: [markerAttribute, 'sallyport account='] }, ['sAMAccountName', markerAttribute])
    return entries.flatMap(entry => {
      const [name] = entry.attributes.get('samaccountname') ?? []
      const marker = markerOf(entry, markerAttribute)
      return name === undefined || marker === undefined ? [] : [{ name, accountId: marker.accountId }]
    })
  })
}

async function probe(access: Access, context: HookContext, variables: Variables = {}): Promise<Probe> {
  return await reading(await openLink(access, context), access, async link => {
    const { version, base } = await link.root()
    const warnings = trustWarnings(access)
    const missingRights = await link.read(base, ['1.1']) === undefined ? [`cannot read ${base}`] : []
    const { base: place, username, roles } = variables
    if (typeof place === 'string') missingRights.push(...await placeProblems(link, place))
    for (const role of Array.isArray(roles) ? roles.map(String) : []) {
      if (await mayWrite(link, role, 'member')) continue
      missingRights.push(`cannot change the members of ${role}, or it is not there: `
        + `dsacls "${role}" /G "${access.username}:RPWP;member"`)
    }
    if (typeof username === 'string') missingRights.push(...await accountProblems(link, username))
    const controllers = await countControllers(link)
    if (controllers > 1) {
      warnings.push(`${controllers} domain controllers: we look at this one; others follow when they have `
        + 'replicated')
    }
    return { version, missingRights, warnings }
  })
}

async function placeProblems(link: Link, place: string): Promise<string[]> {
  const entry = await link.read(place, ['allowedChildClassesEffective'])
  if (entry === undefined) return [`${place} is not there, or hidden`]
  const classes = entry.attributes.get('allowedchildclasseseffective') ?? []
  if (classes.some(name => name.toLowerCase() === 'user')) return []
  return [`cannot make accounts in ${place}: dsacls "${place}" /G "${link.access.username}:CCDC;user"`]
}

async function accountProblems(link: Link, username: string): Promise<string[]> {
  const found = await link.standing(username)
  if (found === undefined) return [`${username} is not there, or hidden`]
  const lacking: string[] = []
  for (const attribute of ['userAccountControl', 'accountExpires', markerAttribute]) {
    if (!await mayWrite(link, found.dn, attribute)) lacking.push(attribute)
  }
  if (lacking.length === 0) return []
  return [`cannot change ${lacking.join(', ')} of ${username}: `
    + `dsacls "${found.dn}" /G "${link.access.username}:GA"`]
}

/** The domain itself says what we may write. */
async function mayWrite(link: Link, dn: string, attribute: string): Promise<boolean> {
  const entry = await link.read(dn, ['allowedAttributesEffective'])
  const allowed = entry?.attributes.get('allowedattributeseffective') ?? []
  return allowed.some(name => name.toLowerCase() === attribute.toLowerCase())
}

async function countControllers(link: Link): Promise<number> {
  const { configuration } = await link.root()
  const found = await link.search({
    base: configuration, scope: 'sub', filter: { equal: ['objectClass', 'nTDSDSA'] }, attributes: ['1.1']
  })
  return found.length
}
