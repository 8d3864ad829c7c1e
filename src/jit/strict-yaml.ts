// YAML as templates are written in: one mapping in YAML 1.2, without anchors, aliases, tags or repeated keys,
// and not longer than a page. What a stranger could hide in a file (a bomb of aliases, a key that overrides
// another one) is refused before anything is made of it.
import { isAlias, isMap, isPair, isScalar, isSeq, parseAllDocuments, visit } from 'yaml'

/** A template is a page; the largest that ships has 5 KB. */
export const templateBytesMax = 65_536

/** What the document is, mappings as maps; undefined once a problem was told. */
export function readStrictYaml(text: string, tell: (problem: string) => void): unknown {
  if (Buffer.byteLength(text) > templateBytesMax) return void tell(`longer than ${templateBytesMax} bytes`)
  const problems: string[] = []
  let value: unknown
  try {
    const documents = parseAllDocuments(
      text, { version: '1.2', schema: 'core', strict: true, uniqueKeys: true, logLevel: 'silent' }
    )
    const document = Array.isArray(documents) ? documents[0] : undefined
    if (document === undefined || documents.length !== 1) problems.push('must be one YAML document')
    for (const error of [...document?.errors ?? [], ...document?.warnings ?? []]) {
      problems.push(error.message.split('\n', 1)[0] ?? 'not YAML')
    }
    if (document !== undefined && problems.length === 0) {
      visit(document, (_key, node) => {
        const marked = isMap(node) || isSeq(node) || isScalar(node)
        if (isAlias(node) || (marked && node.anchor !== undefined)) {
          problems.push('anchors and aliases are not allowed')
        }
        if (marked && node.tag !== undefined) problems.push(`the tag ${node.tag} is not allowed`)
        if (isPair(node) && !(isScalar(node.key) && typeof node.key.value === 'string')) {
          problems.push('every key must be a word')
        }
      })
      if (problems.length === 0) value = document.toJS({ mapAsMap: true, maxAliasCount: 0 })
    }
  } catch (error) {
    // Deep nesting ends in a RangeError; whatever it is, it is not a template.
    problems.push(`cannot be read as YAML: ${error instanceof Error ? error.message : String(error)}`)
  }
  for (const problem of problems) tell(problem)
  return problems.length === 0 ? value : undefined
}
