// A session while it happens. A terminal begins with its screen as it is now; statements begin with the last
// ones, and older ones are asked for. What is older than that is in the replay, when the session is over.
import { useEffect, useRef, useState } from 'preact/hooks'
import { lines } from './call.ts'
import { follow } from './follow.ts'
import type { Beginning, Link, Scene } from './follow.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, momentOf } from './parts.ts'
import { loadPlayer, openScreen } from './player.ts'
import type { Dispatch } from './player.ts'

/** Shown of a live session, and so many more for each look back. */
const scenesShownMax = 1_000
const scenesPerLook = 200

interface Numbered {
  number: number
  scene: Scene
}

const words: Readonly<Record<Link, string>> = {
  connecting: 'Connecting …', live: 'Live', cut: 'The line is cut; trying again …',
  ended: 'The session has ended.'
}

function Status({ link, failure }: { link: Link, failure: unknown }): View {
  return failure === undefined
    ? html`<p role="status" class=${link === 'live' ? 'good' : 'quiet'}>${words[link]}</p>`
    : html`<${Problem} failure=${failure} />`
}

/** What was shown and what came since; where something between them is left out, only the latter. */
function joined(shown: readonly Numbered[], { lately }: Beginning): readonly Numbered[] {
  const last = shown.at(-1)?.number ?? 0
  const fresh = lately.filter(({ number }) => number > last)
  return fresh[0] === undefined || fresh[0].number === last + 1 ? [...shown, ...fresh] : fresh
}

export function LiveStatements({ id }: { id: string }): View {
  const [shown, setShown] = useState<readonly Numbered[]>([])
  const [link, setLink] = useState<Link>('connecting')
  const [failure, setFailure] = useState<unknown>()
  const shownMax = useRef(scenesShownMax)
  useEffect(() => {
    const stop = new AbortController()
    follow(id, undefined, stop.signal, {
      begin: beginning => setShown(before => joined(before, beginning)),
      scene: (scene, number) =>
        setShown(before => [...before.slice(1 - shownMax.current), { number, scene }]),
      linked: setLink
    }).catch(setFailure)
    return () => stop.abort()
  }, [id])
  const older = async (): Promise<void> => {
    const before = shown[0]!.number - 1
    const after = Math.max(0, before - scenesPerLook)
    const found: Numbered[] = []
    const asked = { after, limit: before - after }
    const { signal } = new AbortController()
    for await (const scene of lines('/sessions/{id}/events', { params: { id }, query: asked, signal })) {
      found.push({ number: after + found.length + 1, scene })
    }
    shownMax.current += found.length
    setShown(now => [...found, ...now])
  }
  const first = shown[0]?.number ?? 1
  return html`<${Status} link=${link} failure=${failure} />
    ${first === 1 ? null : html`<p><button type="button" onClick=${() => older().catch(setFailure)}>
      Show older</button></p>`}
    <ol class="lane" aria-label="Live statements">${shown.map(({ number, scene }) =>
      scene.kind === 'resize' ? null : html`<li key=${number}>
        <span class="at">${momentOf(scene.atMs)}</span>
        ${scene.kind === 'text'
          ? html`<div class="statement"><pre><code>${scene.text.trimEnd()}</code></pre></div>`
          : html`<p class="event">${scene.text}</p>`}</li>`)}</ol>`
}

/** The screen of one channel, and what is told of all. */
class Stage {
  readonly #dispatch: Dispatch
  readonly #told: (lanes: readonly number[], lane?: number) => void
  readonly #events: (change: (before: readonly Numbered[]) => readonly Numbered[]) => void
  readonly #lanes = new Set<number>()
  #lane: number | undefined

  constructor(
    dispatch: Dispatch, told: (lanes: readonly number[], lane?: number) => void,
    events: (change: (before: readonly Numbered[]) => readonly Numbered[]) => void
  ) {
    this.#dispatch = dispatch
    this.#told = told
    this.#events = events
  }

  begin({ screen, lanes, lately }: Beginning): void {
    if (screen !== undefined) {
      this.#lane = screen.lane
      this.#dispatch('reset', { size: { cols: screen.columns, rows: screen.rows } })
      this.#dispatch('output', screen.picture)
    }
    for (const lane of lanes) this.#lanes.add(lane)
    this.#told([...this.#lanes], this.#lane)
    this.#events(before => {
      const last = before.at(-1)?.number ?? 0
      return [...before, ...lately.filter(({ number }) => number > last)].slice(-scenesShownMax)
    })
  }

  scene(scene: Scene, number: number): void {
    if (scene.kind === 'event' || scene.kind === 'end') {
      return this.#events(before => [...before.slice(1 - scenesShownMax), { number, scene }])
    }
    const { lane } = scene
    if (lane !== undefined && !this.#lanes.has(lane)) {
      // Whoever came before anything was printed sees the first channel that prints.
      this.#lane ??= lane
      if (scene.kind === 'text') this.#lanes.add(lane)
      this.#told([...this.#lanes], this.#lane)
    }
    // What is of no channel is about all of them.
    if (lane !== undefined && lane !== this.#lane) return
    if (scene.kind === 'text') this.#dispatch('output', scene.text)
    else this.#dispatch('resize', { cols: scene.columns, rows: scene.rows })
  }
}

export function LiveTerminal({ id }: { id: string }): View {
  const place = useRef<HTMLDivElement>(null)
  const [link, setLink] = useState<Link>('connecting')
  const [failure, setFailure] = useState<unknown>()
  const [events, setEvents] = useState<readonly Numbered[]>([])
  const [channels, setChannels] = useState<{ lanes: readonly number[], lane?: number }>({ lanes: [] })
  const [wanted, setWanted] = useState<number>()
  useEffect(() => {
    const stop = new AbortController()
    const begin = (dispatch: Dispatch): void => {
      const told = (lanes: readonly number[], lane?: number): void =>
        setChannels({ lanes, ...lane === undefined ? {} : { lane } })
      const stage = new Stage(dispatch, told, setEvents)
      follow(id, wanted, stop.signal, {
        begin: beginning => stage.begin(beginning),
        scene: (scene, number) => stage.scene(scene, number),
        linked: setLink
      }).catch(setFailure)
    }
    let end = (): void => undefined
    loadPlayer().then(library => {
      if (stop.signal.aborted || place.current === null) return
      const player = openScreen(library, place.current, begin, () => stop.abort())
      end = () => player.dispose()
    }).catch(setFailure)
    return () => {
      stop.abort()
      end()
    }
  }, [id, wanted])
  return html`<${Status} link=${link} failure=${failure} />
    <${Channels} of=${channels} choose=${setWanted} />
    <div class="terminal" ref=${place} aria-label="Live terminal"></div>
    ${events.length === 0 ? null : html`<ol class="events" aria-label="Events">
      ${events.map(({ number, scene }) => scene.kind === 'resize' ? null : html`<li key=${number}>
        ${momentOf(scene.atMs)} ${scene.text}</li>`)}</ol>`}`
}

/** A session over SSH may have several channels; each has a screen of its own. */
function Channels({ of: { lanes, lane }, choose }: {
  of: { lanes: readonly number[], lane?: number }, choose(lane: number): void
}): Content {
  if (lanes.length < 2) return null
  return html`<p class="acts"><label>Channel
    <select onChange=${(event: Event) => choose(Number((event.currentTarget as HTMLSelectElement).value))}>
      ${lanes.map(each => html`<option value=${each} selected=${each === lane}>${each}</option>`)}
    </select></label>
    <span class="quiet">${lanes.length} channels have printed; one is shown.</span></p>`
}
