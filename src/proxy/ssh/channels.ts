// The channels of one SSH connection as somebody in the middle sees them. A channel has two numbers, one
// given by each side, and a message names the number of the side that it goes to. Each channel gets a lane of
// the recording. What breaks if this is changed carelessly: bytes are put on record under the wrong channel.
import { WireError } from '../../wire/error.ts'
import type { ChannelOpen } from '../../wire/ssh/connection.ts'
import type { Content } from './content.ts'

export type Side = 'client' | 'target'

/** A channel's stderr has the lane of the channel with this bit set. */
export const stderrLane = 0x8000
/** Lane 0 is for the whole session. */
const lanesMax = 0x7fff
/** A window is 32 bits (RFC 4254 section 5.2). */
const windowMax = 0xffffffff
/** What may be sent beyond a window, as OpenSSH has it: peers miscount. */
const overrunShare = 0.1
/** Requests of one side that wait for their reply, for one channel. OpenSSH has one for each variable. */
const repliesMax = 1024

export interface Channel {
  readonly lane: number
  readonly open: ChannelOpen
  readonly openedBy: Side
  /** The number that each side gave; of the side that has not confirmed yet there is none. */
  readonly numbers: Record<Side, number | undefined>
  readonly closed: Record<Side, boolean>
  /** Bytes that this side may still send: the other one's window. */
  readonly credit: Record<Side, number>
  /** The largest that it was. */
  readonly creditMax: Record<Side, number>
  /** Names of requests by that side which want a reply and have none yet. */
  readonly waiting: Record<Side, Asked[]>
  /** A terminal was asked for, and not refused. */
  pty: boolean
  content: Content
  /** Whether a shell, command or subsystem was asked for, and whether the target said yes. */
  started: 'no' | 'asked' | 'yes'
}

export interface Asked {
  type: string
  /** Why it will be refused: it was made useless before it was passed on. */
  refused: string | undefined
  /** It is the one that decided what the channel carries. */
  starts: boolean
}

export function otherSide(side: Side): Side {
  return side === 'client' ? 'target' : 'client'
}

export class ChannelTable {
  readonly #channelsMax: number
  readonly #byNumber: Record<Side, Map<number, Channel>> = { client: new Map(), target: new Map() }
  readonly #lanes = new Set<number>()
  #lastLane = 0
  #wrapped = false

  constructor(channelsMax: number) {
    this.#channelsMax = Math.min(channelsMax, lanesMax)
  }

  /** No more channels may be opened now. */
  get full(): boolean {
    return this.#lanes.size >= this.#channelsMax
  }

  /** Lanes are used for the second time. */
  get wrapped(): boolean {
    return this.#wrapped
  }

  /** Every channel that is open or being opened. */
  all(): Channel[] {
    const { client, target } = this.#byNumber
    return [...new Set([...client.values(), ...target.values()])]
  }

  /** A side asks for a channel. @throws WireError */
  open(side: Side, open: ChannelOpen, contentOf: (lane: number) => Content): Channel {
    const own = this.#byNumber[side]
    if (own.has(open.sender)) throw new WireError(`SSH channel ${open.sender} is open already`)
    if (this.full) throw new WireError('too many SSH channels')
    const lane = this.#freeLane()
    const channel: Channel = {
      lane, open, openedBy: side, numbers: { client: undefined, target: undefined },
      closed: { client: false, target: false }, credit: { client: 0, target: 0 },
      creditMax: { client: 0, target: 0 }, waiting: { client: [], target: [] }, pty: false,
      content: contentOf(lane), started: 'no'
    }
    channel.numbers[side] = open.sender
    this.grant(side, channel, open.window)
    own.set(open.sender, channel)
    return channel
  }

  /** `side` says yes to a channel that the other one asked for. @throws WireError */
  confirm(side: Side, recipient: number, sender: number, window: number): Channel {
    const channel = this.#opening(side, recipient)
    const own = this.#byNumber[side]
    if (own.has(sender)) throw new WireError(`SSH channel ${sender} is open already`)
    channel.numbers[side] = sender
    own.set(sender, channel)
    this.grant(side, channel, window)
    return channel
  }

  /** `side` says no. @throws WireError */
  fail(side: Side, recipient: number): Channel {
    const channel = this.#opening(side, recipient)
    this.#forget(channel)
    return channel
  }

  /** The channel that a message from `side` is for. Undefined: there is none. */
  find(side: Side, recipient: number): Channel | undefined {
    const channel = this.#byNumber[otherSide(side)].get(recipient)
    return channel?.numbers[side] === undefined || channel.closed[side] ? undefined : channel
  }

  /** The same. @throws WireError when there is none */
  get(side: Side, recipient: number): Channel {
    const channel = this.find(side, recipient)
    if (channel === undefined) throw new WireError(`SSH channel ${recipient} is not open`)
    return channel
  }

  /** `side` lets the other one send so many bytes more. @throws WireError */
  grant(side: Side, channel: Channel, bytes: number): void {
    const { credit, creditMax } = channel
    const other = otherSide(side)
    credit[other] += bytes
    if (credit[other] > windowMax) throw new WireError('an SSH window that is too large')
    creditMax[other] = Math.max(creditMax[other], credit[other])
  }

  /** `side` sends so many bytes. @throws WireError when the other one's window is too small for them */
  spend(side: Side, { credit, creditMax }: Channel, bytes: number): void {
    credit[side] -= bytes
    const overrunMax = overrunShare * creditMax[side]
    if (credit[side] < -overrunMax) throw new WireError('more SSH data than the window takes')
  }

  /** `side` has sent its CLOSE. True when both have, and the channel is gone. */
  close(side: Side, channel: Channel): boolean {
    channel.closed[side] = true
    if (!channel.closed[otherSide(side)]) return false
    this.#forget(channel)
    return true
  }

  /** A request of `side` wants a reply. @throws WireError */
  ask(side: Side, channel: Channel, asked: Asked): void {
    const waiting = channel.waiting[side]
    if (waiting.length >= repliesMax) throw new WireError('too many SSH requests without a reply')
    waiting.push(asked)
  }

  #opening(side: Side, recipient: number): Channel {
    const channel = this.#byNumber[otherSide(side)].get(recipient)
    if (channel === undefined || channel.openedBy === side || channel.numbers[side] !== undefined) {
      throw new WireError(`SSH channel ${recipient} is not being opened`)
    }
    return channel
  }

  #forget(channel: Channel): void {
    for (const side of ['client', 'target'] as const) {
      const number = channel.numbers[side]
      if (number !== undefined) this.#byNumber[side].delete(number)
    }
    this.#lanes.delete(channel.lane)
  }

  /** Lanes are given in turn, so that one is used again as late as possible. */
  #freeLane(): number {
    do {
      this.#wrapped ||= this.#lastLane === lanesMax
      this.#lastLane = this.#lastLane % lanesMax + 1
    } while (this.#lanes.has(this.#lastLane))
    this.#lanes.add(this.#lastLane)
    return this.#lastLane
  }
}
