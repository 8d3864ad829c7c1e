// The keys that a password gives with a target's salt, remembered: every hook logs in anew as the same
// account, and stretching its password each time was a third of what an account costs us. libpq and pgjdbc
// have the same idea (`scram_client_key`). What is kept is as good as the password towards that one account
// and nowhere else; it lives in this process's memory, for the accounts that were used last.
import { createHmac, randomBytes } from 'node:crypto'
import type { ScramKeys } from './verifier.ts'
import { deriveKeys } from './verifier.ts'

/** Accounts that log in for us: one for each target and credential; a target may draw a new salt. */
const rememberedMax = 256

/** Whoever reads the memory learns nothing of passwords from the names of what is kept. */
const nameKey = randomBytes(32)

// In the order of their last use.
const remembered = new Map<string, Promise<ScramKeys>>()

/** As `deriveKeys`; those who ask for the same at once wait for one derivation. */
export function rememberedKeys(password: string, salt: Buffer, iterations: number): Promise<ScramKeys> {
  const what = JSON.stringify([password, salt.toString('hex'), iterations])
  const name = createHmac('sha256', nameKey).update(what).digest('base64')
  const keys = remembered.get(name) ?? deriveKeys(password, salt, iterations)
  remembered.delete(name)
  remembered.set(name, keys)
  keys.catch(() => remembered.delete(name))
  if (remembered.size > rememberedMax) remembered.delete(remembered.keys().next().value!)
  return keys
}
