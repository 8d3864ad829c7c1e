// What the listener gives to every front of its connections.
import type { Duplex } from 'node:stream'
import type { Clock } from '../../clock.ts'
import type { Recording } from '../../recording/recording.ts'
import type { ChannelKind, Upstreaming } from '../../session/front.ts'
import type { Penalties } from '../penalties.ts'
import type { Judged } from './judged.ts'
import type { SshTape } from './tape.ts'
import type { TargetTimeouts } from './target.ts'
import type { Transport, TransportEvents } from './transport.ts'

/** What a session needs whose person has proved who they are. */
export interface DoorSetting {
  clock: Clock
  timeouts: TargetTimeouts
  tapeOf(
    recording: Recording, rights: Pick<Upstreaming, 'channels' | 'copyFiles'>, judged: Judged | undefined
  ): SshTape
  /** Something that a grant does not allow was asked for: for the log. */
  refused(session: string, what: string, right: ChannelKind | undefined): void
}

/** What all sessions of a listener share. */
export interface FrontSetting extends DoorSetting {
  penalties: Penalties
  /** An SSH server of ours within a channel, which shows itself as the host of that name. */
  openInner(stream: Duplex, host: string, events: TransportEvents): Transport
}
