// What the steps of an LDAP template can do. Every value reaches the directory as a value: names are escaped
// where they become part of a distinguished name, filters and entries are built and not written. A directory
// ends no connection: whoever is bound stays bound, so a removal takes the password, the groups and the entry
// first, and then waits.
import { StepFailed, endUntilNone, listOf, markerText } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { attributesOf, generalized } from './values.ts'
import { escaped, isRefused, result } from './directory.ts'
import { lockedForEver } from './link.ts'
import type { Link, Standing } from './link.ts'

export interface LdapRung extends Rung {
  link: Link
}

/** Applications keep their connections: no use in waiting long with the target's queue in hand. */
const waitMs = 2000

export const verbs: Verbs<LdapRung> = {
  'make-entry': {
    plan: 'add uid=…,BASE: inetOrgPerson with our marker, the hash of the password and, with ppolicy, '
      + 'its end',
    options: { base: true, password: true, until: false },
    lists: { attributes: false },
    act: makeEntry
  },
  'allow-logins': {
    plan: 'modify: the hash of the fresh password, no lock, its end',
    options: { password: true, until: false },
    act: allowLogins
  },
  'move-end': {
    plan: 'modify: pwdEndTime, where the directory has ppolicy',
    options: { until: true },
    act: moveEnd
  },
  'refuse-logins': {
    plan: 'modify: no userPassword, and the lock of ppolicy',
    act: refuseLogins
  },
  'add-to-groups': {
    plan: 'modify each group in roles: add the account to member',
    lists: { roles: false },
    act: addToGroups
  },
  'take-from-groups': {
    plan: 'modify each group in roles: take the account from member',
    lists: { roles: true },
    act: rung => leave(rung, listOf(rung, 'roles'))
  },
  'leave-groups': {
    plan: 'search every group that has the account as a member, and take it out',
    act: leaveAll
  },
  'remove-entry': {
    plan: 'delete the entry',
    act: async ({ link, account }) => {
      const found = await link.standing(account.name)
      if (found !== undefined) await link.remove(found.dn)
    }
  },
  'wait-for-sessions': {
    plan: 'wait until no connection is bound as the account (cn=Monitor); a directory ends none itself',
    act: waitForSessions
  }
}

async function there({ link, account }: LdapRung): Promise<Standing> {
  const found = await link.standing(account.name)
  if (found === undefined) throw new StepFailed('there is no such account')
  return found
}

/** A value without a scheme would be the password itself, for everybody to read who may read the entry. */
function passwordHash({ password = '' }: Readonly<Record<string, string>>): string {
  if (!/^\{[A-Z0-9-]{3,20}\}./.test(password)) throw new StepFailed('`password` is no hash', false)
  return password
}

/** Name and value of the end of a password, where the directory knows of one. */
async function endOf({ link }: LdapRung, until: string | undefined): Promise<string | undefined> {
  return until !== undefined && (await link.root()).hasPpolicy ? generalized(until) : undefined
}

async function makeEntry(
  rung: LdapRung, options: Readonly<Record<string, string>>
): Promise<void> {
  const { base = '', until } = options
  const { link, account } = rung
  const end = await endOf(rung, until)
  const more = attributesOf(listOf(rung, 'attributes'))
  await link.add(`uid=${escaped(account.name)},${base}`, {
    ...more,
    objectClass: ['inetOrgPerson', ...more['objectClass'] ?? []],
    uid: [account.name], cn: [account.name], sn: [account.name],
    description: [markerText(account)],
    userPassword: [passwordHash(options)],
    ...end === undefined ? {} : { pwdEndTime: [end] }
  })
}

async function allowLogins(rung: LdapRung, options: Readonly<Record<string, string>>): Promise<void> {
  const { dn } = await there(rung)
  const end = await endOf(rung, options['until'])
  await rung.link.modify(dn, [
    { operation: 'replace', attribute: 'userPassword', values: [passwordHash(options)] },
    ...(await rung.link.root()).hasPpolicy
      ? [{ operation: 'replace', attribute: 'pwdAccountLockedTime', values: [] } as const]
      : [],
    ...end === undefined ? [] : [{ operation: 'replace', attribute: 'pwdEndTime', values: [end] } as const]
  ])
}

async function moveEnd(rung: LdapRung, { until }: Readonly<Record<string, string>>): Promise<void> {
  const { dn } = await there(rung)
  const end = await endOf(rung, until)
  if (end === undefined) return
  await rung.link.modify(dn, [{ operation: 'replace', attribute: 'pwdEndTime', values: [end] }])
}

async function refuseLogins({ link, account }: LdapRung): Promise<void> {
  const found = await link.standing(account.name)
  if (found === undefined) return
  await link.modify(found.dn, [{ operation: 'replace', attribute: 'userPassword', values: [] }])
  if (!(await link.root()).hasPpolicy) return
  try {
    const values = [lockedForEver]
    await link.modify(found.dn, [{ operation: 'replace', attribute: 'pwdAccountLockedTime', values }])
  } catch (error) {
    // ppolicy may serve another part of the directory; the password is gone all the same.
    if (!isRefused(error, result.undefinedType)) throw error
  }
}

async function addToGroups(rung: LdapRung): Promise<void> {
  const { dn } = await there(rung)
  for (const group of listOf(rung, 'roles')) await rung.link.join(group, dn)
}

async function leave(rung: LdapRung, groups: readonly string[]): Promise<void> {
  const found = await rung.link.standing(rung.account.name)
  if (found === undefined) return
  for (const group of groups) {
    try {
      await rung.link.modify(group, [{ operation: 'delete', attribute: 'member', values: [found.dn] }])
    } catch (error) {
      if (isRefused(error, result.objectClassViolation)) {
        throw new StepFailed(`it is the last member of ${group}, which must have one: keep another in it`)
      }
      if (!isRefused(error, result.noSuchAttribute, result.noSuchEntry)) throw error
    }
  }
}

/** The deletion of the entry follows, so a group that it cannot leave is listed and does not hold it up. */
async function leaveAll(rung: LdapRung): Promise<void> {
  const { link, account, residue } = rung
  const found = await link.standing(account.name)
  if (found === undefined) return
  for (const group of await link.groupsOf(found.dn, account.name)) {
    for (const [attribute, value] of
      [['member', found.dn], ['uniqueMember', found.dn], ['memberUid', account.name]] as const) {
      try {
        await link.modify(group, [{ operation: 'delete', attribute, values: [value] }])
      } catch (error) {
        if (isRefused(error, result.objectClassViolation)) {
          residue.push({ kind: 'group', name: `${group} (the account is its last member)`, fate: 'left' })
        } else if (!isRefused(error, result.noSuchAttribute, result.undefinedType)) throw error
      }
    }
  }
}

async function waitForSessions(rung: LdapRung): Promise<void> {
  const { link, account, context } = rung
  const endsMs = context.remainingMs() - waitMs
  await endUntilNone(rung, async () => {
    const found = await link.standing(account.name)
    const left = await link.sessions(account.name, found?.dn) ?? 0
    if (left > 0 && context.remainingMs() < endsMs) {
      throw new StepFailed(`${left} connections are still bound as it; see idletimeout of the directory`)
    }
    return left
  })
}
