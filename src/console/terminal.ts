// A recorded SSH session on the player's screen. A jump to a moment is the player's own seek. The screen is
// that of one channel; what happened besides, in all of them (commands, files, what was refused), is listed
// below when it is asked for.
import { useEffect, useRef, useState } from 'preact/hooks'
import { addressOf, lines } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem, momentOf, show, useLoad } from './parts.ts'
import { loadPlayer } from './player.ts'

/** Longer pauses are shown as this long; the times shown are those of the recording without them. */
const idleSecondsMax = 2

export function Terminal({ id, atSeconds }: { id: string, atSeconds: number | undefined }): View {
  const place = useRef<HTMLDivElement>(null)
  const [failure, setFailure] = useState<unknown>()
  useEffect(() => {
    let end = (): void => undefined
    let gone = false
    loadPlayer().then(library => {
      if (gone || place.current === null) return
      const url = addressOf(`/sessions/${id}/export`, { format: 'asciicast-v2' })
      // With shortened pauses a moment would be somewhere else.
      const moment = atSeconds === undefined ? { idleTimeLimit: idleSecondsMax } : { startAt: atSeconds }
      const player = library.create({ url }, place.current, {
        ...moment, autoPlay: atSeconds === undefined, preload: true, fit: 'both', controls: true,
        poster: `npt:${atSeconds ?? 0}`
      })
      end = () => player.dispose()
    }).catch(setFailure)
    return () => {
      gone = true
      end()
    }
  }, [id, atSeconds])
  return html`
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    <div class="terminal" ref=${place} aria-label="Terminal"></div>
    <${Events} id=${id} />`
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
  for await (const scene of lines<Scene>(`/sessions/${id}/events`, {}, signal)) {
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
