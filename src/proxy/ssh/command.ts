// What a command that somebody runs on the target is, as far as the recorder treats it in its own way: file
// transfers. The words must be plain: a command with anything that a shell would obey is a command like any
// other, and all of its output is kept. So nobody hides a shell behind the name of a transfer.

/** `several`: more than one path is named. */
export interface ScpCommand {
  kind: 'scp'
  direction: 'upload' | 'download'
  recursive: boolean
  path: string
  several: boolean
}

export type CommandKind =
  | ScpCommand
  | { kind: 'sftp' }
  /** `rsync`, `git`: counted and hashed. */
  | { kind: 'bulk', program: string }
  | { kind: 'other' }

/** Whatever has a meaning to a shell, beside blanks, quotes, and the patterns of file names. */
const shellMeaning = /[;|&$`()<>{}!#\n\r\0\x80-\x9f]|\\[^ ]/
const word = /'([^']*)'|"([^"]*)"|((?:\\ |[^\s'"\\])+)/y
const gitPrograms = new Set(['git-upload-pack', 'git-receive-pack', 'git-upload-archive'])

/** Reads a command as it was sent. */
export function commandOf(command: Buffer): CommandKind {
  const words = wordsOf(command.toString('utf8'))
  const [program = '', ...rest] = words ?? []
  const name = program.slice(program.lastIndexOf('/') + 1)
  if (name === 'scp') return scpOf(rest)
  if (name === 'sftp-server') return { kind: 'sftp' }
  if (name === 'rsync' && rest[0] === '--server') return { kind: 'bulk', program: 'rsync' }
  if (gitPrograms.has(name)) return { kind: 'bulk', program: name }
  return { kind: 'other' }
}

/** Undefined when a shell would do more than part it into words. */
function wordsOf(text: string): string[] | undefined {
  if (shellMeaning.test(text)) return undefined
  const words: string[] = []
  let at = 0
  let joined = false
  while (at < text.length) {
    word.lastIndex = at
    const match = word.exec(text)
    if (match === null) {
      if (!/\s/.test(text[at]!)) return undefined
      at++
      joined = false
      continue
    }
    const piece = match[1] ?? match[2] ?? match[3]!.replaceAll('\\ ', ' ')
    if (joined) words[words.length - 1] += piece
    else words.push(piece)
    joined = true
    at = word.lastIndex
  }
  return words
}

/** `scp -t` takes, `scp -f` gives; `-v -r -p -d` may stand beside. */
function scpOf(words: readonly string[]): CommandKind {
  let [options, at] = ['', 0]
  while (words[at]?.startsWith('-') === true && words[at] !== '--') options += words[at++]!.slice(1)
  if (words[at] === '--') at++
  const paths = words.slice(at)
  const path = paths.join(' ')
  const [takes, gives] = [options.includes('t'), options.includes('f')]
  if (!/^[tfvrpdq]+$/.test(options) || takes === gives || path === '') return { kind: 'other' }
  return {
    kind: 'scp', direction: takes ? 'upload' : 'download', recursive: options.includes('r'), path,
    several: paths.length > 1
  }
}
