// What every directory has in common, for the plugins that speak LDAP: the connection of the hook's login
// with its limits, names that become part of other names, and the marker of an account. It changes by taking
// the old value away and adding the new one in one modification, so that of two hooks that saw the same
// marker only one goes on.
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { LdapRefused, connectLdap } from '../../src/wire/ldap/client.ts'
import type { Change, Entry, LdapClient, Question, Value } from '../../src/wire/ldap/client.ts'
import { passwordOf, unreached } from '../reach.ts'
import { StepFailed, markerText, readMarker } from '../steps.ts'
import type { Marker } from '../steps.ts'

export const result = {
  noSuchAttribute: 16, undefinedType: 17, constraintViolation: 19, valueExists: 20, noSuchEntry: 32,
  noAccess: 50, unwilling: 53, objectClassViolation: 65, notALeaf: 66, entryExists: 68
} as const

export function isRefused(thrown: unknown, ...numbers: readonly number[]): thrown is LdapRefused {
  return thrown instanceof LdapRefused && (numbers.length === 0 || numbers.includes(thrown.number))
}

/** Busy, unavailable, or a lost race. */
const later = [51, 52]

export function refusalOf(error: unknown): { retryable: boolean } | undefined {
  return isRefused(error) ? { retryable: later.includes(error.number) } : undefined
}

/** A value as part of a distinguished name (RFC 4514 section 2.4). */
export function escaped(value: string): string {
  return value
    .replaceAll(/[\\",+;<=>]/g, '\\$&').replaceAll('\0', '\\00')
    .replace(/^[ #]/, '\\$&').replace(/ $/, '\\ ')
}

export class Directory {
  readonly access: Access
  readonly #client: LdapClient
  readonly #context: HookContext

  constructor(client: LdapClient, access: Access, context: HookContext) {
    this.#client = client
    this.access = access
    this.#context = context
  }

  /** @throws LdapRefused, ConnectionLost */
  async search(question: Question): Promise<Entry[]> {
    return await this.#client.search(question, this.#limitMs())
  }

  /** One entry, or none. */
  async read(dn: string, attributes: readonly string[], namesOnly = false): Promise<Entry | undefined> {
    try {
      const [entry] = await this.search(
        { base: dn, scope: 'base', filter: { present: 'objectClass' }, attributes, namesOnly })
      return entry
    } catch (error) {
      if (isRefused(error, result.noSuchEntry)) return undefined
      throw error
    }
  }

  async modify(dn: string, changes: readonly Change[]): Promise<void> {
    this.#context.signal.throwIfAborted()
    await this.#client.modify(dn, changes, this.#limitMs())
  }

  async add(dn: string, attributes: Readonly<Record<string, readonly Value[]>>): Promise<void> {
    this.#context.signal.throwIfAborted()
    await this.#client.add(dn, attributes, this.#limitMs())
  }

  async remove(dn: string): Promise<void> {
    this.#context.signal.throwIfAborted()
    try {
      await this.#client.delete(dn, this.#limitMs())
    } catch (error) {
      if (!isRefused(error, result.noSuchEntry)) throw error
    }
  }

  /** Puts our epoch into the marker. @throws StepFailed when somebody else did meanwhile */
  async markIn(
    attribute: string, { dn, marker }: { dn: string, marker: Marker | undefined }, account: AccountRef
  ): Promise<void> {
    const old = marker === undefined ? undefined : markerText({ ...account, ...marker })
    if (old === markerText(account)) return
    try {
      await this.modify(dn, [
        ...old === undefined ? [] : [{ operation: 'delete', attribute, values: [old] } as const],
        { operation: 'add', attribute, values: [markerText(account)] }
      ])
    } catch (error) {
      if (!isRefused(error, result.noSuchAttribute)) throw error
      throw new StepFailed(`another hook is acting on ${account.name}`)
    }
  }

  /** Makes an entry a member of a group; it may be one already. */
  async join(group: string, dn: string): Promise<void> {
    try {
      await this.modify(group, [{ operation: 'add', attribute: 'member', values: [dn] }])
    } catch (error) {
      if (!isRefused(error, result.valueExists, result.entryExists)) throw error
    }
  }

  close(): void {
    this.#client.close()
  }

  #limitMs(): number {
    return this.#context.statementTimeoutMs
  }
}

/** The marker among the values of an entry's attribute. */
export function markerOf(entry: Entry, attribute: string): Marker | undefined {
  const values = entry.attributes.get(attribute.toLowerCase()) ?? []
  return values.map(readMarker).find(one => one !== undefined)
}

/** Logs in as the hook's credential. @throws SallyportError */
export async function openDirectory<D extends Directory>(
  access: Access, context: HookContext,
  make: new (client: LdapClient, access: Access, context: HookContext) => D
): Promise<D> {
  const { target, username } = access
  const password = passwordOf(access)
  const limitMs = context.connectTimeoutMs
  try {
    const client = await connectLdap({
      host: target.host, port: target.port, tls: target.tls, username, password: () => password,
      timeouts: { connectMs: limitMs, tlsMs: limitMs, loginMs: limitMs },
      signal: AbortSignal.any([context.signal, AbortSignal.timeout(limitMs)])
    })
    return new make(client, access, context)
  } catch (error) {
    throw unreached(error, target, context.signal)
  }
}

/** @throws SallyportError('invalid') for a name that is not one plain word */
export function assertName(name: string, form = /^[\w.@-]{1,128}$/): void {
  if (form.test(name)) return
  throw new SallyportError('invalid', { detail: 'the name of the account is not one plain word' })
}
