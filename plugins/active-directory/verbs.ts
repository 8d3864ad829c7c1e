// What the steps of a template for Active Directory can do. Every value reaches the directory as a value. A
// removal switches the account off, then gives it a password that nobody knows, takes it out of its groups
// and deletes it: what the recycle bin brings back is then an account that opens nothing. No directory ends a
// connection or calls back a ticket, and none can be seen.
import { attributesOf } from '../ldap/values.ts'
import { escaped, isRefused, result } from '../ldap/directory.ts'
import { StepFailed, listOf, markerText } from '../steps.ts'
import type { Rung, Verbs } from '../steps.ts'
import { drawPassword, fileTime, flag, markerAttribute, passwordBytes } from './link.ts'
import type { Link, Standing } from './link.ts'

export interface DirectoryRung extends Rung {
  link: Link
}

/** Attributes that are the plugin's to set. */
export const ours = [
  'cn', 'name', 'objectclass', 'samaccountname', 'userprincipalname', 'unicodepwd', 'userpassword',
  'useraccountcontrol', 'accountexpires', 'pwdlastset', 'memberof', markerAttribute.toLowerCase()
]

export const verbs: Verbs<DirectoryRung> = {
  'make-account': {
    plan: 'add CN=…,BASE: user with our marker, the password, its end and userAccountControl 512',
    options: { base: true, password: true, until: false },
    lists: { attributes: false },
    act: makeAccount
  },
  'allow-logins': {
    plan: 'modify: the fresh password, bit 2 of userAccountControl cleared, no lockout, its end',
    options: { password: true, until: false },
    act: allowLogins
  },
  'move-end': {
    plan: 'modify: accountExpires',
    options: { until: true },
    act: async (rung, { until = '' }) =>
      await rung.link.set((await there(rung)).dn, { accountExpires: fileTime(until) })
  },
  'refuse-logins': {
    plan: 'modify: bit 2 of userAccountControl; then, twice, a password that nobody knows',
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
    act: async rung => {
      for (const group of listOf(rung, 'roles')) await leave(rung, group)
    }
  },
  'leave-groups': {
    plan: 'modify each group that has the account as a member: take it from member',
    act: leaveAll
  },
  'remove-account': {
    plan: 'delete the account; then look for it among the deleted objects',
    act: removeAccount
  }
}

async function there({ link, account }: DirectoryRung): Promise<Standing> {
  const found = await link.standing(account.name)
  if (found === undefined) throw new StepFailed('there is no such account')
  return found
}

function flagsOf({ flags }: Standing): number {
  if (flags === undefined) throw new StepFailed('it is no account, or userAccountControl is hidden', false)
  return flags
}

async function makeAccount(
  rung: DirectoryRung, { base = '', password = '', until }: Readonly<Record<string, string>>
): Promise<void> {
  const { link, account } = rung
  const domain = [...(await link.root()).base.matchAll(/(?:^|,)DC=([^,]+)/gi)].map(([, part]) => part)
  await link.add(`CN=${escaped(account.name)},${base}`, {
    ...attributesOf(listOf(rung, 'attributes'), ours),
    objectClass: ['user'],
    sAMAccountName: [account.name],
    userPrincipalName: [`${account.name}@${domain.join('.')}`],
    [markerAttribute]: [markerText(account)],
    unicodePwd: [passwordBytes(password)],
    userAccountControl: [String(flag.normal)],
    ...until === undefined ? {} : { accountExpires: [fileTime(until)] }
  })
}

async function allowLogins(
  rung: DirectoryRung, { password = '', until }: Readonly<Record<string, string>>
): Promise<void> {
  const found = await there(rung)
  // The old one would be taken for another hour.
  await rung.link.set(found.dn, { unicodePwd: passwordBytes(drawPassword()) })
  await rung.link.set(found.dn, {
    unicodePwd: passwordBytes(password),
    lockoutTime: '0',
    ...until === undefined ? {} : { accountExpires: fileTime(until) },
    // Other bits are people's, such as "password never expires".
    userAccountControl: String(flagsOf(found) & ~flag.off)
  })
}

async function refuseLogins({ link, account }: DirectoryRung): Promise<void> {
  const found = await link.standing(account.name)
  if (found === undefined) return
  // On its own: whatever there is against the passwords, the account is off.
  await link.set(found.dn, { userAccountControl: String(flagsOf(found) | flag.off) })
  // Twice: a domain takes the password before the present one for an hour (OldPasswordAllowedPeriod), should
  // somebody switch the account on again.
  for (let time = 0; time < 2; time++) await link.set(found.dn, { unicodePwd: passwordBytes(drawPassword()) })
}

async function addToGroups(rung: DirectoryRung): Promise<void> {
  const { dn } = await there(rung)
  for (const group of listOf(rung, 'roles')) await rung.link.join(group, dn)
}

/** "Unwilling" is the answer where it is no member, and the answer to much else: only a look tells. */
async function leave({ link, account }: DirectoryRung, group: string): Promise<void> {
  const found = await link.standing(account.name)
  if (found === undefined) return
  try {
    await link.modify(group, [{ operation: 'delete', attribute: 'member', values: [found.dn] }])
  } catch (error) {
    if (!isRefused(error, result.unwilling, result.noSuchAttribute, result.noSuchEntry)) throw error
    if (isMember(await link.standing(account.name), group)) throw error
  }
}

export function isMember(found: Standing | undefined, group: string): boolean {
  return found?.groups.some(one => one.toLowerCase() === group.toLowerCase()) === true
}

/** The deletion follows and ends every membership, so a group that it cannot leave does not hold it up. */
async function leaveAll(rung: DirectoryRung): Promise<void> {
  const found = await rung.link.standing(rung.account.name)
  for (const group of found?.groups ?? []) {
    try {
      await leave(rung, group)
    } catch (error) {
      if (!isRefused(error)) throw error
      const name = `${group}: the account comes back into it when somebody restores it`
      rung.residue.push({ kind: 'group', name, fate: 'left' })
    }
  }
}

async function removeAccount({ link, account, residue }: DirectoryRung): Promise<void> {
  const found = await link.standing(account.name)
  if (found === undefined) return
  try {
    await link.remove(found.dn)
  } catch (error) {
    if (!isRefused(error, result.notALeaf)) throw error
    throw new StepFailed('there are entries below the account: move or delete them')
  }
  for (const dn of await link.restorable(account.name)) {
    const name = `${dn.replaceAll('\n', ' ')}: off, its password unknown`
    residue.push({ kind: 'deleted-object', name, fate: 'left' })
  }
}
