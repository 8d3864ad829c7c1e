// Throw-away Redis servers for tests: up in a tenth of a second, with an ACL file in their folder, so that
// what was saved can be looked for after a restart. `admin` may do everything.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeCertificates } from './postgres.ts'
import { programOf } from './services.ts'
import { give, startThrowaway } from './throwaway.ts'
import type { Throwaway } from './throwaway.ts'

export interface RedisServer extends Throwaway {
  readonly aclFile: string
  /** PEM of the authority; only with `tls`. */
  readonly caFile: string
  /** The stock client, as `admin` or as somebody else; what it printed. */
  cli(words: readonly string[], user?: string, password?: string): string
}

/** `acl`: lines of the ACL file beside that of `admin`. */
export async function startRedis({ acl = [], tls }: { acl?: readonly string[], tls?: boolean } = {}): Promise<
  RedisServer
> {
  const password = randomBytes(18).toString('base64url')
  const server = await startThrowaway({
    prepare(place) {
      const file = join(place.base, 'users.acl')
      const lines = ['user default off', `user admin on >${password} ~* &* +@all`, ...acl]
      writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 })
      give(file, place)
      if (tls === true) makeCertificates(place.base, place.base, place.account)
    },
    command: ({ base, port }) => [
      programOf('redis-server'), '--bind', '127.0.0.1', '--dir', base, '--aclfile', join(base, 'users.acl'),
      '--save', '', ...tls === true
        ? [
            '--port', '0', '--tls-port', String(port), '--tls-cert-file', join(base, 'server.crt'),
            '--tls-key-file', join(base, 'server.key'), '--tls-auth-clients', 'no', '--tls-ca-cert-file',
            join(base, 'ca.crt')
          ]
        : ['--port', String(port)]
    ]
  })
  return {
    ...server,
    aclFile: join(server.base, 'users.acl'),
    caFile: join(server.base, 'ca.crt'),
    cli(words, user = 'admin', secret = password) {
      const client = spawnSync(programOf('redis-cli'), [
        '-h', '127.0.0.1', '-p', String(server.port), '--user', user, '--no-auth-warning', ...words
      ], { encoding: 'utf8', env: { REDISCLI_AUTH: secret } })
      return `${client.stdout}${client.stderr}`.trimEnd()
    }
  }
}
