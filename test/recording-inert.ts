// R20: escape sequences are inert. More than 60 canaries, each a thing that a terminal would obey, that a log
// would be forged with, or that cannot be seen, go through every way on which recorded text reaches a person.
// The judge is a small reader of its own, which knows nothing of how the filters work.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inert, inertJson, inertLine } from '../src/recording/inert.ts'
import { TerminalFilter, terminalReset } from '../src/recording/terminal.ts'
import { seeded } from './peers/recordings.ts'

/** What each would do; none may have an effect. */
const canaries: Record<string, string> = {
  'sets the title (BEL)': '\x1b]0;owned\x07', 'sets the title (ST)': '\x1b]2;owned\x1b\\',
  'sets the icon name': '\x1b]1;owned\x07', 'title of screen': '\x1bkowned\x1b\\',
  'sun title': '\x1b]lowned\x1b\\',
  'fills the clipboard': '\x1b]52;c;cm0gLXJmIH4=\x07', 'reads the clipboard': '\x1b]52;c;?\x07',
  'hyperlink': '\x1b]8;;http://evil.example/\x07click\x1b]8;;\x07', 'palette': '\x1b]4;1;rgb:ff/ff/ff\x07',
  'palette of the Linux console': '\x1b]P1ffffff', 'asks for the palette': '\x1b]4;1;?\x07',
  'asks for the foreground': '\x1b]10;?\x07', 'sets the working folder': '\x1b]7;file://evil/\x07',
  'notification': '\x1b]9;run this\x07', 'notification of rxvt': '\x1b]777;notify;a;b\x07',
  'inline file of iTerm': '\x1b]1337;File=inline=1:AAAA\x07', 'shell mark': '\x1b]133;A\x07',
  'font query': '\x1b]50;?\x07', 'unfinished OSC': '\x1b]0;never ends',
  'device attributes': '\x1b[c', 'secondary attributes': '\x1b[>c', 'tertiary attributes': '\x1b[=c',
  'identify (DECID)': '\x1bZ', 'status report': '\x1b[5n', 'cursor report': '\x1b[6n',
  'private report': '\x1b[?6n',
  'terminal parameters': '\x1b[x', 'asks for the version': '\x1b[>q', 'asks for a mode': '\x1b[?2004$p',
  'asks for a setting (DECRQSS)': '\x1bP$qm\x1b\\', 'asks for a capability': '\x1bP+q544e\x1b\\',
  'answer-back': '\x05', 'reports the title': '\x1b[21t', 'reports the size': '\x1b[18t',
  'moves the window': '\x1b[3;0;0t',
  'iconifies': '\x1b[2t', 'pushes the title': '\x1b[22;0t', 'prints the screen': '\x1b[i',
  'prints all that follows': '\x1b[5i',
  'checksum of the screen': '\x1b[1;1;1;1;1;1*y', 'mouse reports': '\x1b[?1000h',
  'mouse motion': '\x1b[?1003h',
  'mouse in SGR form': '\x1b[?1006h', 'focus reports': '\x1b[?1004h', 'bracketed paste': '\x1b[?2004h',
  'application cursor keys': '\x1b[?1h', 'application keypad': '\x1b=',
  'keyboard protocol of kitty': '\x1b[>1u',
  'modifyOtherKeys': '\x1b[>4;2m', 'keyboard locked': '\x1b[2h', 'line feed mode': '\x1b[20h',
  '132 columns': '\x1b[?3h',
  'mixed private modes': '\x1b[?25;1000h', 'full reset': '\x1bc', 'soft reset': '\x1b[!p',
  'conformance level': '\x1b[62"p',
  'programs a key (DECUDK)': '\x1bP1;1|17/0d\x1b\\', 'sixel': '\x1bPq#0;2;0;0;0\x1b\\',
  'APC': '\x1b_Gi=1\x1b\\',
  'PM': '\x1b^secret\x1b\\', 'SOS': '\x1bXsecret\x1b\\', 'C1 CSI': '\u009b5n',
  'C1 OSC': '\u009d0;owned\u009c',
  'C1 DCS': '\u0090+q544e\u009c', 'C1 APC': '\u009fx\u009c', 'C1 next line': '\u0085', 'bell': '\x07',
  'shift out': '\x0elq', 'locking shift': '\x1bn', 'UTF-8 off': '\x1b%@', 'alignment test': '\x1b#8',
  'highlight tracking': '\x1b[1;2;3;4;5T', 'erases the scrollback': '\x1b[3J',
  'repeats for ever': 'x\x1b[999999999b',
  'huge numbers': '\x1b[99999999999999999999A', 'sequence in a sequence': '\x1b[\x1b]0;owned\x07',
  'sequence in a string': '\x1b]0;\x1b[5n\x07', 'string in a string': '\x1b]0;\x1bP+q544e\x1b\\\x07',
  'broken off by CAN': '\x1b]0;a\x18\x1b[5n', 'sequence over a line end': '\x1b[\n5n',
  'escape at the end': 'text\x1b',
  'very long sequence': `\x1b[${'1;'.repeat(500)}m`, 'delete': '\x7f', 'null': '\0', 'vertical tab': '\x0b',
  'right-to-left override': 'user\u202egpj.exe', 'isolate': '\u2066admin\u2069', 'embedding': '\u202bx\u202c',
  'Arabic letter mark': '\u061cx', 'left-to-right mark': '\u200ex', 'tag characters': '\u{e0041}\u{e007f}',
  'byte order mark': '\ufeffroot', 'line separator': 'a\u2028b', 'lone surrogate': 'a\ud800b',
  'annotation': '\ufff9a\ufffb'
}

/** Not seen on a line, although a terminal may show them (emoji are joined with them). */
const hidden: Record<string, string> = {
  'zero width space': 'ro\u200bot', 'zero width joiner': 'ro\u200dot', 'soft hyphen': 'ro\u00adot',
  'carriage return': 'real\rfake', 'line end': 'real\nfake', 'tab': 'a\tb', 'backspace': 'abc\b\b\bxyz'
}

/** Sequences that only draw or move; anything else that begins with ESC is a breach. */
const harmless = new RegExp([
  '\\x1b\\[(?:\\d{1,4}(?:[;:]\\d{0,4}){0,60}|(?:[;:]\\d{0,4}){0,60})m',
  '\\x1b\\[(?:\\d{0,4};){0,8}\\d{0,4}[@A-HJ-MPXZ`ad-gr]', '\\x1b\\[\\d{0,4}[STbsu]', '\\x1b\\[4[hl]',
  '\\x1b\\[\\?(?:(?:7|25|47|104[789]);?)+[hl]', '\\x1b[()*+][0AB]', '\\x1b[78DEHM]'
].join('|'), 'g')

/** What is left that a terminal would obey or a person would not see. */
function breaches(shown: string): string[] {
  const rest = shown.replace(harmless, '')
  const controls = rest.match(/[\0-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]/g) ?? []
  const unseen = rest.match(/[\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu) ?? []
  const surrogates = rest.isWellFormed() && !/[\u{e0000}-\u{e007f}]/u.test(rest) ? [] : ['invisible']
  const dangerous = shown.match(/\x1b\[3J|\x1b\[[\d;]{5,}[bST]/g) ?? []
  return [...controls, ...unseen, ...surrogates, ...dangerous]
}

function filtered(pieces: readonly (string | Uint8Array)[]): string {
  const filter = new TerminalFilter()
  return pieces.map(piece => filter.write(piece)).join('') + filter.end()
}

test('there are more than 60 canaries, and the judge finds every one of them', () => {
  assert.ok(Object.keys(canaries).length >= 60)
  for (const [name, text] of Object.entries(canaries)) assert.ok(breaches(text).length > 0, name)
  assert.equal(breaches('plain text, \x1b[1;31mred\x1b[0m, \x1b[2J\x1b[H\x1b[?25l äöü 🙂\r\n'), [])
})

test('no canary is active on a replayed terminal, however the output was cut into pieces', () => {
  for (const [name, text] of Object.entries(canaries)) {
    assert.equal(breaches(filtered([text])), [], name)
    const bytes = Buffer.from(`before ${text} after`)
    for (let at = 0; at <= bytes.length; at++) {
      assert.equal(breaches(filtered([bytes.subarray(0, at), bytes.subarray(at)])), [],
        `${name}, cut at ${at}`)
    }
    assert.equal(breaches(filtered([...bytes].map(byte => Uint8Array.of(byte)))), [], `${name}, byte by byte`)
  }
})

test('what stands around a canary stays visible', () => {
  for (const [name, text] of Object.entries(canaries)) {
    if (name.startsWith('unfinished')) continue
    const shown = filtered([Buffer.from(`before ${text} and then after\r\n`)])
    assert.ok(shown.startsWith('before '), name)
    // A canary that is the beginning of a sequence takes the next two bytes with it, as on every terminal.
    if (!name.startsWith('palette of the Linux')) assert.match(shown, /nd then after\r\n$/, name)
  }
})

test('a string that never ends hides nothing: after 4,096 characters it is shown', () => {
  const shown = filtered([`\x1b]0;${'evil '.repeat(1000)}rm -rf /\r\n`])
  assert.ok(shown.includes('\\x1b]0;evil evil'))
  assert.ok(shown.endsWith('rm -rf /\r\n'))
  assert.equal(breaches(shown), [])
  assert.ok(filtered(['\x1b]0;short']).includes('\\x1b]0;short'), 'and at the end of the recording')
})

test('what terminals need comes through unchanged', () => {
  const kept = [
    'ls\r\n\x1b[0m\x1b[01;34mbin\x1b[0m\t\x1b[38;2;10;20;30mx\x1b[38:2::1:2:3my\x1b[m',
    '\x1b[2J\x1b[1;1H\x1b[K\x1b[3A\x1b[10G',
    '\x1b[?1049h\x1b[?25l\x1b[5;20r\x1bM\x1b7\x1b8\x1b(0lqk\x1b(B\x1b[?25h\x1b[?1049l', '12%\b\b\b13%\r',
    'äöü – 日本語 👩‍💻 e\u0301',
    '\x1b[s\x1b[u\x1b[3L\x1b[2M\x1b[4h\x1b[4l\x1b[5b', terminalReset
  ]
  for (const text of kept) {
    assert.is(filtered([text]), text)
    assert.is(filtered([...Buffer.from(text)].map(byte => Uint8Array.of(byte))), text)
  }
  assert.is(filtered(['\x1b[?25;1000;7h']), '\x1b[?25;7h', 'of several modes the harmless ones')
  assert.is(filtered([Buffer.from([0x61, 0x9b, 0x35, 0x6e])]), 'a\ufffd5n', 'an 8-bit control is no UTF-8')
})

test('random bytes and random pieces of sequences are harmless', () => {
  const random = seeded(60)
  const parts = [...Object.values(canaries), '\x1b', '[', ']', '?', ';', '5', 'n', 'h', '\\', '\x07', '\x9c',
    'P', '>', ' ', '\n']
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 1 + random(12) }, () => parts[random(parts.length)]).join('')
    const noise = Array.from({ length: 40 }, () => random(256))
    const bytes = random(3) === 0 ? Buffer.from(noise) : Buffer.from(text)
    const at = random(bytes.length + 1)
    const shown = filtered([bytes.subarray(0, at), bytes.subarray(at)])
    assert.equal(breaches(shown), [], JSON.stringify(bytes.toString('latin1')))
  }
})

test('in lists and logs every canary is visible, on one line, and nothing is lost', () => {
  const hazard = /[\0-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/u
  for (const [name, text] of Object.entries({ ...canaries, ...hidden })) {
    const line = inertLine(`<${text}>`)
    assert.not.match(line, hazard, name)
    assert.ok(line.isWellFormed() && !/[\u{e0000}-\u{e007f}]/u.test(line), name)
    assert.ok(line.length > text.length + 2, `${name} left a trace`)
    assert.ok(line.startsWith('<') && line.endsWith('>'))
    const several = inert(`<${text}>`)
    assert.not.match(several.replace(/[\n\t]/g, ''), hazard, name)
    assert.not.match(inertJson({ text }), hazard, name)
    assert.equal(JSON.parse(inertJson({ text })), { text }, name)
  }
  assert.is(inertLine('\x1b[31m\u202e\u{e0041}\n'), '\\x1b[31m\\u202e\\u{e0041}\\n')
  assert.is(inert('SELECT 1,\r\n\t2\r'), 'SELECT 1,\n\t2\\r')
  assert.is(inertLine('äöü 日本語 👍 "quoted"'), 'äöü 日本語 👍 "quoted"')
})

test.run()
