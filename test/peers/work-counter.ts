// Counts the costly work of logins: derivations of passwords and checks of signatures. To be imported before
// anything that uses node:crypto, since it stands between. What is counted is the same on every machine;
// times are not.
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'

export const work = { derivations: 0, verifications: 0 }

const insides = crypto as unknown as Record<'pbkdf2' | 'verify', (...words: unknown[]) => unknown>
const { pbkdf2, verify } = insides

insides.pbkdf2 = (...words) => {
  work.derivations++
  return pbkdf2(...words)
}
insides.verify = (...words) => {
  work.verifications++
  return verify(...words)
}
syncBuiltinESMExports()
