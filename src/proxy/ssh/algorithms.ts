// What we offer and accept: the lists of a current OpenSSH without what it keeps for old peers. AES-GCM
// stands first where native crypto is there, because it costs least (0.85 s of CPU for each GiB each way);
// ChaCha20 without native crypto costs three times that and is not offered then, since the client's order
// wins. The hybrid key exchange comes first, where this Node has ML-KEM. No group of 8192 bits: one exchange
// takes 55 ms, in which nobody else is served. No compression: what a peer inflates to is memory of ours, and
// links are not that slow any more.
import { hybridName } from './hybrid.ts'
import { ssh2 } from './ssh2.ts'
import type { Offer } from './ssh2.ts'

const curve25519 = ['curve25519-sha256', 'curve25519-sha256@libssh.org']
const nistCurves = ['ecdh-sha2-nistp256', 'ecdh-sha2-nistp384', 'ecdh-sha2-nistp521']
const groups = ['diffie-hellman-group16-sha512', 'diffie-hellman-group14-sha256']

/** With targets: some have nothing better than the curves of NIST. */
const targetKeyExchanges = [...curve25519, ...nistCurves, ...groups]
/** With clients: every one of the last ten years has one of these. */
export const clientKeyExchanges = [...curve25519, ...groups]
const gcm = ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com']
const counter = ['aes256-ctr', 'aes192-ctr', 'aes128-ctr']
const chacha = ['chacha20-poly1305@openssh.com']
const macs = [
  'hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'
]

/** Host keys that a target may have. */
export const targetHostKeys = [
  'ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'rsa-sha2-512',
  'rsa-sha2-256'
]

/** Signatures of people that we verify (RFC 8308 server-sig-algs). */
export const userSignatures = [
  'ssh-ed25519', 'sk-ssh-ed25519@openssh.com', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521', 'sk-ecdsa-sha2-nistp256@openssh.com', 'rsa-sha2-512', 'rsa-sha2-256'
]

/** The lists for one connection; ssh2 adds the marks of extensions and of the strict key exchange itself. */
export function offerOf(
  serverHostKey: readonly string[], kex: readonly string[] = targetKeyExchanges
): Offer {
  const cipher = ssh2().nativeCrypto ? [...gcm, ...chacha, ...counter] : [...gcm, ...counter]
  const way = { cipher, mac: macs, compress: ['none'], lang: [] }
  const all = ssh2().hasKem ? [hybridName, ...kex] : [...kex]
  return { kex: all, serverHostKey: [...serverHostKey], cs: way, sc: way }
}
