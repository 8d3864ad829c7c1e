// The terminal emulator, xterm, as it is published: loaded only by the page that has a terminal. It writes
// style sheets and style attributes as text, which the console's policy forbids to everybody; so its style
// elements become sheets of the page's own making. What a target may do with a terminal is less than xterm
// offers: no clipboard, no links, no windows.
import type { FitAddon } from '@xterm/addon-fit'
import type { Terminal } from '@xterm/xterm'

interface Library {
  Terminal: typeof Terminal
  FitAddon: typeof FitAddon
}

/** Lines above the screen. */
const scrollbackLines = 5_000
/** Titles, hyperlinks and the clipboard: sequences of the target that are not carried out. */
const [hyperlink, clipboard] = [8, 52]

/** Of the page's own size of type. */
const fontShare = 0.875

let loading: Promise<Library> | undefined

export function loadXterm(): Promise<Library> {
  return loading ??= load()
}

async function load(): Promise<Library> {
  const style = document.createElement('link')
  style.rel = 'stylesheet'
  style.href = new URL('../xterm/xterm.css', import.meta.url).href
  document.head.append(style)
  tameStyles()
  const [xterm, fit] = await Promise.all(['xterm.mjs', 'addon-fit.mjs'].map(name =>
    import(new URL(`../xterm/${name}`, import.meta.url).href) as Promise<Library>))
  return { Terminal: xterm!.Terminal, FitAddon: fit!.FitAddon }
}

/** A terminal in its place, as large as that. */
export async function createTerminal(place: HTMLElement): Promise<{ terminal: Terminal, fit(): void }> {
  const library = await loadXterm()
  const terminal = new library.Terminal({
    scrollback: scrollbackLines, minimumContrastRatio: 4.5,
    fontFamily: "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', monospace", lineHeight: 1.2,
    fontSize: parseFloat(getComputedStyle(document.documentElement).fontSize) * fontShare,
    cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
    linkHandler: { activate: () => undefined }, allowProposedApi: false,
    theme: { background: '#14171b', foreground: '#e6e8eb', cursor: '#82b8f0' }
  })
  for (const code of [hyperlink, clipboard]) terminal.parser.registerOscHandler(code, () => true)
  const addon = new library.FitAddon()
  terminal.loadAddon(addon)
  terminal.open(place)
  addon.fit()
  return { terminal, fit: () => addon.fit() }
}

/** On this page from here on; nobody else of it makes such elements. */
function tameStyles(): void {
  const create = document.createElement.bind(document)
  document.createElement = (name: string): HTMLElement => {
    if (name === 'style') return sheetElement(create('template'))
    const element = create(name)
    if (name === 'span') element.setAttribute = setAttribute
    return element
  }
}

/** The same through the object model, which a policy lets pass: it cannot come from markup. */
function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === 'style') this.style.cssText = value
  else Element.prototype.setAttribute.call(this, name, value)
}

function sheetElement(element: HTMLElement): HTMLElement {
  const sheet = new CSSStyleSheet()
  document.adoptedStyleSheets.push(sheet)
  Object.defineProperty(element, 'textContent', { set: (text: string) => sheet.replaceSync(text) })
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter(each => each !== sheet)
    Element.prototype.remove.call(element)
  }
  return element
}
