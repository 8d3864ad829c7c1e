// What counts as one source when connections and failures are counted: an IPv4 address, or the /64 of an IPv6
// one, since whoever has one address of a /64 has all of them.
import { isIPv6 } from 'node:net'

/**
 * The peer's address as people write it: an IPv4 address that came through an IPv6 socket is an IPv4 address.
 */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return 'unknown'
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/i.test(address) ? address.slice(7) : address
}

/** The key under which an address is counted. */
export function sourceOf(address: string): string {
  const plain = plainAddress(address)
  if (!isIPv6(plain)) return plain
  const [head = '', tail] = plain.split('%')[0]!.toLowerCase().split('::')
  const words = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const after = tail === '' ? [] : tail.split(':')
    while (words.length + after.length < 8) words.push('0')
    words.push(...after)
  }
  return `${words.slice(0, 4).map(word => word.replace(/^0+(?=.)/, '')).join(':')}::/64`
}
