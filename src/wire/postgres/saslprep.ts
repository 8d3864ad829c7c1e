// SASLprep (RFC 4013) as far as PostgreSQL passwords need it: both ends must hash the same bytes, or a
// password with an umlaut works from one keyboard and not from another. Like libpq and the server, text that
// may not be prepared is hashed as it is. Subset: code points that Unicode 3.2 did not know yet are allowed,
// and "left-to-right" is any letter that is not in the right-to-left table.

/** Longer passwords that are not ASCII are hashed as they are: normalising may make text 18 times as long. */
const prepareCharactersMax = 1024

// Table C.1.2: other spaces become a space.
const spaces = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu

// Table B.1: commonly mapped to nothing.
const nothing = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|[\u200c\u200d]|\u2060|[\ufe00-\ufe0f]|\ufeff/gu

// Tables C.2.1, C.2.2 (control), C.3 (private use), C.4 (non-characters), C.5 (surrogates), C.6 (unsuitable
// for plain text), C.7 (unsuitable for canonical representation), C.8 (change display properties), C.9
// (tagging).
const prohibited = new RegExp([
  '[\\u0000-\\u001f\\u007f-\\u009f]', '\\u06dd', '\\u070f', '\\u180e', '[\\u200c-\\u200f]',
  '[\\u2028-\\u202e]',
  '[\\u2060-\\u2063]', '[\\u206a-\\u206f]', '\\ufeff', '[\\ufff9-\\uffff]', '[\\u2ff0-\\u2ffb]',
  '[\\u0340\\u0341]', '\\p{Co}', '\\p{Cs}', '\\p{Noncharacter_Code_Point}', '[\\u{1d173}-\\u{1d17a}]',
  '[\\u{e0000}-\\u{e007f}]'
].join('|'), 'u')

// Table D.1: right-to-left letters.
const rightToLeft = new RegExp(`[${[
  '\\u05be\\u05c0\\u05c3\\u05d0-\\u05ea\\u05f0-\\u05f4\\u061b\\u061f\\u0621-\\u063a\\u0640-\\u064a',
  '\\u066d-\\u066f\\u0671-\\u06d5\\u06dd\\u06e5\\u06e6\\u06fa-\\u06fe\\u0700-\\u070d\\u0710',
  '\\u0712-\\u072c\\u0780-\\u07a5\\u07b1\\u200f\\ufb1d\\ufb1f-\\ufb28\\ufb2a-\\ufb36\\ufb38-\\ufb3c',
  '\\ufb3e\\ufb40\\ufb41\\ufb43\\ufb44\\ufb46-\\ufbb1\\ufbd3-\\ufd3d\\ufd50-\\ufd8f\\ufd92-\\ufdc7',
  '\\ufdf0-\\ufdfc\\ufe70-\\ufe74\\ufe76-\\ufefc'
].join('')}]`, 'u')

/** The bytes of a password that are hashed. */
export function saslPrepare(password: string): Buffer {
  return Buffer.from(prepared(password) ?? password, 'utf8')
}

function isLeftToRight(character: string): boolean {
  return /\p{L}/u.test(character) && !rightToLeft.test(character)
}

/** Undefined when the text may not be prepared, or need not. */
function prepared(password: string): string | undefined {
  if (/^[\x20-\x7e]*$/.test(password) || password.length > prepareCharactersMax) return undefined
  const text = password.replace(spaces, ' ').replace(nothing, '').normalize('NFKC')
  if (text === '' || prohibited.test(text)) return undefined
  const characters = [...text]
  if (characters.some(character => rightToLeft.test(character))) {
    if (!rightToLeft.test(characters[0]!) || !rightToLeft.test(characters.at(-1)!)) return undefined
    if (characters.some(isLeftToRight)) return undefined
  }
  return text
}
