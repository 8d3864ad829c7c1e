// How a login name says who wants what. People know many grammars (`alice+root@web01`, `alice:root@web01`,
// `alice[root@web01]` …); all are read alike, `+` is the one that we print, because it works in scp, rsync
// and URLs. Reading is all that happens here: nothing is looked up, so nothing can be found out by trying
// names.

export interface LoginName {
  user: string
  /** Credential, or account name on the target; absent for a bare login. */
  credential?: string | undefined
  target?: string | undefined
  /** PostgreSQL: the database, when the grammar stood in `dbname` as `user+credential@target/database`. */
  database?: string | undefined
  /** The grammar that was recognised: its separator, or `bare`. */
  grammar: 'bare' | '+' | ':' | '%' | '#' | '@' | '['
}

// Longer names are refused before any work is done on them (a login name reaches us before authentication).
export const loginNameBytesMax = 256

const part = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/

/**
 * Reads a login name (D2). For PostgreSQL the grammar may stand in `database` instead, when `login` is bare.
 * Returns undefined when the text is no login name of any grammar: metacharacters, empty parts, too long.
 */
export function readLoginName(login: string, database?: string): LoginName | undefined {
  const fromLogin = readOne(login)
  if (fromLogin === undefined || fromLogin.grammar !== 'bare' || database === undefined) return fromLogin
  if (!/[+:%#@[]/.test(database)) return fromLogin
  const slash = database.lastIndexOf('/')
  const text = slash < 0 ? database : database.slice(0, slash)
  const fromDatabase = readOne(/^[+:%#@[]/.test(text) ? fromLogin.user + text : text)
  if (fromDatabase === undefined || fromDatabase.user !== fromLogin.user) return undefined
  return { ...fromDatabase, ...(slash < 0 ? {} : { database: database.slice(slash + 1) }) }
}

function readOne(text: string): LoginName | undefined {
  if (text.length === 0 || Buffer.byteLength(text) > loginNameBytesMax) return undefined
  const at = text.search(/[+:%#@[]/)
  if (at < 0) return part.test(text) ? { user: text, grammar: 'bare' } : undefined
  const grammar = text[at] as Exclude<LoginName['grammar'], 'bare'>
  const user = text.slice(0, at)
  let rest = text.slice(at + 1)
  if (grammar === '[') {
    if (!rest.endsWith(']')) return undefined
    rest = rest.slice(0, -1)
  }
  const [credential = '', target, ...more] = rest.split('@')
  if (more.length > 0 || !part.test(user) || !part.test(credential)) return undefined
  if (target === undefined) return { user, credential, grammar }
  return part.test(target) ? { user, credential, target, grammar } : undefined
}

/** The canonical form of a login name, as we print it. */
export function printLoginName({ user, credential, target }: LoginName): string {
  if (credential === undefined) return user
  return target === undefined ? `${user}+${credential}` : `${user}+${credential}@${target}`
}
