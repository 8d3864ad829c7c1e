// The few lines that every command begins with: a client for where and as whom it was asked to work, and
// its options read as what they are.
import { createClient } from './client.ts'
import type { Client } from './client.ts'
import { UsageError } from './command.ts'
import type { Invocation } from './command.ts'
import { findConnection } from './place.ts'

export async function clientOf(call: Invocation): Promise<Client> {
  return createClient(await findConnection(call.config, text(call, 'server')))
}

/** The text of an option, or undefined. */
export function text(call: Invocation, option: string): string | undefined {
  const value = call.options[option]
  return typeof value === 'string' ? value : undefined
}

export type Words<T extends string> = Readonly<Record<T, true>>

/** One of these words, or undefined; throws UsageError for anything else. */
export function oneOf<T extends string>(call: Invocation, option: string, words: Words<T>): T | undefined {
  const value = text(call, option)
  if (value === undefined) return undefined
  const known = Object.keys(words) as T[]
  const found = known.find(word => word === value)
  if (found !== undefined) return found
  throw new UsageError(`--${option} must be one of ${known.join(', ')}`)
}

export function flag(call: Invocation, option: string): boolean {
  return call.options[option] === true
}

/** A number of at least `min`; throws UsageError for anything else. */
export function number(call: Invocation, option: string, fallback: number, min: number): number {
  const value = text(call, option)
  if (value === undefined) return fallback
  const read = Number(value)
  if (value.trim() === '' || !Number.isFinite(read) || read < min) {
    throw new UsageError(`--${option} must be a number of at least ${min}`)
  }
  return read
}
