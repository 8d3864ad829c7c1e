// Throw-away OpenLDAP directories for tests (Debian's slapd, without its set-up): up in a tenth of a second,
// with ppolicy, memberof, refint and the monitor, which is what the plugin makes use of. `cn=hooks` may
// manage people and groups; `admin` is the root of the directory.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeCertificates } from './postgres.ts'
import { programOf } from './services.ts'
import { give, startThrowaway } from './throwaway.ts'
import type { Place, Throwaway } from './throwaway.ts'

export interface LdapServer extends Throwaway {
  /** PEM of the authority. */
  readonly caFile: string
  readonly hooksDn: string
  readonly hooksPassword: string
  /** Adds or changes entries as the root of the directory; LDIF. @throws Error */
  ldif(text: string): void
  /** The stock client: entries as LDIF, as the root or as somebody else. */
  search(base: string, filter: string, attributes?: readonly string[], as?: Login): Searched
}

export interface Login {
  dn: string
  password: string
}

export interface Searched {
  status: number | null
  output: string
}

export const suffix = 'dc=example,dc=org'

export async function startSlapd({ ppolicy = true }: { ppolicy?: boolean } = {}): Promise<LdapServer> {
  const password = randomBytes(18).toString('base64url')
  const hooksPassword = randomBytes(18).toString('base64url')
  const root = { dn: `cn=admin,${suffix}`, password }
  const server = await startThrowaway({
    prepare: place => configure(place, password, ppolicy),
    command: ({ base, port }) => [
      programOf('slapd'), '-d', '0', '-f', join(base, 'slapd.conf'), '-h', `ldap://127.0.0.1:${port}/`
    ]
  })
  const client = (
    program: 'ldapsearch' | 'ldapadd', as: Login, words: readonly string[], input = ''
  ): Searched => {
    const file = join(server.base, `pw-${randomBytes(6).toString('hex')}`)
    writeFileSync(file, as.password, { mode: 0o600 })
    const ended = spawnSync(programOf(program), [
      '-x', '-H', `ldap://127.0.0.1:${server.port}`, '-D', as.dn, '-y', file, ...words
    ], { input, encoding: 'utf8' })
    return { status: ended.status, output: `${ended.stdout}${ended.stderr}`.trimEnd() }
  }
  const made: LdapServer = {
    ...server,
    caFile: join(server.base, 'ca.crt'),
    hooksDn: `cn=hooks,${suffix}`,
    hooksPassword,
    ldif(text) {
      const { status, output } = client('ldapadd', root, [], text)
      if (status !== 0) throw new Error(output)
    },
    search: (base, filter, attributes = [], as = root) =>
      client('ldapsearch', as, ['-LLL', '-o', 'ldif-wrap=no', '-b', base, filter, ...attributes])
  }
  made.ldif(tree(hooksPassword, ppolicy))
  return made
}

function configure(place: Place, password: string, ppolicy: boolean): void {
  const { base } = place
  mkdirSync(join(base, 'data'))
  give(join(base, 'data'), place)
  makeCertificates(base, base, place.account)
  const schemas = ['core', 'cosine', 'nis', 'inetorgperson'].map(
    name => `include /etc/ldap/schema/${name}.schema`)
  const modules = ['back_mdb', 'back_monitor', 'memberof', 'refint', ...ppolicy ? ['ppolicy'] : []]
  const lines = [
    ...schemas, 'modulepath /usr/lib/ldap', ...modules.map(name => `moduleload ${name}`),
    `TLSCertificateFile ${join(base, 'server.crt')}`, `TLSCertificateKeyFile ${join(base, 'server.key')}`,
    'database monitor', `access to * by dn.exact="cn=hooks,${suffix}" read by * none`,
    'database mdb', `suffix "${suffix}"`, `rootdn "cn=admin,${suffix}"`, `rootpw ${password}`,
    `directory ${join(base, 'data')}`, 'dbnosync',
    `access to attrs=userPassword by dn.exact="cn=hooks,${suffix}" manage by anonymous auth by * none`,
    `access to * by dn.exact="cn=hooks,${suffix}" manage by users read by * none`,
    'overlay memberof', 'overlay refint', 'refint_attributes member',
    ...ppolicy ? ['overlay ppolicy', `ppolicy_default cn=policy,${suffix}`] : []
  ]
  const file = join(base, 'slapd.conf')
  writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 })
  give(file, place)
}

function tree(hooksPassword: string, ppolicy: boolean): string {
  return [
    [`dn: ${suffix}`, 'objectClass: dcObject', 'objectClass: organization', 'o: Example', 'dc: example'],
    [`dn: ou=people,${suffix}`, 'objectClass: organizationalUnit', 'ou: people'],
    [`dn: ou=groups,${suffix}`, 'objectClass: organizationalUnit', 'ou: groups'],
    [
      `dn: cn=hooks,${suffix}`, 'objectClass: organizationalRole', 'objectClass: simpleSecurityObject',
      'cn: hooks', `userPassword: ${hooksPassword}`
    ],
    ...ppolicy
      ? [[
          `dn: cn=policy,${suffix}`, 'objectClass: pwdPolicy', 'objectClass: organizationalRole',
          'cn: policy', 'pwdAttribute: userPassword', 'pwdLockout: TRUE'
        ]]
      : [],
    ...['ops', 'dba'].map(name => [
      `dn: cn=${name},ou=groups,${suffix}`, 'objectClass: groupOfNames', `cn: ${name}`,
      `member: cn=hooks,${suffix}`
    ])
  ].map(lines => `${lines.join('\n')}\n`).join('\n')
}
