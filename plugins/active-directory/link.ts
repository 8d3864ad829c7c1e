// A domain of Active Directory as hooks see it, and how an account stands there. Accounts are found by
// `sAMAccountName`, which is unique in the domain whatever the entry is; an account is off while bit 2 of
// userAccountControl is set. The marker is the value of `adminDescription`, which people rarely use and which
// has one value; `description` and `info` are theirs.
import { randomInt } from 'node:crypto'
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import type { Entry, Filter, Value } from '../../src/wire/ldap/client.ts'
import { Directory, isRefused, markerOf, openDirectory, result } from '../ldap/directory.ts'
import { StepFailed } from '../steps.ts'
import type { Marker } from '../steps.ts'

/** Bits of userAccountControl. */
export const flag = { off: 0x2, normal: 0x200 } as const

export const markerAttribute = 'adminDescription'
/** Domain controllers give 1000 entries at once unless they are asked for pages. */
const pageEntries = 500
/** LDAP_SERVER_SHOW_DELETED_OID: deleted objects are entries only to those who ask for them so. */
const showDeleted = '1.2.840.113556.1.4.417'

export interface Standing {
  dn: string
  marker: Marker | undefined
  /** userAccountControl; undefined when it is hidden, or the entry is no account. */
  flags: number | undefined
  /** Distinguished names; the primary group is not among them. */
  groups: readonly string[]
  /** Administrator, krbtgt and their like. */
  isCritical: boolean
}

export interface Root {
  /** Where accounts are looked for. */
  base: string
  /** Of the forest's configuration, which lists the domain controllers. */
  configuration: string
  version: string
}

export class Link extends Directory {
  #root: Root | undefined

  async root(): Promise<Root> {
    if (this.#root !== undefined) return this.#root
    const entry = await this.read('', [
      'defaultNamingContext', 'configurationNamingContext', 'vendorName', 'domainControllerFunctionality'
    ])
    const of = (name: string): string => entry?.attributes.get(name)?.[0] ?? ''
    const vendor = of('vendorname') || 'Active Directory'
    this.#root = {
      base: this.access.target.database ?? of('defaultnamingcontext'),
      configuration: of('configurationnamingcontext'),
      version: `${vendor}, functional level ${of('domaincontrollerfunctionality') || 'unknown'}`
    }
    return this.#root
  }

  async find(filter: Filter, attributes: readonly string[]): Promise<Entry[]> {
    return await this.search({
      base: (await this.root()).base, scope: 'sub', filter, attributes, pageEntries
    })
  }

  /** Undefined when there is no such account. */
  async standing(name: string): Promise<Standing | undefined> {
    const [entry] = await this.find({ equal: ['sAMAccountName', name] },
      [markerAttribute, 'userAccountControl', 'memberOf', 'isCriticalSystemObject'])
    if (entry === undefined) return undefined
    const flags = Number(entry.attributes.get('useraccountcontrol')?.[0])
    return {
      dn: entry.dn, marker: markerOf(entry, markerAttribute),
      flags: Number.isInteger(flags) ? flags : undefined,
      groups: entry.attributes.get('memberof') ?? [],
      isCritical: entry.attributes.get('iscriticalsystemobject')?.[0] === 'TRUE'
    }
  }

  /** Puts our epoch into the marker. @throws StepFailed when somebody else did meanwhile */
  async mark(standing: Standing, account: AccountRef): Promise<void> {
    try {
      await this.markIn(markerAttribute, standing, account)
    } catch (error) {
      if (!isRefused(error, result.valueExists, result.constraintViolation)) throw error
      throw new StepFailed(`${markerAttribute} of ${account.name} holds something else: clear it`, false)
    }
  }

  async set(dn: string, values: Readonly<Record<string, Value>>): Promise<void> {
    await this.modify(dn, Object.entries(values).map(
      ([attribute, value]) => ({ operation: 'replace', attribute, values: [value] })))
  }

  /** Deleted accounts of that name that whoever has the right can bring back, as far as we may see them. */
  async restorable(name: string): Promise<string[]> {
    try {
      const found = await this.search({
        base: `CN=Deleted Objects,${(await this.root()).base}`, scope: 'one', controls: [showDeleted],
        filter: { equal: ['sAMAccountName', name] }, attributes: ['isRecycled']
      })
      return found.filter(({ attributes }) => !attributes.has('isrecycled')).map(({ dn }) => dn)
    } catch (error) {
      if (isRefused(error, result.noSuchEntry, result.noAccess, result.unwilling)) return []
      throw error
    }
  }
}

/** Logs in as the hook's credential: a distinguished name or `name@domain`. @throws SallyportError */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  return await openDirectory(access, context, Link)
}

/**
 * A password that every policy for complexity takes: digits, capitals and small letters in turn, 229 bits. No
 * three letters stand together, so that it cannot contain the account's name.
 */
export function drawPassword(): string {
  const kinds = ['0123456789', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz']
  const draw = (from: string): string => from[randomInt(from.length)]!
  return Array.from({ length: 54 }, (_, at) => draw(kinds[at % kinds.length]!)).join('')
}

/** As `unicodePwd` wants it ([MS-ADTS] 3.1.1.3.1.5.1). */
export function passwordBytes(password: string): Uint8Array {
  return Buffer.from(`"${password}"`, 'utf16le')
}

/** The same instant in 100 ns since 1601. @throws SallyportError('invalid') */
export function fileTime(instant: string): string {
  const ms = Date.parse(instant)
  if (Number.isNaN(ms)) throw new SallyportError('invalid', { detail: '`until` is not an instant' })
  return String((BigInt(ms) + 11_644_473_600_000n) * 10_000n)
}
