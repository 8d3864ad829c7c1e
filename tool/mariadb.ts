// Throw-away MariaDB servers for tests (Debian's package, without its set-up): a second and a half to start.
// Passwords of the root account and of the people's roles are drawn here; SQL goes through the stock client,
// with the password in a file that only we read.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeCertificates } from './postgres.ts'
import { programOf } from './services.ts'
import { give, startThrowaway } from './throwaway.ts'
import type { Place, Throwaway } from './throwaway.ts'

export interface MariadbServer extends Throwaway {
  /** PEM of the authority; only with `tls`. */
  readonly caFile: string
  /** Runs SQL as root with the stock client; a line for each row, tabs between columns. @throws Error */
  sql(text: string, database?: string): string
  /** The same as somebody else; the answer and how the client ended. */
  as(user: string, password: string, text: string): { status: number | null, output: string }
}

export interface MariadbOptions {
  settings?: readonly string[]
  tls?: boolean
}

export async function startMariadb({ settings = [], tls }: MariadbOptions = {}): Promise<MariadbServer> {
  const password = randomBytes(18).toString('base64url')
  const server = await startThrowaway({
    prepare: place => {
      makeDataFolder(place, password)
      if (tls === true) makeCertificates(place.base, place.base, place.account)
    },
    command: ({ base, port }) => [
      programOf('mariadbd'), '--no-defaults', `--datadir=${join(base, 'data')}`, `--port=${port}`,
      '--bind-address=127.0.0.1', `--socket=${join(base, 's.sock')}`, `--pid-file=${join(base, 'pid')}`,
      `--init-file=${join(base, 'init.sql')}`, '--skip-name-resolve', '--innodb-buffer-pool-size=16M',
      '--innodb-flush-log-at-trx-commit=0', '--key-buffer-size=1M', ...settings,
      ...tls === true
        ? [`--ssl-cert=${join(base, 'server.crt')}`, `--ssl-key=${join(base, 'server.key')}`]
        : []
    ]
  })
  const as = (user: string, secret: string, text: string, database = 'mysql'): ReturnType<
    MariadbServer['as']> => {
    const file = join(server.base, `client-${randomBytes(6).toString('hex')}`)
    writeFileSync(file, `[client]\nuser=${user}\npassword=${secret}\n`, { mode: 0o600 })
    const client = spawnSync(programOf('mariadb'), [
      `--defaults-file=${file}`, '--host=127.0.0.1', `--port=${server.port}`, '--protocol=tcp', '--batch',
      '--skip-column-names', database
    ], { input: text, encoding: 'utf8' })
    return { status: client.status, output: `${client.stdout}${client.stderr}`.trimEnd() }
  }
  return {
    ...server,
    caFile: join(server.base, 'ca.crt'),
    sql(text, database) {
      const { status, output } = as('root', password, text, database)
      if (status !== 0) throw new Error(output)
      return output
    },
    as: (user, secret, text) => as(user, secret, text, 'information_schema')
  }
}

function makeDataFolder(place: Place, password: string): void {
  const { base, account } = place
  const init = join(base, 'init.sql')
  writeFileSync(init, `ALTER USER root@localhost IDENTIFIED BY '${password}';
CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '${password}';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n`)
  chmodSync(init, 0o600)
  give(init, place)
  const made = spawnSync(programOf('mariadb-install-db'), [
    '--no-defaults', `--datadir=${join(base, 'data')}`, '--auth-root-authentication-method=normal',
    '--skip-test-db', '--skip-name-resolve', '--innodb-flush-log-at-trx-commit=0'
  ], { encoding: 'utf8', cwd: base, env: { PATH: '/usr/sbin:/usr/bin:/bin', TMPDIR: base }, ...account })
  if (made.status !== 0) throw new Error(`mariadb-install-db: ${made.stdout}\n${made.stderr}`)
}
