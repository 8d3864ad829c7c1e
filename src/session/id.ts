// Session ids: 10 characters of time and 16 of chance in Crockford's base 32, lower case. They sort by start,
// are safe in file names and can be read over the telephone.
import { randomBytes } from 'node:crypto'
import type { Clock } from '../clock.ts'

const digits = '0123456789abcdefghjkmnpqrstvwxyz'

export function mintSessionId(clock: Clock): string {
  let time = clock.now().getTime()
  let id = ''
  for (let place = 0; place < 10; place++) {
    id = digits[time % 32] + id
    time = Math.floor(time / 32)
  }
  for (const byte of randomBytes(16)) id += digits[byte % 32]
  return id
}
