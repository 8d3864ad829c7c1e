// XML as some services answer in (AWS' Query APIs): elements and text, nothing else. A document type, and
// with it every entity of its own, is refused; so is what is nested deeper or has more elements than any
// answer of theirs. Attributes are passed over.
import { WireError } from '../../src/wire/error.ts'

export type XmlValue = string | XmlValue[] | { [name: string]: XmlValue }

const depthMax = 32
const elementsMax = 20_000
const pieceForm = /<(?:\?[^>]*\?|!--[\s\S]*?--|(\/?)([A-Za-z_][\w.:-]*)((?:\s[^<>]*?)?)(\/?))>|([^<]+)/y
const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: '\'' }

interface Open {
  name: string
  text: string
  children: [string, XmlValue][]
}

/** Element names as keys; a list is an element whose children are all `member`. @throws WireError */
export function parseXml(text: string): XmlValue {
  const root: Open = { name: '', text: '', children: [] }
  const open = [root]
  let elements = 0
  pieceForm.lastIndex = 0
  for (let at = 0; at < text.length; at = pieceForm.lastIndex) {
    const found = pieceForm.exec(text)
    const top = open.at(-1)!
    if (found === null) throw new WireError('the answer is not XML that we read')
    const [, slash, name, , empty, characters] = found
    if (characters !== undefined) top.text += unescaped(characters)
    if (name === undefined) continue
    if (slash === '/') {
      open.pop()
      if (top.name !== name || open.length === 0) throw new WireError('an element is not closed')
      open.at(-1)!.children.push([name, valueOf(top)])
    } else if (empty === '/') top.children.push([name, ''])
    else open.push({ name, text: '', children: [] })
    if (open.length > depthMax || ++elements > elementsMax) throw new WireError('the answer is too large')
  }
  if (open.length !== 1) throw new WireError('the answer is not complete')
  return valueOf(root)
}

function valueOf({ text, children }: Open): XmlValue {
  if (children.length === 0) return text
  if (children.every(([name]) => name === 'member')) return children.map(([, value]) => value)
  return Object.fromEntries(children)
}

function unescaped(text: string): string {
  return text.replaceAll(/&(?:#(\d{1,7})|#x([0-9A-Fa-f]{1,6})|(\w+));/g, (_all, decimal, hex, name) => {
    const code = decimal === undefined ? parseInt(String(hex), 16) : Number(decimal)
    const known = name === undefined ? undefined : entities[String(name)]
    if (known !== undefined) return known
    if (name !== undefined || code > 0x10ffff) throw new WireError('an entity that is not known')
    return String.fromCodePoint(code)
  })
}
