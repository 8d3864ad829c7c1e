// Which statements, commands and files a grant lets pass within a session: its rules in their order, the
// first that fits decides, and what none fits is allowed. Several statements in one message are judged each,
// and the strictest verdict counts for all. What cannot be judged (a text that no parser reads, one that is
// too long, a path that climbs out of an unknown folder) counts against whoever sent it. Pure: what is asked
// in, a finding out; SECURITY.md says what such rules cannot stop.
import {
  elsewhereMatcher, folderMatcher, nameMatcher, pathMatcher, patternMatcher, searchedLengthMax
} from './pattern.ts'
import type { Matcher } from './pattern.ts'
import { isUnreadable } from './sql-kinds.ts'
import type { ParsedStatement, SqlKind } from './sql-kinds.ts'
import { ruleActions } from './types.ts'
import type { Rule, RuleAction } from './types.ts'

/** What was found; without a rule: nothing fits, or what it is could not be told. */
export interface Finding {
  then: RuleAction
  /** Place in the list, from 1. */
  rule: number | undefined
  source: Rule | undefined
  /** SQL: of the strictest statement, those that the rule is about. */
  kinds: readonly SqlKind[]
}

/** The rules of one grant, ready to be asked. */
export interface Rulebook {
  /** Undefined where no rule is about it: nothing has to be looked at. */
  readonly sql: SqlRules | undefined
  readonly command: ((text: string) => Finding) | undefined
  readonly file: ((direction: FileDirection, path: string, place?: FilePlace) => Finding) | undefined
}

export interface SqlRules {
  /** Some rule has a pattern: statements are wanted with their text. */
  readonly wantsText: boolean
  /** `parsed` is undefined for what could not be read, and `raw` for what is not known to its end. */
  judge(parsed: readonly ParsedStatement[] | undefined, raw: string | undefined): Finding
}

/** `look`: neither; lists and attributes. */
export type FileDirection = 'upload' | 'download' | 'look'

export interface FilePlace {
  /** Where relative paths begin; undefined: not known. */
  home?: string | undefined
  /** It may be a folder, and then it is about all that is in it. */
  isTree?: boolean | undefined
  /** Which files it is about is not known. */
  isVague?: boolean | undefined
}

interface Compiled {
  rule: Rule
  number: number
  kinds: ReadonlySet<SqlKind> | undefined
  matches: Matcher | undefined
  /** Of a path: what else it may mean. */
  folder?: Matcher
  elsewhere?: Matcher
  name?: Matcher
}

const allowed: Finding = { then: 'allow', rule: undefined, source: undefined, kinds: [] }
const unnamed: Finding = { then: 'refuse', rule: undefined, source: undefined, kinds: ['unparsed'] }

/** @throws SallyportError `invalid` for a pattern that is none, which no applied document has */
export function createRulebook(rules: readonly Rule[]): Rulebook {
  const of = (on: Rule['on']): readonly Compiled[] => rules.flatMap((rule, index) =>
    rule.on === on ? [compiled(rule, index + 1)] : [])
  const [sql, command, file] = [of('sql'), of('command'), of('file')]
  return {
    sql: sql.length === 0 ? undefined : sqlRules(sql),
    command: command.length === 0 ? undefined : text => first(command, [], each => found(each, text)),
    file: file.length === 0 ? undefined : (direction, path, place) => judgeFile(file, direction, path, place)
  }
}

/** Rules that let pass what they fit. */
export function passes({ then }: Pick<Rule, 'then'>): boolean {
  return then === 'allow' || then === 'warn'
}

function compiled(rule: Rule, number: number): Compiled {
  const matches = rule.pattern !== undefined
    ? patternMatcher(rule.pattern)
    : rule.path === undefined ? undefined : pathMatcher(rule.path)
  const more = rule.path === undefined
    ? {}
    : {
        folder: folderMatcher(rule.path), elsewhere: elsewhereMatcher(rule.path),
        name: nameMatcher(rule.path)
      }
  return { ...more, rule, number, matches, kinds: rule.kinds === undefined ? undefined : new Set(rule.kinds) }
}

function first(
  rules: readonly Compiled[], kinds: readonly SqlKind[], fits: (each: Compiled) => boolean
): Finding {
  const hit = rules.find(fits)
  if (hit === undefined) return allowed
  const concerned = hit.kinds === undefined ? kinds : kinds.filter(kind => hit.kinds!.has(kind))
  return { then: hit.rule.then, rule: hit.number, source: hit.rule, kinds: concerned }
}

/** A text that cannot be searched, or is too long to be, fits what forbids, and nothing that allows. */
function found({ rule, matches }: Compiled, text: string | undefined): boolean {
  if (matches === undefined) return true
  return text === undefined || text.length > searchedLengthMax ? !passes(rule) : matches(text)
}

// ---- SQL

function sqlRules(rules: readonly Compiled[]): SqlRules {
  const hasKinds = rules.some(({ kinds }) => kinds !== undefined)
  return {
    wantsText: rules.some(({ matches }) => matches !== undefined),
    judge(parsed, raw) {
      if (parsed === undefined) return judgeUnparsed(rules, hasKinds, raw)
      const findings = parsed.map(statement => judgeStatement(rules, hasKinds, statement))
      return findings.reduce((one, other) =>
        strictness(other) > strictness(one) ? other : one, findings[0] ?? allowed)
    }
  }
}

function strictness({ then }: Finding): number {
  return ruleActions.indexOf(then)
}

function judgeStatement(
  rules: readonly Compiled[], hasKinds: boolean, { text, kinds }: ParsedStatement
): Finding {
  // A call by number: what it does is known no more than of a text that cannot be read.
  const isHidden = hasKinds && kinds.includes('unparsed')
  const finding = first(rules, kinds, each => {
    if (each.kinds === undefined) return !(isHidden && passes(each.rule)) && found(each, text)
    return kinds.some(kind => each.kinds!.has(kind)) && found(each, text)
  })
  return finding === allowed && isHidden ? unnamed : finding
}

/**
 * Nobody knows what is in it: where kinds matter, only a rule that names `unparsed` lets it pass, and
 * without one it is refused. What a server may read in another way than it is written fits each pattern that
 * forbids.
 */
function judgeUnparsed(
  rules: readonly Compiled[], hasKinds: boolean, raw: string | undefined
): Finding {
  const searched = raw === undefined || isUnreadable(raw) || raw.includes("\\'") ? undefined : raw
  const finding = first(rules, ['unparsed'], each => {
    const named = each.kinds?.has('unparsed') === true
    if (each.kinds !== undefined && !named) return false
    if (hasKinds && !named && passes(each.rule)) return false
    return found(each, searched)
  })
  return finding === allowed && hasKinds ? unnamed : finding
}

// ---- files

function judgeFile(
  rules: readonly Compiled[], direction: FileDirection, path: string, place: FilePlace = {}
): Finding {
  // A zero byte: some servers take it, and what is behind it, away.
  const forms = place.isVague === true || path.includes('\0') ? undefined : formsOf(path, place.home)
  const judge = (isLed: boolean): Finding => first(rules, [], each => {
    const { rule, matches } = each
    if (rule.direction !== undefined && rule.direction !== direction) return false
    if (matches === undefined) return true
    if (forms === undefined) return !passes(rule)
    if (isLed && passes(rule)) return false
    if (isLed && (place.isTree === true || each.name?.(forms[0]!) === true)) return true
    return forms.some(form => found(each, form)
      || (!passes(rule) && mayFit(each, form, place.isTree === true, place.home !== undefined)))
  })
  const isLed = direction !== 'look' && forms !== undefined && leadsAway(path, forms[0]!, place)
  const finding = judge(isLed)
  // Nothing forbids it wherever it leads: then what its text says counts.
  return isLed && finding === allowed ? judge(false) : finding
}

/** What a rule forbids is forbidden under every name that may mean it, and with the folder that it is in. */
function mayFit({ folder, elsewhere }: Compiled, form: string, isTree: boolean, isPlaced: boolean): boolean {
  if (!isPlaced && elsewhere?.(form) === true) return true
  return isTree && (form === '/' || form === '' || folder?.(form) === true)
}

/**
 * A path as rules may write it: absolute, and relative to the home where it is in there. As it is where the
 * home is not known; undefined where it leaves a folder that only the target knows.
 */
function formsOf(path: string, home: string | undefined): string[] | undefined {
  const plain = plainPath(home === undefined || path.startsWith('/') ? path : `${home}/${path}`)
  if (plain === undefined) return undefined
  const folder = home === undefined ? undefined : plainPath(home)
  if (folder === undefined) return [plain]
  const inside = folder === '/' ? '/' : `${folder}/`
  if (plain === folder) return [plain, '']
  return plain.startsWith(inside) ? [plain, plain.slice(inside.length)] : [plain]
}

/** Links of Linux itself to the root and to the folder that a process is in. */
const processLinks = /^\/proc\/[^/]+\/(?:task\/[^/]+\/)?(?:root|cwd)(?:\/|$)/

/**
 * Where it leads only the target knows, but for the last name: behind `..` of a folder that may be a link
 * (`/var/run/../etc` is `/etc`), and behind the links of Linux itself. The home is what a target calls it
 * when it has followed all links, so that its own folders are none.
 */
function leadsAway(path: string, plain: string, { home, isTree }: FilePlace): boolean {
  if (processLinks.test(plain) || (isTree === true && /^\/proc(?:\/|$)/.test(plain))) return true
  const sure = home?.split('/').filter(part => part !== '') ?? []
  const parts = home === undefined || path.startsWith('/') ? [] : [...sure]
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.some((each, index) => each !== sure[index])) return true
    else parts.pop()
  }
  return false
}

/** Without `.`, `..` and doubled slashes; undefined where it leaves a folder that only the target knows. */
export function plainPath(path: string): string | undefined {
  const parts: string[] = []
  const isAbsolute = path.startsWith('/')
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined && !isAbsolute) return undefined
  }
  return (isAbsolute ? '/' : '') + parts.join('/')
}
