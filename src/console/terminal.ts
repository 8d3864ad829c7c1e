// A recorded terminal on the player's screen, a piece at a time: the screen of the moment that somebody jumps
// to, and what came next; the rest is asked for as it is played. The screen is that of one channel; what
// happened besides, in all of them (commands, files, what was refused), is listed when it is asked for.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { PieceJson } from '../api/client-types.ts'
import { get, lines } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem, momentOf, show, useLoad } from './parts.ts'
import { loadPlayer, openScreen } from './player.ts'
import type { Dispatch } from './player.ts'

/** Longer pauses are shown as this long. */
const idleMsMax = 2_000
/** From picture to picture of a screen that changes all the time. */
const tickMs = 40
const speeds = [1, 2, 4, 8] as const

interface Playing {
  atMs: number
  durationMs: number | undefined
  playing: boolean
  ended: boolean
}

/** Plays pieces onto the player's screen. Not a component: it lives as long as the screen. */
class Reel {
  readonly #id: string
  readonly #dispatch: Dispatch
  readonly #told: (state: Playing) => void
  readonly #failed: (thrown: unknown) => void
  #piece: PieceJson | undefined
  #next: Promise<PieceJson> | undefined
  #shown = 0
  #atMs = 0
  #durationMs: number | undefined
  #playing = false
  #stop = new AbortController()
  #timer: ReturnType<typeof setTimeout> | undefined
  speed = 1

  constructor(
    id: string, dispatch: Dispatch, told: (state: Playing) => void, failed: (thrown: unknown) => void
  ) {
    this.#id = id
    this.#dispatch = dispatch
    this.#told = told
    this.#failed = failed
  }

  /** Shows the screen of that moment; goes on where it was playing. */
  async seek(ms: number): Promise<void> {
    this.#stop.abort()
    this.#stop = new AbortController()
    clearTimeout(this.#timer)
    this.#piece = undefined
    const { signal } = this.#stop
    const piece = await this.#load(ms, signal).catch((thrown: unknown) => {
      if (!signal.aborted) this.#failed(thrown)
    })
    if (signal.aborted || piece === undefined) return
    this.#dispatch('reset', { size: { cols: piece.columns, rows: piece.rows } })
    this.#dispatch('output', piece.picture)
    this.#atMs = ms
    this.#begin(piece)
    this.#tell()
    if (this.#playing) this.#tick(performance.now())
  }

  play(): void {
    this.#playing = true
    this.#tell()
    // Else it begins when its piece is there.
    if (this.#piece !== undefined) this.#tick(performance.now())
  }

  pause(): void {
    this.#playing = false
    clearTimeout(this.#timer)
    this.#tell()
  }

  close(): void {
    this.#stop.abort()
    clearTimeout(this.#timer)
  }

  #load(from: number, signal: AbortSignal): Promise<PieceJson> {
    return get('/sessions/{id}/piece', { params: { id: this.#id }, query: { from }, signal })
  }

  #begin(piece: PieceJson): void {
    this.#piece = piece
    this.#shown = 0
    this.#durationMs = piece.durationMs ?? this.#durationMs
    // Asked for before it is needed; whoever needs it hears why it does not come.
    this.#next = piece.last ? undefined : this.#load(piece.untilMs, this.#stop.signal)
    this.#next?.catch(() => undefined)
  }

  get #ended(): boolean {
    return this.#piece?.last === true && this.#shown >= this.#piece.scenes.length
  }

  #tick(beforeMs: number): void {
    clearTimeout(this.#timer)
    const nowMs = performance.now()
    this.#atMs += (nowMs - beforeMs) * this.speed
    const scenes = this.#piece?.scenes ?? []
    for (let scene = scenes[this.#shown]; scene !== undefined && scene.atMs <= this.#atMs;
      scene = scenes[++this.#shown]) this.#draw(scene)
    const coming = scenes[this.#shown]
    if (coming === undefined) return this.#goOn()
    if (coming.atMs - this.#atMs > idleMsMax) this.#atMs = coming.atMs - idleMsMax
    this.#tell()
    this.#timer = setTimeout(() => this.#tick(nowMs), tickMs)
  }

  #draw({ kind, text = '', columns: cols = 0, rows = 0 }: PieceJson['scenes'][0]): void {
    if (kind === 'text') this.#dispatch('output', text)
    else if (kind === 'resize') this.#dispatch('resize', { cols, rows })
  }

  #goOn(): void {
    const { signal } = this.#stop
    if (this.#piece === undefined || this.#ended) {
      this.#atMs = Math.min(this.#atMs, this.#durationMs ?? this.#atMs)
      return this.pause()
    }
    this.#next ??= this.#load(this.#piece.untilMs, signal)
    this.#next.then(piece => {
      if (signal.aborted) return
      this.#begin(piece)
      if (this.#playing) this.#tick(performance.now())
    }, (thrown: unknown) => {
      if (signal.aborted) return
      // Playing on asks once more.
      this.#next = undefined
      this.#failed(thrown)
      this.pause()
    })
  }

  #tell(): void {
    const [atMs, durationMs] = [this.#atMs, this.#durationMs]
    this.#told({ atMs, durationMs, playing: this.#playing, ended: this.#ended })
  }
}

export function Terminal({ id, atSeconds }: { id: string, atSeconds: number | undefined }): View {
  const place = useRef<HTMLDivElement>(null)
  const reel = useRef<Reel>(undefined)
  const [failure, setFailure] = useState<unknown>()
  const [state, setState] = useState<Playing>({
    atMs: (atSeconds ?? 0) * 1000, durationMs: undefined, playing: false, ended: false
  })
  const seek = (ms: number): void => void reel.current?.seek(ms)
  useEffect(() => {
    let end = (): void => undefined
    let gone = false
    loadPlayer().then(library => {
      if (gone || place.current === null) return
      const begin = (dispatch: Dispatch): void => {
        reel.current = new Reel(id, dispatch, setState, setFailure)
        seek((atSeconds ?? 0) * 1000)
        if (atSeconds === undefined) reel.current.play()
      }
      const player = openScreen(library, place.current, begin, () => reel.current?.close())
      end = () => player.dispose()
    }).catch(setFailure)
    return () => {
      gone = true
      reel.current?.close()
      end()
    }
  }, [id, atSeconds])
  return html`
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    <div class="terminal" ref=${place} aria-label="Terminal"></div>
    <${Controls} state=${state} seek=${seek} reel=${reel} failed=${setFailure} />
    <${Events} id=${id} />`
}

function Controls({ state, seek, reel, failed }: {
  state: Playing, seek(ms: number): void, reel: { current: Reel | undefined }, failed(thrown: unknown): void
}): View {
  const { atMs, durationMs, playing, ended } = state
  const [speed, setSpeed] = useState(1)
  const toggle = (): void => {
    failed(undefined)
    if (playing) return reel.current?.pause()
    if (ended) seek(0)
    reel.current?.play()
  }
  return html`<div class="acts playing">
    <button type="button" onClick=${toggle}>${playing ? 'Pause' : 'Play'}</button>
    <input type="range" aria-label="Moment" min="0" max=${Math.ceil(durationMs ?? atMs)} step="100"
      value=${atMs} aria-valuetext=${momentOf(atMs)}
      onChange=${(event: Event) => seek(Number((event.currentTarget as HTMLInputElement).value))} />
    <span class="at">${momentOf(atMs)}${durationMs === undefined ? '' : ` of ${momentOf(durationMs)}`}</span>
    <select aria-label="Speed" onChange=${(event: Event) => {
      const chosen = Number((event.currentTarget as HTMLSelectElement).value)
      setSpeed(chosen)
      if (reel.current !== undefined) reel.current.speed = chosen
    }}>${speeds.map(each => html`
      <option value=${each} selected=${each === speed}>${each} ×</option>`)}</select>
  </div>`
}

/** Listed of one session; the export has all of them. */
const eventsMax = 1_000

interface Scene {
  kind: string
  atMs: number
  text?: string
}

async function eventsOf(id: string, signal: AbortSignal): Promise<Scene[]> {
  const found: Scene[] = []
  for await (const scene of lines('/sessions/{id}/events', { params: { id }, signal })) {
    if (scene.kind === 'event' || scene.kind === 'end') found.push(scene)
    if (found.length >= eventsMax) break
  }
  return found
}

function Events({ id }: { id: string }): View {
  const [open, setOpen] = useState(false)
  return open
    ? html`<h2>Events</h2><${EventList} id=${id} />`
    : html`<p><button type="button" onClick=${() => setOpen(true)}>
        Commands, files and other events</button></p>`
}

function EventList({ id }: { id: string }): View {
  const loaded = useLoad(signal => eventsOf(id, signal), [id])
  return show(loaded, events => html`
    <ol class="lane" aria-label="Events">${events.map(({ atMs, text }) => html`<li>
      <a class="at" href=${`#at=${atMs / 1000}`}>${momentOf(atMs)}</a><p>${text}</p></li>`)}</ol>
    ${events.length < eventsMax ? null
      : html`<p class="quiet">The first ${eventsMax}; the export has all.</p>`}`)
}
