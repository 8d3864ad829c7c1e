// Where in the text of a template a problem is: on which line an editor marks it. A problem begins with the
// path of what is wrong (`steps[0].sql: …`); YAML's own name the line; a hole is looked for as it is written.
// A path that the text does not have (what is missing) leads to the nearest thing around it.
import { LineCounter, isMap, isNode, isPair, isScalar, isSeq, parseDocument } from 'yaml'
import type { Node, Pair } from 'yaml'

/** Deeper paths are in no problem. */
const stepsMax = 8

/** The line of each problem, from 1; undefined where it is about the whole text. */
export function linesOf(text: string, problems: readonly string[]): (number | undefined)[] {
  const counter = new LineCounter()
  let root: unknown
  try {
    root = parseDocument(text, { lineCounter: counter, logLevel: 'silent', strict: false }).contents
  } catch {
    // Too deep to be a template: its problem is about the whole text.
    return problems.map(() => undefined)
  }
  return problems.map(problem => {
    const [, stated] = /\bat line (\d{1,6}), column \d/.exec(problem) ?? []
    if (stated !== undefined) return Number(stated)
    // What is used and not declared stands in a hole, not among the variables.
    const [, hole, used] = /\{\{\s*(\w+)\s*\}\}|^variables\.(\w+): used /.exec(problem) ?? []
    const name = hole ?? used
    if (name !== undefined) return lineWith(text, name)
    const offset = offsetOf(root, stepsOf(problem))
    return offset === undefined ? undefined : counter.linePos(offset).line
  })
}

/** `steps[0].sql: more than one` → steps, 0, sql. */
function stepsOf(problem: string): (string | number)[] {
  const [, path = ''] = /^([A-Za-z_][\w-]*(?:\[\d{1,5}\]|\.[\w-]+)*):\s/.exec(problem) ?? []
  return [...path.matchAll(/\[(\d+)\]|[\w-]+/g)].slice(0, stepsMax)
    .map(([word, index]) => index === undefined ? word : Number(index))
}

function offsetOf(root: unknown, steps: readonly (string | number)[]): number | undefined {
  let found: number | undefined
  let at: unknown = root
  for (const step of steps) {
    if (isMap(at)) {
      const pair: Pair | undefined = at.items.find(each =>
        isPair(each) && isScalar(each.key) && each.key.value === step)
      if (pair === undefined) return found
      found = startOf(pair.key) ?? found
      at = pair.value
    } else if (isSeq(at) && typeof step === 'number') {
      at = at.items[step]
      found = startOf(at) ?? found
    } else return found
  }
  return found
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node as Node).range?.[0] : undefined
}

function lineWith(text: string, name: string): number | undefined {
  const at = text.split('\n').findIndex(line => /\{[{%]/.test(line) && new RegExp(`\\b${name}\\b`).test(line))
  return at < 0 ? undefined : at + 1
}
