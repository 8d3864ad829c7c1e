// The plugin's connection to Redis, and what it reads there about an account. The marker stands in the ACL
// itself, as a selector that allows nothing: it lives and dies with the account and is saved with it, and
// only who may change ACLs can change it. Nothing of ours is among the keys, which accounts can write.
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { RedisRefused, connectRedis } from '../../src/wire/redis/client.ts'
import type { RedisClient, Reply } from '../../src/wire/redis/client.ts'
import { passwordOf, unreached } from '../reach.ts'
import type { Marker } from '../steps.ts'

const markerForm = /~sallyport\/([^\s/()]{1,100})\/(\d{1,15})(?=[\s)]|$)/

export interface Standing {
  on: boolean
  marker: Marker | undefined
  /** Selectors other than our marker, as SETUSER takes them. */
  selectors: readonly string[]
}

export function isRefused(thrown: unknown): thrown is RedisRefused {
  return thrown instanceof RedisRefused
}

/** The selector that says whose the account is. */
export function markerOf({ accountId, epoch }: AccountRef): string {
  return `(~sallyport/${accountId}/${epoch} -@all)`
}

export function readMarker(text: string): Marker | undefined {
  const [, accountId, epoch] = markerForm.exec(text) ?? []
  return accountId === undefined ? undefined : { accountId, epoch: Number(epoch) }
}

/** A name that Redis takes and that is one word of a list of clients. @throws SallyportError('invalid') */
export function assertName(name: string): void {
  if (/^[\x21-\x7e]{1,128}$/.test(name) && name !== 'default') return
  throw new SallyportError('invalid', { detail: 'the name of the account is not one word of ASCII' })
}

export class Link {
  readonly #client: RedisClient
  readonly #context: HookContext

  constructor(client: RedisClient, context: HookContext) {
    this.#client = client
    this.#context = context
  }

  /** @throws RedisRefused, ConnectionLost, or the signal's reason before anything is sent */
  async send(...words: readonly string[]): Promise<Reply> {
    this.#context.signal.throwIfAborted()
    return await this.#client.command(words, this.#context.statementTimeoutMs)
  }

  /** Undefined when there is no such account. */
  async standing(name: string): Promise<Standing | undefined> {
    const fields = pairs(await this.send('ACL', 'GETUSER', name))
    if (fields === undefined) return undefined
    const flags = asList(fields.get('flags'))
    const selectors = asList(fields.get('selectors')).map(one => selectorText(pairs(one)))
    const marker = selectors.map(readMarker).find(found => found !== undefined)
    return {
      on: flags.includes('on'), marker, selectors: selectors.filter(one => readMarker(one) === undefined)
    }
  }

  /** Connections of the account. */
  async sessions(name: string): Promise<number> {
    const list = String(await this.send('CLIENT', 'LIST'))
    return list.split('\n').filter(line => line.split(' ').includes(`user=${name}`)).length
  }

  close(): void {
    this.#client.close()
  }
}

function asList(reply: Reply | undefined): Reply[] {
  return Array.isArray(reply) ? reply : []
}

/** A list of names and values as a map; undefined for "there is none". */
function pairs(reply: Reply | undefined): Map<string, Reply> | undefined {
  if (!Array.isArray(reply)) return undefined
  const map = new Map<string, Reply>()
  for (let at = 0; at + 1 < reply.length; at += 2) map.set(String(reply[at]), reply[at + 1] ?? null)
  return map
}

function selectorText(fields: Map<string, Reply> | undefined): string {
  const parts = ['commands', 'keys', 'channels'].map(name => String(fields?.get(name) ?? ''))
  return `(${parts.filter(part => part !== '').join(' ')})`
}

/** Logs in as the hook's credential. @throws SallyportError when it could not */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  const { target, username } = access
  const password = passwordOf(access)
  const limitMs = context.connectTimeoutMs
  try {
    const client = await connectRedis({
      host: target.host, port: target.port, tls: target.tls, username, password: () => password,
      timeouts: { connectMs: limitMs, tlsMs: limitMs, loginMs: limitMs },
      signal: AbortSignal.any([context.signal, AbortSignal.timeout(limitMs)])
    })
    return new Link(client, context)
  } catch (error) {
    throw unreached(error, target, context.signal)
  }
}
