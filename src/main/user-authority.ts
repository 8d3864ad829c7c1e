// Our user authority: an ed25519 key, made at the first start, whose public line a target's sshd may trust
// (TrustedUserCAKeys). For a session whose template asks for it we certify the key that was drawn for the
// account: for that account's name alone, until the end of the session, from our own address, and with no
// more than the grant allows. Nothing of it stays on the target, and each certificate is in the audit log
// before it is used. Whoever reads this key is every account that such a target trusts it for.
import type { Clock } from '../clock.ts'
import type { Certify, Injectable } from '../jit/plugin.ts'
import { parseTemplate } from '../jit/template.ts'
import type { PinnedTemplate } from '../lease/ports.ts'
import type { ChannelKind } from '../policy/types.ts'
import { readPrivateKey } from '../proxy/ssh/ssh2.ts'
import type { IssuedAccount } from '../session/steps.ts'
import type { LiveSession } from '../session/registry.ts'
import type { AuditLog } from '../store/audit.ts'
import { signCertificate } from '../wire/ssh/certificate.ts'
import { fingerprintOf } from '../wire/ssh/key.ts'
import { keyFile, lineOf } from './host-keys.ts'

/** What a certificate is to say. */
export interface UserCertificate {
  session: string
  accountId: string
  /** The one account that it opens. */
  principal: string
  /** Addresses or networks that it may be used from; anywhere when there are none. */
  sources: readonly string[]
  channels: readonly ChannelKind[]
  /** Until when it is needed. */
  until: Date
}

export interface UserAuthority {
  /** `ssh-ed25519 AAAA…`, for TrustedUserCAKeys. */
  readonly line: string
  /** A certificate for the key in this file of OpenSSH, and what it says, for the audit. */
  certify(privateKey: string, wish: UserCertificate): { certificate: Buffer, said: Record<string, unknown> }
}

/** Clocks of targets differ from ours; what is out by more is told by the login that fails. */
const skewMs = 60_000

/** Extensions by the channels that need them; files and commands need none. */
const extensionsOf: Readonly<Record<string, readonly ChannelKind[]>> = {
  'permit-pty': ['shell', 'exec'],
  'permit-port-forwarding': ['local-forward', 'remote-forward'],
  'permit-agent-forwarding': ['agent'],
  'permit-X11-forwarding': ['x11']
}

export function openUserAuthority(dataFolder: string, clock: Clock): UserAuthority {
  const authority = readPrivateKey(keyFile(dataFolder, 'user_ca_ed25519_key'))
  return {
    line: lineOf(authority),
    certify(privateKey, { session, accountId, principal, sources, channels, until }) {
      const key = readPrivateKey(privateKey).getPublicSSH()
      const now = clock.now().getTime()
      const extensions = Object.entries(extensionsOf)
        .filter(([, needed]) => needed.some(channel => channels.includes(channel))).map(([name]) => name)
      const request = {
        kind: 'user' as const, key, principals: [principal], extensions,
        keyId: `sallyport session ${session} account ${accountId}`, serial: BigInt(now),
        validAfter: new Date(now - skewMs), validBefore: new Date(until.getTime() + skewMs),
        ...sources.length === 0 ? {} : { criticalOptions: { 'source-address': sources.join(',') } }
      }
      const { keyId, serial, validBefore } = request
      return {
        certificate: signCertificate(authority, request),
        said: {
          principal, keyId, serial: String(serial), key: fingerprintOf(key),
          validBefore: validBefore.toISOString(), sources: sources.join(','), extensions: extensions.join(',')
        }
      }
    }
  }
}

export interface CertifyPorts {
  authority: UserAuthority
  audit: Pick<AuditLog, 'append'>
  /** Where targets see us come from; undefined: from the address of the connection itself. */
  sources: readonly string[] | undefined
}

/** The account as it was issued, with a way to certify its key where the opening template asks for it. */
export function certified(
  { authority, audit, sources }: CertifyPorts, account: IssuedAccount, opened: PinnedTemplate,
  { id, grant, expiresAt }: LiveSession
): IssuedAccount {
  const { inject, accountId, accountName } = account
  if (parseTemplate(opened.body, opened.version).injection !== 'certificate') return account
  const certify: Certify = async source => {
    const { certificate, said } = authority.certify(keyIn(inject), {
      session: id, accountId, principal: accountName, sources: sources ?? [source],
      channels: grant.channels, until: expiresAt
    })
    await audit.append('certificate.issued', 'system', id, said)
    return certificate
  }
  return {
    accountId, accountName, signal: account.signal, release: reason => account.release(reason),
    inject: inject.kind === 'private-key' ? { ...inject, certify } : inject
  }
}

function keyIn(inject: Injectable): string {
  return inject.kind === 'private-key' ? inject.privateKey.expose() : ''
}
