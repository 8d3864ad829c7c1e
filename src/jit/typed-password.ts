// A password that a person reads off a screen and types or pastes, once: of letters and digits that are not
// taken for each other, and long enough that no verifier of it can be guessed at.
import { randomInt } from 'node:crypto'
import { Secret } from '../secret.ts'

/** Without 0, O, o, 1, I, i and l. */
const alphabet = 'abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'

/** 138 bits. */
const passwordCharacters = 24

export function mintTypedPassword(): Secret<string> {
  let password = ''
  while (password.length < passwordCharacters) password += alphabet[randomInt(alphabet.length)]
  return new Secret(password)
}
