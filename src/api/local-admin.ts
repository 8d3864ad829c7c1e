// The local admin: each start writes a fresh random token into the data folder, readable for its owner
// only, with the address that the API really listens on, and the `sallyport` command on the same machine
// uses both. It has no other privilege to hand out: whoever can read the file can read the master key
// beside it.
import { randomBytes } from 'node:crypto'
import { open, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { printAddress } from '../input.ts'
import type { Address } from '../input.ts'
import { Secret } from '../secret.ts'

/** Two lines: the token, and `https://host:port`. The command line tool knows this name and form. */
export const localAdminFile = 'local-admin.token'

export function mintLocalToken(): Secret<string> {
  return new Secret(`local_${randomBytes(32).toString('base64url')}`)
}

/** Writes the file (0600, whole or not at all); to be called when the API listens. */
export async function publishLocalAdmin(
  dataFolder: string, token: Secret<string>, address: Address
): Promise<void> {
  const path = join(dataFolder, localAdminFile)
  const fresh = `${path}.new`
  await unlink(fresh).catch(() => undefined)
  // Ours alone from its first moment: `wx` and the mode are one system call, so there is no gap.
  const file = await open(fresh, 'wx', 0o600)
  try {
    await file.chmod(0o600)
    await file.writeFile(`${token.expose()}\nhttps://${printAddress(address)}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(fresh, path)
}

/** Takes the file away at an orderly stop, so that `doctor` can tell a stopped server from a dead one. */
export async function withdrawLocalAdmin(dataFolder: string): Promise<void> {
  await unlink(join(dataFolder, localAdminFile)).catch(() => undefined)
}
