// What kinds of things an SQL statement does, read from PostgreSQL's own parse tree (libpg_query's JSON): the
// words that rules are written in. Everything that stands in a statement counts, also below EXPLAIN, PREPARE,
// WITH and CREATE VIEW. What runs without standing there (the text of a DO block, the body of a function that
// is called) is not to be seen; `do`, `create-function` and `hidden-sql` say where such text is.
// Pure: a tree in, kinds out.

export const sqlKinds = [
  'select', 'insert', 'update', 'delete', 'merge', 'update-without-where', 'delete-without-where', 'truncate',
  'create', 'alter', 'drop', 'grant', 'revoke', 'comment',
  'create-role', 'alter-role', 'drop-role', 'drop-database', 'create-extension', 'create-function',
  'create-trigger', 'alter-system', 'foreign',
  'copy-from', 'copy-to', 'copy-program', 'server-file', 'server-control',
  'set', 'set-role', 'show', 'transaction', 'prepare', 'execute', 'cursor', 'explain', 'call', 'do',
  'hidden-sql', 'lock', 'maintenance', 'notify', 'function-call', 'other', 'unparsed'
] as const
export type SqlKind = typeof sqlKinds[number]

/** One of the statements of a message. */
export interface ParsedStatement {
  /** Without comments, and with single blanks; for patterns. */
  text: string
  kinds: readonly SqlKind[]
}

/** Longer texts are not parsed: megabytes of VALUES are data, and cost the parser milliseconds each. */
export const parsedBytesMax = 256 * 1024
/** PostgreSQL's lexer reads what stands behind each of them once more: thousands take it minutes. */
const commentsMax = 1000

/**
 * True for text that the parser and a server could read in two ways, or that would take too long. A byte of
 * another encoding than UTF-8 may have swallowed the backslash behind it.
 */
export function isUnreadable(sql: string): boolean {
  if (sql.length > parsedBytesMax || sql.includes('\0') || !sql.isWellFormed()) return true
  return /[^\0-\x7f]\\/.test(sql) || sql.split('/*').length > commentsMax
}

/**
 * True for a plain literal in which a quote stands behind a backslash: where `standard_conforming_strings`
 * is off it ends elsewhere, and what looks like text is run. `literal`: as it was written.
 */
export function endsElsewhere(literal: string): boolean {
  return literal.startsWith("'") && literal.includes("\\'")
}

type Node = Readonly<Record<string, unknown>>

/** Of statements that are no more than their name; the others are below. */
const plain: Readonly<Record<string, readonly SqlKind[]>> = {
  SelectStmt: ['select'], UpdateStmt: ['update'], DeleteStmt: ['delete'],
  MergeStmt: ['merge'], TruncateStmt: ['truncate'],
  IndexStmt: ['create'], ViewStmt: ['create'], RuleStmt: ['create', 'create-trigger'], DefineStmt: ['create'],
  CompositeTypeStmt: ['create'], CreatedbStmt: ['create'],
  CreateTrigStmt: ['create', 'create-trigger'], CreateEventTrigStmt: ['create', 'create-trigger'],
  CreateRoleStmt: ['create', 'create-role'], AlterRoleStmt: ['alter', 'alter-role'],
  AlterRoleSetStmt: ['alter', 'alter-role'], DropRoleStmt: ['drop', 'drop-role'],
  DropdbStmt: ['drop', 'drop-database'], CreateExtensionStmt: ['create', 'create-extension'],
  CreatePLangStmt: ['create', 'create-function'],
  RenameStmt: ['alter'], ReassignOwnedStmt: ['alter'], ImportForeignSchemaStmt: ['create', 'foreign'],
  AlterSystemStmt: ['alter', 'alter-system'], CommentStmt: ['comment'], SecLabelStmt: ['comment'],
  VariableShowStmt: ['show'], TransactionStmt: ['transaction'], PrepareStmt: ['prepare'],
  ExecuteStmt: ['execute'], DeallocateStmt: ['prepare'], DeclareCursorStmt: ['cursor'], FetchStmt: ['cursor'],
  ClosePortalStmt: ['cursor'], ExplainStmt: ['explain'], CallStmt: ['call'], DoStmt: ['do', 'hidden-sql'],
  LockStmt: ['lock'], VacuumStmt: ['maintenance'], ClusterStmt: ['maintenance'], ReindexStmt: ['maintenance'],
  CheckPointStmt: ['maintenance', 'server-control'], RefreshMatViewStmt: ['maintenance'],
  DiscardStmt: ['set', 'set-role'], LoadStmt: ['server-file'], ConstraintsSetStmt: ['set'],
  NotifyStmt: ['notify'], ListenStmt: ['notify'], UnlistenStmt: ['notify'], ReturnStmt: [], RawStmt: []
}

const verbs = ['create', 'alter', 'drop'] as const

/** Things outside the database that such statements are about. */
const foreignNames = /Foreign|UserMapping|Subscription|Publication/

/** Functions of PostgreSQL and of what ships with it that do more than their name in a SELECT suggests. */
const serverFile = new RegExp('^(?:pg_read_(?:binary_)?file|pg_stat_file|pg_ls_\\w+|pg_file_\\w+|'
  + 'pg_current_logfile|lo_(?:import|export))$')
const serverControl = new RegExp('^(?:pg_(?:terminate|cancel)_backend|pg_reload_conf|pg_rotate_logfile\\w*|'
  + 'pg_promote|pg_switch_wal|pg_wal_replay_\\w+|pg_(?:create|drop|copy)_\\w*replication_slot)$')
const hiddenSql = new RegExp('^(?:query_to_xml\\w*|cursor_to_xml\\w*|dblink\\w*|ts_stat|ts_rewrite|'
  + 'crosstab\\w*|connectby|xpath_table)$')
const attributes = new Set(['A_Indirection', 'ColumnRef'])
const roleSettings = new Set(['role', 'session_authorization'])

/** Kinds of one statement of libpg_query's tree. A tree of another shape has the kind `other`. */
export function kindsOf(statement: unknown): SqlKind[] {
  const kinds = new Set<SqlKind>()
  // A list of what is still to be looked at: trees may be deeper than a stack.
  const rest: unknown[] = [statement]
  while (rest.length > 0) {
    const value = rest.pop()
    if (typeof value !== 'object' || value === null) continue
    if (Array.isArray(value)) {
      for (const each of value) rest.push(each)
      continue
    }
    for (const [key, child] of Object.entries(value)) {
      if (typeof child !== 'object' || child === null) continue
      if (/^[A-Z]\w*Stmt$/.test(key)) for (const kind of statementKinds(key, child as Node)) kinds.add(kind)
      if (key === 'funcname') for (const kind of functionKinds(child, value as Node)) kinds.add(kind)
      if (attributes.has(key)) for (const kind of attributeKinds(child as Node)) kinds.add(kind)
      if (key === 'intoClause') kinds.add('create')
      if (key === 'MergeWhenClause') for (const kind of mergeKinds(child as Node)) kinds.add(kind)
      rest.push(child)
    }
  }
  return kinds.size === 0 ? ['other'] : [...kinds]
}

function statementKinds(name: string, node: Node): readonly SqlKind[] {
  switch (name) {
    case 'DeleteStmt': return isWithoutWhere(node) ? ['delete', 'delete-without-where'] : ['delete']
    case 'UpdateStmt': return isWithoutWhere(node) ? ['update', 'update-without-where'] : ['update']
    case 'InsertStmt': {
      const { action } = (node['onConflictClause'] ?? {}) as Node
      return action === 'ONCONFLICT_UPDATE' ? ['insert', 'update'] : ['insert']
    }
    case 'GrantStmt':
    case 'GrantRoleStmt': return [node['is_grant'] === true ? 'grant' : 'revoke']
    case 'AlterDefaultPrivilegesStmt':
      return ['alter', (node['action'] as Node | undefined)?.['is_grant'] === true ? 'grant' : 'revoke']
    case 'VariableSetStmt': {
      const isRole = roleSettings.has(String(node['name']).toLowerCase()) || node['kind'] === 'VAR_RESET_ALL'
      return isRole ? ['set', 'set-role'] : ['set']
    }
    case 'CopyStmt': {
      const way: SqlKind = node['is_from'] === true ? 'copy-from' : 'copy-to'
      if (node['is_program'] === true) return [way, 'copy-program']
      return node['filename'] === undefined ? [way] : [way, 'server-file']
    }
    case 'CreateFunctionStmt': return node['sql_body'] === undefined
      ? ['create', 'create-function', 'hidden-sql']
      : ['create', 'create-function']
  }
  const known = Object.hasOwn(plain, name) ? plain[name] : undefined
  if (known !== undefined) return known
  const verb = verbs.find(each => name.toLowerCase().startsWith(each))
  return [verb ?? 'other', ...foreignNames.test(name) ? ['foreign' as const] : []]
}

/** Also where what stands there is the same for all rows: `WHERE true`. */
function isWithoutWhere({ whereClause }: Node): boolean {
  return whereClause === undefined || !/"(?:ColumnRef|SubLink|CurrentOfExpr|FuncCall)":/
    .test(JSON.stringify(whereClause))
}

function mergeKinds({ commandType }: Node): readonly SqlKind[] {
  switch (commandType) {
    case 'CMD_DELETE': return ['delete']
    case 'CMD_UPDATE': return ['update']
    case 'CMD_INSERT': return ['insert']
    default: return []
  }
}

/** `(text).name` and `x.name` call a function that takes one argument. */
function attributeKinds({ indirection, fields }: Node): readonly SqlKind[] {
  const names = [indirection, Array.isArray(fields) ? fields.slice(1) : []].flat()
  return names.flatMap(name => typeof name === 'object' && name !== null ? functionKinds([name], {}) : [])
}

/** `name` is a list of `{ String: { sval } }`, the schema first. */
function functionKinds(name: object, call: Node): readonly SqlKind[] {
  const last = textOf(Object.values(name).at(-1), 'String')
  if (last === undefined) return []
  if (serverFile.test(last)) return ['server-file']
  if (serverControl.test(last)) return ['server-control']
  if (hiddenSql.test(last)) return ['hidden-sql']
  if (last !== 'set_config') return []
  const [setting] = Array.isArray(call['args']) ? call['args'] as unknown[] : []
  const literal = textOf((setting as Node | undefined)?.['A_Const'], 'sval', true)
  // A name that is put together at run time may be that of the role.
  return literal === undefined || roleSettings.has(literal.toLowerCase()) ? ['set', 'set-role'] : ['set']
}

function textOf(node: unknown, key: string, isInner = false): string | undefined {
  const inner = (node as Record<string, { sval?: unknown } | undefined> | undefined)?.[key]
  const value = isInner || key === 'String' ? inner?.sval : undefined
  return typeof value === 'string' ? value : undefined
}
