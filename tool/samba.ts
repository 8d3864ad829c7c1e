// Throw-away domains of Active Directory for tests (Debian's Samba as a domain controller): provisioned anew
// each time, in some five seconds, since nothing is synced to the disk and no name server is set up. Samba
// insists on ports 389 and 636 and on being root, so each has an address of its own in 127.0.0.0/8. `hooks`
// may manage accounts in OU=Sessions and members of the groups there, and nothing else; `Administrator` may
// everything.
import { spawnSync } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeCertificates } from './postgres.ts'
import { programOf } from './services.ts'
import type { Searched } from './slapd.ts'
import { startThrowaway } from './throwaway.ts'
import type { Place, Throwaway } from './throwaway.ts'

export interface Domain extends Throwaway {
  /** PEM of the authority; the certificate is for `localhost`. */
  readonly caFile: string
  readonly hooks: DomainLogin
  readonly administrator: DomainLogin
  /** Adds or changes entries as the administrator; LDIF. @throws Error */
  ldif(text: string): void
  /** The stock client: entries as LDIF, as the administrator or as somebody else. */
  search(
    base: string, filter: string, attributes?: readonly string[], as?: DomainLogin, more?: readonly string[]
  ): Searched
  /** Only logs in. */
  login(as: DomainLogin): Searched
}

export interface DomainLogin {
  /** `name@domain` */
  username: string
  password: string
}

export const domainBase = 'DC=ad,DC=example,DC=org'
export const sessionsPlace = `OU=Sessions,${domainBase}`
const realm = 'ad.example.org'
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TDB_NO_FSYNC: '1' }

// Classes and attributes of the rights below, as the schema numbers them.
const schema = {
  user: 'bf967aba-0de6-11d0-a285-00aa003049e2', group: 'bf967a9c-0de6-11d0-a285-00aa003049e2',
  member: 'bf9679c0-0de6-11d0-a285-00aa003049e2'
}

export async function startDomain(): Promise<Domain> {
  if (process.getuid?.() !== 0) throw new Error('a domain controller has ports that only root may open')
  const [administrator, hooks] = ['Administrator', 'hooks'].map(name => ({
    username: `${name}@${realm}`, password: `aA1-${randomBytes(18).toString('base64url')}`
  })) as [DomainLogin, DomainLogin]
  const server = await startThrowaway({
    seat: { host: `127.${randomInt(64, 255)}.${randomInt(256)}.${randomInt(1, 255)}`, port: 636 },
    environment,
    prepare: place => provision(place, administrator.password),
    command: ({ base }) => [
      programOf('samba'), '--foreground', '--no-process-group', '--model=single', '--debug-stdout',
      `--configfile=${configuration(base)}`
    ]
  })
  const client = (
    program: 'ldapsearch' | 'ldapadd', as: DomainLogin, words: readonly string[], input = ''
  ): Searched => {
    const file = join(server.base, `pw-${randomBytes(6).toString('hex')}`)
    writeFileSync(file, as.password, { mode: 0o600 })
    const ended = spawnSync(programOf(program), [
      '-x', '-H', `ldaps://${server.host}`, '-D', as.username, '-y', file, ...words
    ], { input, encoding: 'utf8', env: { ...environment, LDAPTLS_REQCERT: 'never' } })
    return { status: ended.status, output: `${ended.stdout}${ended.stderr}`.trimEnd() }
  }
  const domain: Domain = {
    ...server, hooks, administrator,
    caFile: join(server.base, 'ca.crt'),
    ldif(text) {
      const { status, output } = client('ldapadd', administrator, [], text)
      if (status !== 0) throw new Error(output)
    },
    search: (base, filter, attributes = [], as = administrator, more = []) =>
      client('ldapsearch', as, ['-LLL', '-o', 'ldif-wrap=no', ...more, '-b', base, filter, ...attributes]),
    login: as => client('ldapsearch', as, ['-LLL', '-s', 'base', '-b', '', '(objectClass=*)', '1.1'])
  }
  try {
    populate(domain)
  } catch (error) {
    await server.stop()
    throw error
  }
  return domain
}

// What `Enable-ADOptionalFeature` does; it has no command of its own here, and only the system may.
const recycleBinScript = `
import sys, ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
settings = LoadParm()
settings.load(sys.argv[1])
domain = SamDB(session_info=system_session(), lp=settings)
change = ldb.Message(ldb.Dn(domain, ''))
feature = 'CN=Partitions,%s:766ddcd8-acd0-445e-f3b9-a7f9b6744f2a' % domain.get_config_basedn()
change['on'] = ldb.MessageElement(feature, ldb.FLAG_MOD_ADD, 'enableOptionalFeature')
domain.modify(change)
`

const configuration = (base: string): string => join(base, 'domain/etc/smb.conf')

function provision({ base, host }: Place, password: string): void {
  const { ssl_cert_file: certificate, ssl_key_file: key } = makeCertificates(base, base, undefined)
  const settings = {
    'interfaces': `${host}/8`, 'bind interfaces only': 'yes', 'server services': 'ldap',
    'log file': join(base, 'log'), 'tls certfile': certificate, 'tls keyfile': key,
    'tls cafile': join(base, 'ca.crt')
  }
  const options = Object.entries(settings).map(([name, value]) => `--option=${name}=${value}`)
  run('samba-tool', [
    'domain', 'provision', '--configfile=/dev/null', `--targetdir=${join(base, 'domain')}`, '--quiet',
    `--realm=${realm}`, '--domain=AD', '--host-name=dc', `--host-ip=${host}`, '--dns-backend=NONE',
    `--adminpass=${password}`, ...options
  ])
  run('python3', ['-c', recycleBinScript, configuration(base)])
}

/** @throws Error with what it said */
function run(program: 'samba-tool' | 'python3', words: readonly string[]): void {
  const ended = spawnSync(programOf(program), words, { encoding: 'utf8', env: environment })
  if (ended.status !== 0) throw new Error(`${program} ${words[0] ?? ''}: ${ended.stdout}${ended.stderr}`)
}

function populate(domain: Domain): void {
  domain.ldif([
    [`dn: ${sessionsPlace}`, 'objectClass: organizationalUnit'],
    ...['ops', 'dba'].map(name =>
      [`dn: CN=${name},${sessionsPlace}`, 'objectClass: group', `sAMAccountName: ${name}`]),
    personLines('hooks', `CN=Users,${domainBase}`, domain.hooks.password)
  ].map(lines => `${lines.join('\n')}\n`).join('\n'))
  const sid = sidOf(domain.search(domainBase, '(sAMAccountName=hooks)', ['objectSid']).output)
  const rights = [
    `(OA;CI;CCDC;${schema.user};;${sid})`, `(OA;CIIO;GA;;${schema.user};${sid})`,
    `(OA;CIIO;RPWP;${schema.member};${schema.group};${sid})`
  ]
  run('samba-tool', [
    'dsacl', 'set', `--configfile=${configuration(domain.base)}`, `--objectdn=${sessionsPlace}`,
    `--sddl=${rights.join('')}`
  ])
}

/** LDIF of an account that may log in, as an administrator would make one. */
export function personLines(name: string, place: string, password: string): string[] {
  const bytes = Buffer.from(`"${password}"`, 'utf16le').toString('base64')
  return [
    `dn: CN=${name},${place}`, 'objectClass: user', `sAMAccountName: ${name}`,
    `userPrincipalName: ${name}@${realm}`, 'userAccountControl: 66048', `unicodePwd:: ${bytes}`
  ]
}

/** The text form of a security identifier that a client shows in base64. */
function sidOf(ldif: string): string {
  const bytes = Buffer.from(/^objectSid:: (.+)$/m.exec(ldif)?.[1] ?? '', 'base64')
  const parts = Array.from({ length: bytes[1] ?? 0 }, (_, at) => bytes.readUInt32LE(8 + 4 * at))
  return ['S', bytes[0], bytes.readUIntBE(2, 6), ...parts].join('-')
}
