// A double of SQL Server for tests: the statements that the plugin sends, on logins, databases, users, roles
// and sessions in memory, with the server's rules and error numbers as its manual gives them. Whatever else
// is said is a syntax error, so that a statement nobody looked at cannot pass. It is no SQL Server.
import { createHash, randomBytes } from 'node:crypto'
import { systemClock } from '../../src/clock.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'
import { startTds } from './tds.ts'
import type { Answer, TdsLogin, TdsServer, TdsSession } from './tds.ts'

interface Login {
  name: string
  sid: string
  hash: string
  isDisabled: boolean
  policy: boolean
}

interface Database {
  owner: string
  /** Nobody but its owner gets in. */
  isShut: boolean
  /** Names of users by their SIDs. */
  users: Map<string, string>
  /** Name, owner and members, by users' names. */
  roles: Map<string, { owner: string, members: Set<string> }>
  schemas: Map<string, string>
  objects: { schema: string, name: string, owner: string }[]
}

interface Row {
  accountId: string
  epoch: number
  holder: string
  heldUntil: number
  goneAt: number | undefined
}

interface Session {
  login: string
  close(): void
  /** Looks that it outlives after KILL: what it did is being rolled back. */
  rollback: number
}

class Refusal extends Error {
  readonly number: number

  constructor(number: number, message: string) {
    super(message)
    this.number = number
  }
}

type Rule = readonly [RegExp, (found: string[], me: Session) => (string | null)[][]]

const name = String.raw`\[((?:[^\]]|\]\])+)\]`
const text = String.raw`N'((?:[^']|'')*)'`
const hex = '(0x[0-9A-F]+)'
const own = String.raw`\[sallyport\]\.\[dbo\]\.\[accounts\]`
export const serverRights = [
  'ALTER ANY LOGIN', 'ALTER ANY CONNECTION', 'VIEW SERVER STATE', 'VIEW ANY DEFINITION',
  'CONNECT ANY DATABASE'
]

const inDatabase = new RegExp(`^EXEC ${name}\\.sys\\.sp_executesql ${text}$`, 'i')

function pattern(source: string): RegExp {
  return new RegExp(`^${source}$`, 'i')
}

export class MssqlServer {
  readonly logins = new Map<string, Login>()
  readonly databases = new Map<string, Database>()
  readonly jobs: { name: string, owner: string }[] = []
  readonly sessions = new Map<number, Session>()
  /** Rights of logins that are no sysadmin. */
  readonly rights = new Map<string, Set<string>>()
  /** Every batch that it was told. */
  readonly log: string[] = []
  accounts: Map<string, Row> | undefined
  /** Happens before a batch is looked at; its answer is the batch's. */
  before: (sql: string) => Answer | undefined = () => undefined
  /** Batches until a connection breaks: that one happens, and its answer is lost. */
  losesIn = Infinity
  readonly #rules: readonly Rule[]
  #spid = 50

  constructor() {
    this.#rules = [...this.#looks(), ...this.#books(), ...this.#acts(), ...this.#estate()]
  }

  addLogin(login: string, password: string, rights: readonly string[] = []): void {
    const salt = randomBytes(4)
    const sid = `0x${randomBytes(16).toString('hex').toUpperCase()}`
    const hash = hashOf(password, salt)
    this.logins.set(login, { name: login, sid, hash, isDisabled: false, policy: true })
    this.rights.set(login, new Set(rights))
  }

  addDatabase(database: string, roles: readonly string[] = []): Database {
    const made: Database = {
      owner: '0x01', isShut: false, users: new Map(), schemas: new Map([['dbo', 'dbo']]), objects: [],
      roles: new Map(roles.map(role => [role, { owner: 'dbo', members: new Set<string>() }]))
    }
    this.databases.set(database, made)
    return made
  }

  sid(login: string): string {
    return this.logins.get(login)?.sid ?? ''
  }

  enter({ username, password, database }: TdsLogin, close: () => void): Answer | TdsSession {
    const login = this.logins.get(username)
    const salt = Buffer.from(login?.hash.slice(6, 14) ?? '', 'hex')
    if (login === undefined || hashOf(password, salt) !== login.hash) {
      return { error: 18456, message: `Login failed for user '${username}'.` }
    }
    if (login.isDisabled) {
      return { error: 18470, message: `Login failed for user '${username}': the account is disabled.` }
    }
    if (database !== '' && !this.databases.has(database)) {
      return { error: 4060, message: `Cannot open database "${database}" requested by the login.` }
    }
    const id = ++this.#spid
    const session: Session = { login: username, close, rollback: 0 }
    this.sessions.set(id, session)
    return { batch: sql => this.#answer(sql, session), ended: () => { this.sessions.delete(id) } }
  }

  async #answer(sql: string, me: Session): Promise<Answer> {
    const answer = this.#batch(sql, me)
    if (this.losesIn !== 0) return answer
    me.close()
    return await new Promise(() => undefined)
  }

  #batch(sql: string, me: Session): Answer {
    if (/^set [a-z]/.test(sql)) return { rows: [] }
    this.log.push(sql)
    const early = this.before(sql)
    if (early !== undefined) return early
    this.losesIn--
    try {
      return { rows: this.#say(sql, me) }
    } catch (error) {
      if (error instanceof Refusal) return { error: error.number, message: error.message }
      throw error
    }
  }

  #say(sql: string, me: Session): (string | null)[][] {
    const said = sql.replaceAll(/\s+/g, ' ').trim()
    const inner = inDatabase.exec(said)
    if (inner !== null) {
      const [, database = '', text = ''] = inner
      this.#inside(this.#database(unquoted(database)), text.replaceAll("''", "'"), me)
      return []
    }
    for (const [form, act] of this.#rules) {
      const found = form.exec(said)
      if (found !== null) return act(found.slice(1).map(unquoted), me)
    }
    throw new Refusal(102, `Incorrect syntax near '${said.slice(0, 200)}'.`)
  }

  #need(me: Session, right: string, refusal: Refusal): void {
    if (this.rights.get(me.login)?.has(right) !== true) throw refusal
  }

  #looks(): Rule[] {
    return [
      [pattern('SET LOCK_TIMEOUT \\d+'), () => []],
      [pattern(`SELECT CONVERT.*'ProductVersion'.*'EngineEdition'\\)\\)`), () => [['16.0.1000.6', '3']]],
      [pattern(`SELECT CONVERT.*'IsIntegratedSecurityOnly'.*IS_SRVROLEMEMBER\\(N'sysadmin'\\)\\)`),
        () => [['0', '0']]],
      [pattern('SELECT SUSER_SNAME\\(\\)'), (_, me) => [[me.login]]],
      [pattern(`SELECT CONVERT\\(nvarchar\\(1\\), is_disabled\\), CONVERT\\(nvarchar\\(180\\), sid, 1\\), type
        FROM sys\\.server_principals WHERE name = ${text}`.replaceAll(/\s+/g, ' ')), ([login = '']) => {
        const seen = this.logins.get(login)
        return seen === undefined ? [] : [[seen.isDisabled ? '1' : '0', seen.sid, 'S']]
      }],
      [pattern(`SELECT CONVERT\\(nvarchar\\(10\\), session_id\\) FROM sys\\.dm_exec_sessions WHERE
        original_login_name = ${text} AND is_user_process = 1`.replaceAll(/\s+/g, ' ')), ([login], me) => {
        this.#need(me, 'VIEW SERVER STATE', new Refusal(300, 'VIEW SERVER STATE permission was denied.'))
        return [...this.sessions].filter(([, one]) => one.login === login).map(([id, one]) => {
          if (one.rollback > 0 && --one.rollback === 0) one.close()
          return [String(id)]
        })
      }],
      [pattern(`SELECT CONVERT\\(nvarchar\\(1\\), HAS_PERMS_BY_NAME\\(NULL, NULL, ${text}\\)\\)`),
        ([right = ''], me) => [[this.rights.get(me.login)?.has(right) === true ? '1' : '0']]],
      [pattern(`SELECT CONVERT.* HAS_PERMS_BY_NAME\\(${text}, N'DATABASE', N'CONTROL'\\)\\)`),
        ([database = ''], me) => {
          const { users, roles } = this.#database(database.slice(1, -1))
          const user = users.get(this.sid(me.login)) ?? ''
          return [[roles.get('db_owner')?.members.has(user) === true ? '1' : '0']]
        }],
      [pattern(`SELECT name, CONVERT\\(.*HAS_DBACCESS\\(name\\)\\) FROM sys\\.databases .*`), () =>
        [...this.databases].map(([database, { isShut }]) => [database, isShut ? '0' : '1'])]
    ]
  }

  #books(): Rule[] {
    const rows = (): Map<string, Row> => {
      if (this.accounts === undefined) throw new Refusal(208, "Invalid object name 'sallyport.dbo.accounts'.")
      return this.accounts
    }
    const now = (): number => systemClock.now().getTime()
    return [
      [pattern(`SELECT account_id,.*FROM ${own} WHERE name = ${text}`), ([account = '']) => {
        const row = rows().get(account)
        if (row === undefined) return []
        return [[row.accountId, String(row.epoch), row.holder, String(Math.round(row.heldUntil - now()))]]
      }],
      [pattern(`INSERT INTO ${own} .* SELECT ${text}, N'', 0, .*`), ([account = '']) => {
        if (!rows().has(account)) {
          rows().set(account, { accountId: '', epoch: 0, holder: '', heldUntil: now(), goneAt: undefined })
        }
        return []
      }],
      [pattern(`UPDATE ${own} SET holder = ${text}, held_until = DATEADD\\(second, (\\d+), .* OUTPUT
        inserted\\.name WHERE name = ${text} AND .*`.replaceAll(/\s+/g, ' ')),
      ([holder = '', seconds, account = '']) => {
        const row = rows().get(account)
        if (row === undefined || (row.holder !== holder && row.heldUntil > now())) return []
        Object.assign(row, { holder, heldUntil: now() + Number(seconds) * 1000 })
        return [[account]]
      }],
      [pattern(`UPDATE ${own} SET account_id = ${text}, epoch = (\\d+), gone_at = NULL WHERE name = ${text}`),
        ([accountId = '', epoch, account = '']) => {
          const row = rows().get(account)
          if (row !== undefined) Object.assign(row, { accountId, epoch: Number(epoch), goneAt: undefined })
          return []
        }],
      [pattern(`UPDATE ${own} SET gone_at = SYSUTCDATETIME\\(\\) WHERE name = ${text}`), ([account = '']) => {
        const row = rows().get(account)
        if (row !== undefined) row.goneAt = now()
        return []
      }],
      [pattern(`DELETE FROM ${own} WHERE gone_at < DATEADD\\(hour, -24, SYSUTCDATETIME\\(\\)\\)`), () => []],
      [pattern(`SELECT name, account_id FROM ${own} WHERE gone_at IS NULL AND account_id <> N''.*`), () =>
        [...rows()].filter(([, row]) => row.goneAt === undefined && row.accountId !== '')
          .map(([account, { accountId }]) => [account, accountId])],
      [pattern(`CREATE TABLE ${own} .*`), () => {
        this.accounts ??= new Map()
        return []
      }]
    ]
  }

  #acts(): Rule[] {
    const denied = new Refusal(15247, 'User does not have permission to perform this action.')
    const login = (me: Session, account: string, act: string): Login => {
      const seen = this.logins.get(account)
      const gone = `Cannot ${act} the login '${account}', because it does not exist or you may not.`
      this.#need(me, 'ALTER ANY LOGIN', new Refusal(15151, gone))
      if (seen === undefined) throw new Refusal(15151, gone)
      return seen
    }
    return [
      [pattern(`CREATE LOGIN ${name} WITH PASSWORD = ${hex} HASHED, SID = ${hex}, DEFAULT_DATABASE = ${name},
        CHECK_POLICY = OFF`.replaceAll(/\s+/g, ' ')),
      ([account = '', hash = '', sid = '', database = ''], me) => {
        this.#need(me, 'ALTER ANY LOGIN', denied)
        if (this.logins.has(account)) {
          throw new Refusal(15025, `The server principal '${account}' already exists.`)
        }
        if (!/^0x0200[0-9A-F]{136}$/.test(hash)) throw new Refusal(15021, 'Invalid value for parameter.')
        if (sid.length !== 34 || [...this.logins.values()].some(one => one.sid === sid)) {
          throw new Refusal(15433, 'Supplied parameter sid is in use.')
        }
        if (!this.databases.has(database)) {
          throw new Refusal(15010, `The database '${database}' does not exist.`)
        }
        this.logins.set(account, { name: account, sid, hash, isDisabled: false, policy: false })
        return []
      }],
      [pattern(`ALTER LOGIN ${name} WITH CHECK_POLICY = OFF`), ([account = ''], me) => {
        login(me, account, 'alter').policy = false
        return []
      }],
      [pattern(`ALTER LOGIN ${name} WITH PASSWORD = ${hex} HASHED`), ([account = '', hash = ''], me) => {
        const seen = login(me, account, 'alter')
        if (seen.policy) throw new Refusal(15128, 'The HASHED option cannot be used when CHECK_POLICY is ON.')
        seen.hash = hash
        return []
      }],
      [pattern(`ALTER LOGIN ${name} (ENABLE|DISABLE)`), ([account = '', word = ''], me) => {
        login(me, account, 'alter').isDisabled = word.toUpperCase() === 'DISABLE'
        return []
      }],
      [pattern(`DROP LOGIN ${name}`), ([account = ''], me) => {
        const { sid } = login(me, account, 'drop')
        if ([...this.sessions.values()].some(one => one.login === account)) {
          throw new Refusal(15434, `Could not drop login '${account}' as the user is currently logged in.`)
        }
        if ([...this.databases.values()].some(({ owner }) => owner === sid)) {
          throw new Refusal(15174, `Login '${account}' owns one or more database(s).`)
        }
        if (this.jobs.some(({ owner }) => owner === sid)) {
          throw new Refusal(15170, 'This login is the owner of 1 job(s).')
        }
        this.logins.delete(account)
        return []
      }],
      [pattern('KILL (\\d+)'), ([id = ''], me) => {
        this.#need(me, 'ALTER ANY CONNECTION', new Refusal(6102, 'User may not use the KILL statement.'))
        const session = this.sessions.get(Number(id))
        if (session === undefined) throw new Refusal(6106, `Process ID ${id} is not an active process ID.`)
        if (session === me) throw new Refusal(6104, 'Cannot use KILL to kill your own process.')
        if (session.rollback === 0) session.close()
        return []
      }]
    ]
  }

  #estate(): Rule[] {
    const at = String.raw`\[((?:[^\]]|\]\])+)\]\.sys\.`
    return [
      [pattern(`SELECT name FROM ${at}database_principals WHERE sid = ${hex}`),
        ([database = '', sid = '']) => {
          const user = this.#database(database).users.get(sid)
          return user === undefined ? [] : [[user]]
        }],
      [pattern(`SELECT r\\.name FROM ${at}database_role_members m .* WHERE u\\.sid = ${hex}`),
        ([database = '', sid = '']) => {
          const { users, roles } = this.#database(database)
          const user = users.get(sid) ?? ''
          return [...roles].filter(([, { members }]) => members.has(user)).map(([role]) => [role])
        }],
      [pattern(`SELECT N'schema', N'', s\\.name FROM ${at}schemas s .* UNION ALL .* WHERE u\\.sid = ${hex}`),
        ([database = '', ...rest]) => {
          const { users, roles, schemas, objects } = this.#database(database)
          const user = users.get(rest.at(-1) ?? '')
          if (user === undefined) return []
          return [
            ...[...schemas].filter(([, owner]) => owner === user).map(([schema]) => ['schema', '', schema]),
            ...[...roles].filter(([, { owner }]) => owner === user).map(([role]) => ['role', '', role]),
            ...objects.filter(({ owner }) => owner === user).map(one => ['object', one.schema, one.name]),
            ['user', '', user]
          ]
        }],
      [pattern(`SELECT N'database', name FROM sys\\.databases WHERE owner_sid = ${hex}`), ([sid]) =>
        [...this.databases].filter(([, { owner }]) => owner === sid).map(([found]) => ['database', found])],
      [pattern(`SELECT N'job', name FROM \\[msdb\\]\\.\\[dbo\\]\\.\\[sysjobs\\] WHERE owner_sid = ${hex}`),
        ([sid]) => this.jobs.filter(({ owner }) => owner === sid).map(job => ['job', job.name])],
      [pattern(`SELECT N'endpoint', e\\.name FROM sys\\.endpoints e .*`), () => []]
    ]
  }

  #database(database: string): Database {
    const found = this.databases.get(database)
    if (found === undefined) throw new Refusal(911, `Database '${database}' does not exist.`)
    if (found.isShut) throw new Refusal(916, `The server principal cannot access the database "${database}".`)
    return found
  }

  /** What runs in a database, as one who is there as db_owner. */
  #inside({ users, roles, schemas, objects }: Database, sql: string, me: Session): void {
    if (roles.get('db_owner')?.members.has(users.get(this.sid(me.login)) ?? '') !== true) {
      throw new Refusal(15247, 'User does not have permission to perform this action.')
    }
    const gone = (what: string, which = ''): Refusal => new Refusal(15151,
      `Cannot find the ${what} '${which}', because it does not exist or you do not have permission.`)
    const match = (form: string): string[] | undefined => pattern(form).exec(sql)?.slice(1).map(unquoted)
    let found = match(`CREATE USER ${name} FOR LOGIN ${name}`)
    if (found !== undefined) {
      const [user = '', login = ''] = found
      if (!this.logins.has(login)) throw new Refusal(15007, `'${login}' is not a valid login.`)
      if ([...users.values()].includes(user)) throw new Refusal(15023, `User '${user}' already exists.`)
      users.set(this.sid(login), user)
    } else if ((found = match(`ALTER ROLE ${name} (ADD|DROP) MEMBER ${name}`)) !== undefined) {
      const [role = '', word = '', user = ''] = found
      const members = roles.get(role)?.members
      if (members === undefined) throw gone('role', role)
      if (![...users.values()].includes(user)) throw gone('principal', user)
      if (word.toUpperCase() === 'ADD') members.add(user)
      else members.delete(user)
    } else if ((found = match(`ALTER AUTHORIZATION ON SCHEMA::${name} TO \\[dbo\\]`)) !== undefined) {
      schemas.set(found[0] ?? '', 'dbo')
    } else if ((found = match(`ALTER AUTHORIZATION ON ROLE::${name} TO \\[dbo\\]`)) !== undefined) {
      const role = roles.get(found[0] ?? '')
      if (role === undefined) throw gone('role', found[0])
      role.owner = 'dbo'
    } else if ((found = match(`ALTER AUTHORIZATION ON OBJECT::${name}\\.${name} TO SCHEMA OWNER`))
      !== undefined) {
      const [schema, which] = found
      const one = objects.find(object => object.schema === schema && object.name === which)
      if (one === undefined) throw gone('object', which)
      one.owner = ''
    } else if ((found = match(`DROP USER ${name}`)) !== undefined) {
      const [user = ''] = found
      const [sid] = [...users].find(([, one]) => one === user) ?? []
      if (sid === undefined) throw gone('user', user)
      if ([...schemas.values()].includes(user)) {
        throw new Refusal(15138, 'The database principal owns a schema, and cannot be dropped.')
      }
      if ([...roles.values()].some(({ owner }) => owner === user)) {
        throw new Refusal(15421, 'The database principal owns a database role and cannot be dropped.')
      }
      if (objects.some(({ owner }) => owner === user)) {
        throw new Refusal(15138, 'The database principal owns objects in the database and cannot be dropped.')
      }
      for (const { members } of roles.values()) members.delete(user)
      users.delete(sid)
    } else throw new Refusal(102, `Incorrect syntax near '${sql.slice(0, 200)}'.`)
  }
}

function unquoted(found: string | undefined): string {
  return (found ?? '').replaceAll(']]', ']').replaceAll("''", "'")
}

function hashOf(password: string, salt: Buffer): string {
  const digest = createHash('sha512').update(Buffer.from(password, 'utf16le')).update(salt).digest()
  return `0x0200${Buffer.concat([salt, digest]).toString('hex').toUpperCase()}`
}

export interface MssqlDouble extends TdsServer {
  server: MssqlServer
  /** PEM of its certificate. */
  ca: string
}

/** A server with a login for hooks that has what the documents name, and a database with two roles. */
export async function startMssql(): Promise<MssqlDouble> {
  const server = new MssqlServer()
  server.addLogin('hooks', 'of-the-hooks', serverRights)
  const hooksSid = server.sid('hooks')
  for (const [database, roles] of [
    ['master', []], ['sallyport', []], ['app', ['app_rw', 'app_ro']]
  ] as const) {
    const { users, roles: made } = server.addDatabase(database, [...roles, 'db_owner'])
    if (database === 'master') continue
    users.set(hooksSid, 'hooks')
    made.get('db_owner')?.members.add('hooks')
  }
  const now = systemClock.now().getTime()
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'a double', names: ['127.0.0.1', 'localhost'], validFrom: new Date(now - 3_600_000),
    validUntil: new Date(now + 3_600_000)
  })
  const tds = await startTds({
    tls: { certificate, key: privateKey }, login: (login, close) => server.enter(login, close)
  })
  return { ...tds, server, ca: certificate }
}
