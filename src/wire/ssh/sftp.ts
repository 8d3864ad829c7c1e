// Listens to an SFTP session (version 3 and OpenSSH's extensions) and tells what was done to which file. Both
// directions are needed: the client asks, the server says whether. An upload or download is told when its
// handle is closed, with length and hash of what passed by. What is no SFTP is told once, and then nothing.
// With `allow`, requests are judged before they go on: a refused one is made into an extension that no server
// has, with the same id and length, so that the server itself says no, in order.
import { WireError } from '../error.ts'
import { SshReader } from './data.ts'
import { EarlyBudget, Sequence, hashOnly } from './sequence.ts'
import type { ContentUse } from './sequence.ts'
import { SftpPackets, headBytesMax, idEnd, sftpType } from './sftp-packets.ts'

/** Requests without an answer: OpenSSH has 64. */
const requestsMax = 1024
const handlesMax = 1024
/** Of a path so much is told. */
const pathMax = 4096

const flag = { read: 1, write: 2, append: 4, create: 8, truncate: 16 } as const
const statusNames = [
  'ok', 'eof', 'no-such-file', 'permission-denied', 'failure', 'bad-message', 'no-connection',
  'connection-lost', 'unsupported'
]
const [permissionDenied, unsupported] = [3, 8]

export type FileOperation =
  | 'upload' | 'download' | 'open' | 'list' | 'remove' | 'rename' | 'mkdir' | 'rmdir' | 'setstat' | 'symlink'
  | 'link' | 'copy'

/** What was done to a file; goes into a recording as it is. */
export interface FileEvent {
  op: FileOperation
  path: string
  /** New name of a rename or link; what a symlink points to. */
  to?: string
  bytes?: number
  sha256?: string
  /** There is no hash of the whole content: pieces are missing, doubled, or it did not begin at 0. */
  partial?: boolean
  offset?: number
  /** Number of the copy that was kept, and how much of the file it has. */
  copy?: number
  copyBytes?: number
  entries?: number
  attributes?: Record<string, number>
  ok: boolean
  /** Why not. */
  status?: string
  refused?: true
  /** The channel ended before its handle was closed. */
  unclosed?: true
}

export interface SftpListener {
  file(event: FileEvent): void
  undecodable(detail: string): void
}

/** False: this request is refused. Asked before the request goes on. */
export type AllowFile = (op: FileOperation, path: string, how?: FileHow) => boolean

export interface FileHow {
  /** What is there can be read by another name afterwards. */
  isSource?: boolean
  /** It may be a folder, and then it is about all that is in it. */
  isTree?: boolean
  /** The path is not all that is known to be touched. */
  isVague?: boolean
}

/** Of those that are not judged: they change no file and give none away. */
const [lstat, fstat, realpath, stat, readlink] = [7, 8, 16, 17, 19]
const freeTypes: ReadonlySet<number> = new Set([lstat, fstat, realpath, stat, readlink])
const freeExtensions = new Set([
  'statvfs@openssh.com', 'fstatvfs@openssh.com', 'fsync@openssh.com', 'limits@openssh.com',
  'expand-path@openssh.com', 'home-directory', 'users-groups-by-id@openssh.com'
])

interface Handle {
  path: string
  directory: boolean
  flags: number
  read: Sequence
  written: Sequence
  entries: number
  problem: string | undefined
}

interface Request {
  event?: FileEvent
  /** OPEN, OPENDIR: what the handle will be. */
  opens?: Handle
  handle?: Handle
  closes?: string
  offset?: number
  refused?: true
}

export class SftpDecoder {
  readonly #listener: SftpListener
  readonly #allow: AllowFile | undefined
  readonly #budget: EarlyBudget
  readonly #use: ContentUse
  readonly #requests = new Map<number, Request>()
  readonly #handles = new Map<string, Handle>()
  readonly #client: SftpPackets
  readonly #server: SftpPackets
  #broken = false
  // Where the bytes that pass by belong.
  #writing: { handle: Handle, offset: number } | undefined
  #reading: { handle: Handle, offset: number } | undefined
  // With `allow`: what goes on in place of the chunk, and whether that is another thing than the chunk.
  #out: Buffer[] = []
  #changed = false
  #chunk: Buffer | undefined

  constructor(
    listener: SftpListener, allow?: AllowFile, budget: EarlyBudget = new EarlyBudget(),
    use: ContentUse = hashOnly
  ) {
    this.#listener = listener
    this.#allow = allow
    this.#budget = budget
    this.#use = use
    this.#client = new SftpPackets({
      packet: (head, whole) => {
        this.#asked(head, whole)
        if (this.#allow !== undefined) this.#out.push(Buffer.from(head))
      },
      body: piece => {
        this.#carry(this.#writing, piece, 'written')
        if (this.#allow !== undefined) this.#out.push(piece)
      }
    }, [sftpType.write])
    this.#server = new SftpPackets({
      packet: (head, _whole, start) => this.#answered(head, start),
      body: piece => this.#carry(this.#reading, piece, 'read')
    }, [sftpType.data, sftpType.name])
  }

  get broken(): boolean {
    return this.#broken
  }

  /**
   * What the client sends. Returns what goes on in its place; undefined: the bytes as they are.
   * @throws WireError with `allow` only: requests that cannot be judged must not go on
   */
  fromClient(data: Buffer): Buffer[] | undefined {
    if (this.#broken) {
      if (this.#allow !== undefined) throw new WireError('an SFTP stream that cannot be judged')
      return undefined
    }
    const heldBefore = this.#client.held.length
    this.#out = []
    this.#changed = false
    try {
      this.#client.feed(data)
    } catch (thrown) {
      this.#break(thrown)
      if (this.#allow !== undefined) throw thrown
    }
    if (this.#allow === undefined) return undefined
    const same = !this.#changed && heldBefore === 0 && this.#client.held.length === 0
    return same ? undefined : this.#out
  }

  /** What the server answers. With `allow` a refusal is worded anew in place. */
  fromServer(data: Buffer): void {
    if (this.#broken) return
    this.#chunk = data
    try {
      this.#server.feed(data)
    } catch (thrown) {
      this.#break(thrown)
    }
    this.#chunk = undefined
  }

  /** With `allow`: bytes of a request that never became complete. */
  held(): Buffer[] | undefined {
    const { held } = this.#client
    return this.#allow === undefined || held.length === 0 || this.#broken ? undefined : [Buffer.from(held)]
  }

  /** The channel is closed: what is still open is told. */
  end(): void {
    for (const handle of this.#handles.values()) this.#tellHandle(handle, { ok: false, unclosed: true })
    this.#handles.clear()
    this.#requests.clear()
  }

  #break(thrown: unknown): void {
    if (!(thrown instanceof WireError)) throw thrown
    this.#broken = true
    this.end()
    this.#listener.undecodable(thrown.message)
  }

  #carry(to: { handle: Handle, offset: number } | undefined, piece: Buffer, what: 'read' | 'written'): void {
    if (to === undefined) return
    to.handle[what].add(to.offset, piece)
    to.offset += piece.length
  }

  // ---- the client

  #asked(head: Buffer, whole: boolean): void {
    this.#writing = undefined
    const type = head[4]!
    if (type === sftpType.init) return
    const reader = new SshReader(head, 5)
    const id = reader.uint32()
    const request = this.#requestOf(type, reader)
    if (request === undefined) return
    if (!whole && head.length === headBytesMax) throw new WireError('an SFTP request of too many bytes')
    if (request.refused === true || this.#refuses(request)) {
      this.#spoil(head)
      request.refused = true
    }
    if (this.#requests.size >= requestsMax || this.#requests.has(id)) {
      throw new WireError('SFTP requests without an answer')
    }
    this.#requests.set(id, request)
  }

  #newHandle(path: string, directory: boolean, flags: number): Handle {
    const sequence = (): Sequence => new Sequence(this.#budget, this.#use)
    return { path, directory, flags, read: sequence(), written: sequence(), entries: 0, problem: undefined }
  }

  /** Undefined: it does nothing to a file. */
  #requestOf(type: number, reader: SshReader): Request | undefined {
    const path = (): string => textOf(reader)
    const handle = (): Handle | undefined => this.#handles.get(reader.bytes().toString('latin1'))
    switch (type) {
      case sftpType.open: {
        const name = path()
        return { opens: this.#newHandle(name, false, reader.uint32()) }
      }
      case sftpType.opendir: return { opens: this.#newHandle(path(), true, 0) }
      case sftpType.close: return { closes: reader.bytes().toString('latin1') }
      case sftpType.read: {
        const [of, offset] = [handle(), Number(reader.uint64())]
        of?.read.begin(offset)
        return of && { handle: of, offset }
      }
      case sftpType.readdir: {
        const of = handle()
        return of && { handle: of }
      }
      case sftpType.write: {
        const [of, offset] = [handle(), Number(reader.uint64())]
        if (of !== undefined) this.#writing = { handle: of, offset }
        return of && { handle: of }
      }
      case sftpType.remove: return asks('remove', path())
      case sftpType.rmdir: return asks('rmdir', path())
      case sftpType.mkdir: return asks('mkdir', path(), { attributes: attributesOf(reader) })
      case sftpType.setstat: return asks('setstat', path(), { attributes: attributesOf(reader) })
      case sftpType.fsetstat: {
        const of = handle()
        return of === undefined
          ? this.#unjudged()
          : asks('setstat', of.path, { attributes: attributesOf(reader) })
      }
      case sftpType.rename: return asks('rename', path(), { to: path() })
      case sftpType.symlink: {
        // OpenSSH's order, which everybody follows: what it points to, and where it is.
        const to = path()
        return asks('symlink', path(), { to })
      }
      case sftpType.extended: return this.#extended(textOf(reader), reader)
      default: return freeTypes.has(type) ? undefined : this.#unjudged()
    }
  }

  /** Nobody knows what it does: with `allow` it is refused. */
  #unjudged(): Request | undefined {
    return this.#allow === undefined ? undefined : { refused: true }
  }

  #extended(name: string, reader: SshReader): Request | undefined {
    switch (name) {
      case 'posix-rename@openssh.com': return asks('rename', textOf(reader), { to: textOf(reader) })
      case 'hardlink@openssh.com': return asks('link', textOf(reader), { to: textOf(reader) })
      case 'lsetstat@openssh.com':
        return asks('setstat', textOf(reader), { attributes: attributesOf(reader) })
      case 'copy-data': {
        const from = this.#handles.get(reader.bytes().toString('latin1'))
        reader.uint64()
        reader.uint64()
        const to = this.#handles.get(reader.bytes().toString('latin1'))
        const unknown = from === undefined || to === undefined ? this.#unjudged() : undefined
        return { ...asks('copy', from?.path ?? '', { to: to?.path ?? '' }), ...unknown }
      }
      default: return freeExtensions.has(name) ? undefined : this.#unjudged()
    }
  }

  #refuses({ opens, event }: Request): boolean {
    const allow = this.#allow
    if (allow === undefined) return false
    if (opens?.directory === true) return !allow('list', opens.path)
    if (opens !== undefined) {
      const writes = opens.flags !== flag.read
      // OpenSSH's server reads where a client does not say that it writes: no flag at all, `create` alone.
      const reads = (opens.flags & flag.read) !== 0 || (opens.flags & flag.write) === 0
      return (reads && !allow('download', opens.path)) || (writes && !allow('upload', opens.path))
    }
    return event !== undefined && touches(event).some(({ path, how }) => !allow(event.op, path, how))
  }

  /** The same id and length, and a name that no server knows. */
  #spoil(head: Buffer): void {
    if (head.length < idEnd + 4) throw new WireError('an SFTP request that is too short')
    head[4] = sftpType.extended
    head.writeUInt32BE(head.length - idEnd - 4, idEnd)
    head.fill('x', idEnd + 4)
    this.#changed = true
  }

  // ---- the server

  #answered(head: Buffer, start: number): void {
    this.#reading = undefined
    const type = head[4]!
    if (type === sftpType.version) return
    const reader = new SshReader(head, 5)
    const id = reader.uint32()
    const request = this.#requests.get(id)
    if (request === undefined) return
    this.#requests.delete(id)
    const { handle } = request
    if (type === sftpType.status) this.#status(request, reader.uint32(), start, head.length)
    else if (type === sftpType.handle && request.opens !== undefined) {
      if (this.#handles.size >= handlesMax) throw new WireError('too many SFTP handles')
      this.#handles.set(reader.bytes().toString('latin1'), request.opens)
    } else if (type === sftpType.data && handle !== undefined && request.offset !== undefined) {
      this.#reading = { handle, offset: request.offset }
    } else if (type === sftpType.name && handle !== undefined) handle.entries += reader.uint32()
  }

  #status(request: Request, code: number, start: number, length: number): void {
    const ok = code === 0
    const status = statusNames[code] ?? String(code)
    if (request.refused === true) this.#rewordRefusal(code, start, length)
    const outcome = request.refused === true
      ? { ok: false, status: 'permission-denied', refused: true as const }
      : { ok, ...!ok && { status } }
    if (request.event !== undefined) this.#listener.file({ ...request.event, ...outcome })
    else if (request.opens !== undefined) {
      const { path, directory, flags } = request.opens
      const op = directory ? 'list' : request.refused === undefined ? 'open'
        : (flags & ~flag.read) !== 0 ? 'upload' : 'download'
      this.#listener.file({ op, path, ...outcome })
    } else if (request.closes !== undefined) {
      const handle = this.#handles.get(request.closes)
      this.#handles.delete(request.closes)
      if (handle !== undefined) this.#tellHandle(handle, outcome)
    } else if (request.handle !== undefined && code > 1) request.handle.problem ??= status
  }

  /** For people: "unsupported" would be a riddle. Only where the answer is all in this chunk. */
  #rewordRefusal(code: number, start: number, length: number): void {
    const answer = start < 0 ? undefined : this.#chunk?.subarray(start, start + length)
    if (answer === undefined || code !== unsupported || answer.length < idEnd + 8) return
    answer.writeUInt32BE(permissionDenied, idEnd)
    const words = Math.min(answer.readUInt32BE(idEnd + 4), answer.length - idEnd - 8)
    answer.write('Permission denied'.padEnd(words).slice(0, words), idEnd + 8, 'latin1')
  }

  #tellHandle(handle: Handle, outcome: { ok: boolean, status?: string, unclosed?: true }): void {
    const { path, directory, flags, read, written, entries, problem } = handle
    const result = problem === undefined ? outcome : { ...outcome, ok: false, status: problem }
    if (directory) return this.#listener.file({ op: 'list', path, entries, ...result })
    const writes = (flags & ~flag.read) !== 0
    if (writes) this.#listener.file({ op: 'upload', path, ...written.facts(), ...result })
    if (read.bytes > 0 || !writes) this.#listener.file({ op: 'download', path, ...read.facts(), ...result })
  }
}

function asks(op: FileOperation, path: string, more: Partial<FileEvent> = {}): Request {
  return { event: { op, path, ...more, ok: false } }
}

/** Each path that an operation is about, and how. */
export function touches(
  { op, path, to }: { op: string, path: string, to?: string | undefined }
): { path: string, how?: FileHow }[] {
  if (to === undefined) return [{ path }]
  switch (op) {
    case 'rename': return [
      { path, how: { isSource: true, isTree: true } }, { path: to, how: { isTree: true } }
    ]
    case 'link': return [{ path, how: { isSource: true } }, { path: to }]
    case 'symlink': {
      // What it points to begins where the link is.
      const begin = to.startsWith('/') ? '' : path.slice(0, path.lastIndexOf('/') + 1)
      return [{ path }, { path: begin + to, how: { isSource: true, isTree: true } }]
    }
    default: return [{ path }, { path: to }]
  }
}

/** OpenSSH's server takes a zero byte at the end away, of names of requests as well. */
function textOf(reader: SshReader): string {
  const text = reader.text().replace(/\0$/, '')
  return text.length > pathMax ? `${text.slice(0, pathMax)}…` : text
}

/** What is set; times are left out. */
function attributesOf(reader: SshReader): Record<string, number> {
  const flags = reader.uint32()
  const attributes: Record<string, number> = {}
  if ((flags & 1) !== 0) attributes['size'] = Number(reader.uint64())
  if ((flags & 2) !== 0) {
    attributes['uid'] = reader.uint32()
    attributes['gid'] = reader.uint32()
  }
  if ((flags & 4) !== 0) attributes['mode'] = reader.uint32()
  return attributes
}
