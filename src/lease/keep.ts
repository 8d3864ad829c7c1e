// The secret of a shared account, while it is on: a second session joins with it, without a hook. Here it is
// put into one text for the sealed store and read back; nowhere else in this room is a secret's value
// seen. A damaged text is an error that does not quote it.
import { SallyportError } from '../errors.ts'
import type { Injectable, Minted } from '../jit/plugin.ts'
import { Secret } from '../secret.ts'

interface Kept {
  inject:
    | { kind: 'password', password: string }
    | { kind: 'private-key', privateKey: string }
    | { kind: 'scram-keys', clientKey: string, serverKey: string }
  variables: Record<string, string>
}

/** One text that `unpack` understands; to be sealed at once. */
export function pack({ inject, variables }: Minted): Secret<string> {
  const kept: Kept = {
    inject: opened(inject),
    variables: Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, value.expose()]))
  }
  return new Secret(JSON.stringify(kept))
}

/** Throws `seal-broken` when the text is not one of ours. */
export function unpack(packed: Secret<string>): Minted {
  try {
    const { inject, variables } = JSON.parse(packed.expose()) as Kept
    return {
      inject: restored(inject),
      variables: Object.fromEntries(
        Object.entries(variables).map(([name, value]) => [name, new Secret(value)])
      )
    }
  } catch {
    // The error of the parser would quote the text.
    throw new SallyportError('seal-broken', { detail: 'the kept secret of a shared account cannot be read' })
  }
}

function opened(inject: Injectable): Kept['inject'] {
  const { kind } = inject
  if (kind === 'password') return { kind, password: inject.password.expose() }
  if (kind === 'private-key') return { kind, privateKey: inject.privateKey.expose() }
  return { kind, clientKey: base64(inject.clientKey), serverKey: base64(inject.serverKey) }
}

function restored(inject: Kept['inject']): Injectable {
  const { kind } = inject
  if (kind === 'password') return { kind, password: new Secret(inject.password) }
  if (kind === 'private-key') return { kind, privateKey: new Secret(inject.privateKey) }
  return { kind, clientKey: bytes(inject.clientKey), serverKey: bytes(inject.serverKey) }
}

function base64(secret: Secret<Uint8Array>): string {
  return Buffer.from(secret.expose()).toString('base64')
}

function bytes(text: string): Secret<Uint8Array> {
  return new Secret(new Uint8Array(Buffer.from(text, 'base64')))
}
