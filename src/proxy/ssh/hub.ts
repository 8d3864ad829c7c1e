// A person who is logged in and has not said where to: a shell becomes a menu, and what is chosen there a
// session on the same channel; a connection to a known target (`ssh -J`) becomes an SSH server of ours
// inside, and a session of its own. Whatever else is asked for is refused, and nothing is ever dialled that
// was not chosen from what stands open.
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { Ending } from '../../recording/recording.ts'
import type { Claim, Door, Doors, Front } from '../../session/front.ts'
import {
  channelData, channelRequest, channelSignal, channelStderr, dataBytes, dataHeadBytes, openConfirmation,
  openFailure, parseChannelOpen, parseGlobalRequest, recipientOf, sshMessage, windowAdjust, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import type { ChannelOpen } from '../../wire/ssh/connection.ts'
import { parseChannelRequest } from '../../wire/ssh/request.ts'
import { DoorFront } from './door.ts'
import type { FrontSetting } from './setting.ts'
import { loginMessage } from './login.ts'
import { Menu } from './menu.ts'
import { ChannelStream, streamPacketBytes, streamWindowBytes } from './stream.ts'
import type { SshUpstream } from './target.ts'
import { disconnectReason } from './transport.ts'
import type { Transport, TransportEvents } from './transport.ts'

/** What a client may type ahead of us, and what it may ask for on one channel, before there is a target. */
const menuWindowBytes = 64 * 1024
const requestsMax = 256
/** Connections through us at once (`ssh -J` opens one; a shared connection to the proxy several). */
const streamsMax = 64
const [prohibited, unknownType, shortage] = [1, 3, 4]
/** The exit status of `ssh` for somebody who asked for a command and named no target. */
const usageStatus = 2

export interface HubOptions {
  transport: Transport
  setting: FrontSetting
  doors: Doors
  address: string
  enter(front: Front<SshUpstream>): Promise<Ending>
  /** The connection is closed. */
  gone(): void
  /** Serves SSH within a channel, as the target of that name; its session is entered by itself. */
  serve(stream: ChannelStream, target: string, doors: Doors): Promise<unknown>
}

interface Terminal {
  open: ChannelOpen
  ours: number
  menu: Menu
  hasTerminal: boolean
  /** The client's window for us, and ours for it. */
  room: number
  granted: number
  requests: Buffer[]
  /** A shell was asked for: what is typed is for the menu. */
  shown: boolean
}

export class Hub {
  readonly #options: HubOptions
  readonly #streams = new Map<number, ChannelStream>()
  #nextNumber = 0
  #terminal: Terminal | undefined
  #left = false
  #front: DoorFront | undefined
  #done: (ending: Ending) => void = () => undefined

  constructor(options: HubOptions) {
    this.#options = options
  }

  /** Resolves when the connection is over. Never rejects. */
  run(): Promise<Ending> {
    return new Promise(resolve => {
      this.#done = resolve
      const { transport } = this.#options
      transport.listen(this.#events())
      transport.send(Buffer.of(loginMessage.success))
      if (transport.closed) this.#over()
    })
  }

  #events(): TransportEvents {
    const { transport } = this.#options
    return {
      ready: () => undefined,
      message: payload => {
        try {
          if (this.#front === undefined) this.#message(payload)
          else this.#front.wait(payload)
        } catch (thrown) {
          const detail = thrown instanceof Error ? thrown.message : String(thrown)
          const error = new SallyportError('protocol-violation', { detail })
          transport.disconnect(disconnectReason.protocolError, error.clientMessage)
        }
      },
      room: () => true, refused: () => undefined, drain: () => undefined,
      closed: () => this.#over()
    }
  }

  #over(): void {
    this.#options.gone()
    for (const stream of this.#streams.values()) stream.destroy()
    // A session that was chosen hears of it from the relay, or finds the connection closed.
    if (this.#front === undefined) this.#done({ how: 'ended', reason: 'client-closed' })
    else this.#front.leave()
  }

  #message(payload: Buffer): void {
    const type = payload[0] ?? 0
    if (type === sshMessage.globalRequest) {
      if (parseGlobalRequest(payload).wantReply) this.#send(Buffer.of(sshMessage.requestFailure))
    } else if (type === sshMessage.channelOpen) {
      this.#open(payload)
    } else if (type >= sshMessage.windowAdjust && type <= sshMessage.channelFailure) {
      const number = recipientOf(payload)
      const stream = this.#streams.get(number)
      if (stream !== undefined) stream.receive(payload)
      else if (this.#terminal?.ours === number) this.#terminalSays(this.#terminal, payload)
      else throw new Error('a channel that is not open')
    } else {
      throw new Error(`message ${type}`)
    }
  }

  #send(payload: Uint8Array): void {
    this.#options.transport.send(payload)
  }

  #open(payload: Buffer): void {
    const open = parseChannelOpen(payload)
    const { purpose, sender, type } = open
    // One or the other: what is chosen takes the whole connection.
    if (purpose.kind === 'session' && this.#terminal === undefined && this.#streams.size === 0) {
      void this.#session(open, Buffer.from(payload))
    } else if (purpose.kind === 'direct-tcpip' && this.#terminal === undefined) {
      void this.#through(open, purpose.host, purpose.port)
    } else {
      this.#send(openFailure(sender, unknownType, `${type}: choose a target first`))
    }
  }

  // ---- the menu

  async #session(open: ChannelOpen, payload: Buffer): Promise<void> {
    const { doors, transport } = this.#options
    // A place is taken at once: a second channel may be asked for while we look.
    const terminal: Terminal = this.#terminal = {
      open, ours: this.#nextNumber++, menu: new Menu(doors.user, []), hasTerminal: false, room: open.window,
      granted: menuWindowBytes, requests: [], shown: false
    }
    try {
      const list = await doors.list()
      const [only, ...others] = list
      if (only === undefined) throw new SallyportError('not-allowed', { detail: 'nothing is open to them' })
      // Nothing to choose: the channel is the target's from the start. A TCP target has none, and the menu
      // says so.
      if (others.length === 0 && only.protocol !== 'tcp') return this.#choose(only, [payload], undefined)
      terminal.menu = new Menu(doors.user, list)
      this.#send(openConfirmation(open.sender, terminal.ours, menuWindowBytes, streamPacketBytes))
    } catch (thrown) {
      const error = asSallyportError(thrown, 'store-unavailable')
      transport.disconnect(disconnectReason.byApplication, error.clientMessage)
    }
  }

  #terminalSays(terminal: Terminal, payload: Buffer): void {
    switch (payload[0]) {
      case sshMessage.channelRequest: return this.#asked(terminal, payload)
      case sshMessage.data: return this.#typed(terminal, payload)
      case sshMessage.windowAdjust:
        terminal.room += windowAdjustBytes(payload)
        return
      // Nothing more will be typed, and nothing was chosen.
      case sshMessage.eof: return this.#leave(terminal, 0)
      case sshMessage.close: return this.#options.transport.end()
      default: throw new Error(`message ${payload[0]} in a menu`)
    }
  }

  #asked(terminal: Terminal, payload: Buffer): void {
    const { purpose, wantReply } = parseChannelRequest(payload)
    if (terminal.requests.length >= requestsMax) throw new Error('too many requests')
    const passes = ['pty-req', 'window-change', 'env', 'shell'].includes(purpose.kind)
    if (passes) terminal.requests.push(Buffer.from(payload))
    if (purpose.kind === 'pty-req') terminal.hasTerminal = true
    const answer = passes || purpose.kind === 'exec' ? sshMessage.channelSuccess : sshMessage.channelFailure
    if (wantReply) this.#send(channelSignal(answer, terminal.open.sender))
    if (purpose.kind === 'shell' && terminal.hasTerminal && !terminal.shown) {
      terminal.shown = true
      this.#print(terminal, terminal.menu.begin())
    } else if (purpose.kind === 'exec' || (purpose.kind === 'shell' && !terminal.shown)) {
      const text = `sallyport: say which target is meant, one of\n${terminal.menu.list()}`
      this.#send(channelStderr(terminal.open.sender, Buffer.from(text)))
      this.#leave(terminal, usageStatus)
    }
  }

  #typed(terminal: Terminal, payload: Buffer): void {
    const bytes = dataBytes(payload)
    terminal.granted -= bytes
    if (terminal.granted < 0) throw new Error('data beyond the window')
    if (!terminal.shown) return
    const answer = terminal.menu.type(payload.toString('latin1', dataHeadBytes))
    this.#print(terminal, answer.text)
    if (answer.kind === 'left') return this.#leave(terminal, 0)
    if (answer.kind === 'chosen') return this.#choose(answer.door, [], terminal)
    if (terminal.granted < menuWindowBytes / 2) {
      this.#send(windowAdjust(terminal.open.sender, bytes))
      terminal.granted += bytes
    }
  }

  #print(terminal: Terminal, text: string): void {
    const bytes = Buffer.from(text)
    // A client without room for a menu has no terminal to show it on.
    if (bytes.length > terminal.room) return
    terminal.room -= bytes.length
    this.#send(channelData(terminal.open.sender, bytes))
  }

  #leave({ open }: Terminal, status: number): void {
    if (this.#left) return
    this.#left = true
    this.#send(channelRequest(open.sender, 'exit-status', false, status))
    this.#send(channelSignal(sshMessage.eof, open.sender))
    this.#send(channelSignal(sshMessage.close, open.sender))
  }

  #choose(door: Door, ahead: readonly Buffer[], terminal: Terminal | undefined): void {
    const { transport, setting, doors, address, enter, gone } = this.#options
    const adopted = terminal === undefined ? undefined : {
      ours: terminal.ours, client: terminal.open.sender, packetBytesMax: terminal.open.packetBytesMax,
      requests: terminal.requests,
      get grantedBytes() { return terminal.granted },
      get window() { return terminal.room }
    }
    const tell = (line: string): void => {
      if (terminal !== undefined) this.#print(terminal, `sallyport: ${line}\r\n`)
    }
    const login = `${doors.user}+${door.credential}@${door.target}`
    const claim = claimOf(login, address)
    this.#front = new DoorFront({ transport, setting, claim, ahead, adopted, tell, gone })
    void enter(this.#front).then(this.#done)
  }

  // ---- through to a target

  async #through(open: ChannelOpen, host: string, port: number): Promise<void> {
    const { doors, serve, setting } = this.#options
    const target = await doors.targetOf(host, port).catch(() => undefined)
    if (target === undefined) {
      setting.refused(doors.user, `connection to ${host}:${port}`, undefined)
      const list = await doors.list().catch(() => [])
      const tunnelled = list.find(door => door.target === host && door.protocol === 'tcp')
      const words = tunnelled === undefined
        ? `${host} is no target that is open to you`
        : `${host} is a TCP target: log in as ${doors.user}+${tunnelled.credential}`
      return this.#send(openFailure(open.sender, prohibited, words))
    }
    if (this.#streams.size >= streamsMax) {
      return this.#send(openFailure(open.sender, shortage, 'too many connections'))
    }
    const number = this.#nextNumber++
    const stream = new ChannelStream(open, payload => this.#send(payload))
    this.#streams.set(number, stream)
    stream.once('close', () => this.#streams.delete(number))
    this.#send(openConfirmation(open.sender, number, streamWindowBytes, streamPacketBytes))
    await serve(stream, target, doors)
  }
}

export function claimOf(login: string, address: string): Claim {
  return { protocol: 'ssh', login, replication: false, address, tls: true }
}
