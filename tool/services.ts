// Programs that tests and benchmarks need and npm does not have: stock clients, servers, tracers. Each is a
// Debian package; `ensurePackages` installs what is missing when we are root, and names it when we are not.
// Nothing is asked of the package system while everything is present, so a run that needs nothing costs some
// file look-ups. A test takes its program's path from `programOf`, so that a missing one is an error with a
// name, never a skip.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

interface Program {
  /** The file whose presence means that the package is there. */
  path: string
  packages: readonly string[]
}

// Where Debian puts the libraries of this machine's architecture.
const libraries = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`

const programs = {
  'postgres-15': { path: '/usr/lib/postgresql/15/bin/postgres', packages: ['postgresql-15'] },
  'pg-cron': { path: '/usr/lib/postgresql/15/lib/pg_cron.so', packages: ['postgresql-15-cron'] },
  'pgbench': { path: '/usr/lib/postgresql/15/bin/pgbench', packages: ['postgresql-15'] },
  'psql': { path: '/usr/bin/psql', packages: ['postgresql-client-15'] },
  'psql-15': { path: '/usr/lib/postgresql/15/bin/psql', packages: ['postgresql-client-15'] },
  'pgbouncer': { path: '/usr/sbin/pgbouncer', packages: ['pgbouncer'] },
  'ssh': { path: '/usr/bin/ssh', packages: ['openssh-client'] },
  'ssh-keygen': { path: '/usr/bin/ssh-keygen', packages: ['openssh-client'] },
  'sslscan': { path: '/usr/bin/sslscan', packages: ['sslscan'] },
  'ssh-audit': { path: '/usr/bin/ssh-audit', packages: ['ssh-audit'] },
  'sshd': { path: '/usr/sbin/sshd', packages: ['openssh-server'] },
  // What people do with ssh beside `ssh` itself.
  'scp': { path: '/usr/bin/scp', packages: ['openssh-client'] },
  'sftp': { path: '/usr/bin/sftp', packages: ['openssh-client'] },
  'sftp-server': { path: '/usr/lib/openssh/sftp-server', packages: ['openssh-sftp-server'] },
  'rsync': { path: '/usr/bin/rsync', packages: ['rsync'] },
  'git': { path: '/usr/bin/git', packages: ['git'] },
  'curl': { path: '/usr/bin/curl', packages: ['curl'] },
  'sshpass': { path: '/usr/bin/sshpass', packages: ['sshpass'] },
  'xauth': { path: '/usr/bin/xauth', packages: ['xauth'] },
  'strace': { path: '/usr/bin/strace', packages: ['strace'] },
  'openssl': { path: '/usr/bin/openssl', packages: ['openssl'] },
  // A library: preload it to move the wall clock of one process.
  'faketime': { path: `${libraries}/faketime/libfaketimeMT.so.1`, packages: ['libfaketime'] },
  // Debian's own Python, which has psycopg2; a `python3` found first in PATH may be another one without it.
  'python3': { path: '/usr/bin/python3', packages: ['python3'] },
  'psycopg2': { path: '/usr/lib/python3/dist-packages/psycopg2/__init__.py', packages: ['python3-psycopg2'] },
  // `java X.java` compiles in memory, which takes the development kit; its compiler is the sign of it.
  'javac': { path: '/usr/bin/javac', packages: ['default-jdk-headless'] },
  'java': { path: '/usr/bin/java', packages: ['default-jdk-headless'] },
  'pgjdbc': { path: '/usr/share/java/postgresql.jar', packages: ['libpostgresql-jdbc-java'] },
  'mke2fs': { path: '/sbin/mke2fs', packages: ['e2fsprogs'] },
  'mount': { path: '/bin/mount', packages: ['mount'] },
  // What a Linux box is made of: namespaces, the jobs of its accounts, and what they may leave behind.
  'unshare': { path: '/usr/bin/unshare', packages: ['util-linux'] },
  'nsenter': { path: '/usr/bin/nsenter', packages: ['util-linux'] },
  'cron': { path: '/usr/sbin/cron', packages: ['cron'] },
  'atd': { path: '/usr/sbin/atd', packages: ['at'] },
  'getfacl': { path: '/usr/bin/getfacl', packages: ['acl'] },
  // Accounts that are not in /etc/passwd; nothing reads them until nsswitch.conf says so.
  'extrausers': { path: '/usr/lib/libnss_extrausers.so.2', packages: ['libnss-extrausers'] },
  'sudo': { path: '/usr/bin/sudo', packages: ['sudo'] },
  'ps': { path: '/usr/bin/ps', packages: ['procps'] },
  // Targets of the plugins, without Debian's set-up around them: mariadb-server would make a data folder.
  'mariadbd': { path: '/usr/sbin/mariadbd', packages: ['mariadb-server-core'] },
  'mariadb-install-db': { path: '/usr/bin/mariadb-install-db', packages: ['mariadb-server-core'] },
  'mariadb': { path: '/usr/bin/mariadb', packages: ['mariadb-client-core'] },
  'redis-server': { path: '/usr/bin/redis-server', packages: ['redis-tools', 'redis-server'] },
  'redis-cli': { path: '/usr/bin/redis-cli', packages: ['redis-tools'] },
  'slapd': { path: '/usr/sbin/slapd', packages: ['slapd'] },
  'ldapsearch': { path: '/usr/bin/ldapsearch', packages: ['ldap-utils'] },
  'ldapadd': { path: '/usr/bin/ldapadd', packages: ['ldap-utils'] },
  // A receiver of audit events, with TLS.
  'rsyslogd': { path: '/usr/sbin/rsyslogd', packages: ['rsyslog'] },
  'rsyslog-openssl': { path: `${libraries}/rsyslog/lmnsd_ossl.so`, packages: ['rsyslog-openssl'] },
  // A domain controller, without what it needs to serve files as well.
  'samba': { path: '/usr/sbin/samba', packages: ['samba', 'samba-dsdb-modules', 'samba-vfs-modules'] },
  'samba-tool': { path: '/usr/bin/samba-tool', packages: ['samba-common-bin', 'samba-ad-provision'] },
  'chromium': { path: '/usr/bin/chromium', packages: ['chromium'] }
} as const satisfies Record<string, Program>

export type Need = keyof typeof programs

/** What installing touches; tests give another one. */
export interface Machine {
  isRoot: boolean
  isPresent(path: string): boolean
  apt(words: readonly string[]): void
  /** A file that keeps Debian from making a database cluster when a PostgreSQL package is installed. */
  clusterSetting: string
  /** A program that Debian asks before it starts a service. */
  servicePolicy: string
}

/** What `npm test` needs; benchmarks ask for more (`pgbouncer`, whose package would start a service). */
export const testNeeds: readonly Need[] = [
  'postgres-15', 'pg-cron', 'pgbench', 'psql', 'psql-15', 'strace', 'openssl', 'faketime', 'python3',
  'psycopg2', 'java', 'javac', 'pgjdbc', 'mke2fs', 'mount', 'ssh', 'ssh-keygen', 'sshd', 'unshare',
  'nsenter', 'cron', 'atd', 'getfacl', 'sudo', 'ps', 'scp', 'sftp', 'sftp-server', 'extrausers', 'rsync',
  'git', 'curl', 'sshpass', 'xauth', 'ssh-audit', 'sslscan', 'mariadbd', 'mariadb-install-db', 'mariadb',
  'redis-server', 'redis-cli', 'slapd', 'ldapsearch', 'ldapadd', 'samba',
  'samba-tool', 'rsyslogd', 'rsyslog-openssl', 'chromium'
]

// Debian's PostgreSQL packages make and start a cluster when they are installed. Ours must not; the setting
// is taken back afterwards, since it is the machine's business what later installations do.
const clusterSetting = '/etc/postgresql-common/createcluster.d/sallyport-tests.conf'

// The packages of sshd, cron and atd start them. A machine that only runs our tests must not get an open
// port by that: 101 says "not allowed". One that has a policy keeps it.
const servicePolicy = '/usr/sbin/policy-rc.d'
const refuseServices = '#!/bin/sh\nexit 101\n'

// Another run may be installing at the same moment.
const aptLockSeconds = 300

const thisMachine: Machine = {
  isRoot: process.getuid?.() === 0, isPresent: existsSync, apt: runApt, clusterSetting, servicePolicy
}

/** The Debian packages, without repeats, of those needs whose program is absent. */
export function missingPackages(needs: readonly Need[], { isPresent } = thisMachine): string[] {
  const absent = needs.filter(need => !isPresent(programs[need].path))
  return [...new Set(absent.flatMap(need => programs[need].packages))]
}

/**
 * The path of a program (of a library or jar for `faketime`, `psycopg2`, `pgjdbc`); throws naming its
 * package.
 */
export function programOf(need: Need, { isPresent } = thisMachine): string {
  const { path, packages } = programs[need]
  if (!isPresent(path)) throw new Error(`${path} is missing: apt-get install ${packages.join(' ')}`)
  return path
}

/**
 * Makes sure that these programs are present: installs their Debian packages when we are root.
 * Throws, naming the packages, when we are not root or when apt fails.
 */
export function ensurePackages(needs: readonly Need[], machine = thisMachine): void {
  const packages = missingPackages(needs, machine)
  if (packages.length === 0) return
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`
  if (!machine.isRoot) throw new Error(`Debian packages are missing; as root: ${command}`)

  process.stderr.write(`installing ${packages.join(' ')}\n`)
  mkdirSync(dirname(machine.clusterSetting), { recursive: true })
  writeFileSync(machine.clusterSetting, 'create_main_cluster = false\n')
  const ownPolicy = !existsSync(machine.servicePolicy)
  if (ownPolicy) writeFileSync(machine.servicePolicy, refuseServices, { mode: 0o755 })
  try {
    machine.apt(['update'])
    machine.apt(['install', '-y', '--no-install-recommends', ...packages])
  } finally {
    rmSync(machine.clusterSetting, { force: true })
    if (ownPolicy) rmSync(machine.servicePolicy, { force: true })
  }
  const absent = missingPackages(needs, machine)
  if (absent.length > 0) throw new Error(`installed, but without the expected program: ${absent.join(' ')}`)
}

function runApt(words: readonly string[]): void {
  const done = spawnSync('apt-get', ['-q', '-o', `DPkg::Lock::Timeout=${aptLockSeconds}`, ...words], {
    encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  })
  if (done.status === 0) return
  const said = done.error?.message ?? `${done.stdout}\n${done.stderr}`
  throw new Error(`apt-get ${words.join(' ')} failed: ${said}`)
}
