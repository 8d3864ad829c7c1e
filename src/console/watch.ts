// A session while it happens. The stream is the recording from its start and then what comes; when the line
// is cut it is asked for again, without what has been shown already, until the recording says that the
// session has ended.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { LineOf } from '../api/table.ts'
import { Refusal, lines } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem, momentOf } from './parts.ts'
import { loadPlayer, openScreen } from './player.ts'
import type { Dispatch } from './player.ts'

/** Shown of a live session; what is older is in the replay. */
const scenesShownMax = 1_000
const againMs = 1_000
const againMsMax = 15_000

/** Everything in it is safe to show. */
type Scene = LineOf<'/sessions/{id}/watch'>

type Link = 'connecting' | 'live' | 'cut' | 'ended'

/** Reads until the end of the session or until `signal`; throws Refusal when the server says no. */
async function follow(
  id: string, signal: AbortSignal, seen: (scene: Scene) => void, linked: (link: Link) => void
): Promise<void> {
  let count = 0
  let waitMs = againMs
  while (!signal.aborted) {
    try {
      for await (const scene of lines('/sessions/{id}/watch', {
        params: { id }, query: { after: count }, signal
      })) {
        count++
        waitMs = againMs
        linked(scene.kind === 'end' ? 'ended' : 'live')
        seen(scene)
        if (scene.kind === 'end') return
      }
    } catch (thrown) {
      if (signal.aborted) return
      // A refusal with a reference is the server's word; everything else is the line.
      if (thrown instanceof Refusal && thrown.reference !== undefined) throw thrown
    }
    linked('cut')
    await pause(waitMs, signal)
    waitMs = Math.min(waitMs * 2, againMsMax)
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

function useFollow(id: string, seen: (scene: Scene) => void): { link: Link, failure: unknown } {
  const [link, setLink] = useState<Link>('connecting')
  const [failure, setFailure] = useState<unknown>()
  useEffect(() => {
    const stop = new AbortController()
    follow(id, stop.signal, seen, setLink).catch(setFailure)
    return () => stop.abort()
  }, [id])
  return { link, failure }
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

export function LiveStatements({ id }: { id: string }): View {
  const [scenes, setScenes] = useState<readonly Scene[]>([])
  const { link, failure } = useFollow(id, scene =>
    setScenes(before => [...before.slice(1 - scenesShownMax), scene]))
  const shown = scenes.filter(scene => scene.kind !== 'resize')
  return html`<${Status} link=${link} failure=${failure} />
    <ol class="lane" aria-label="Live statements">${shown.map(scene => html`<li>
      <span class="at">${momentOf(scene.atMs)}</span>
      ${scene.kind === 'text'
        ? html`<div class="statement"><pre><code>${scene.text.trimEnd()}</code></pre></div>`
        : html`<p class="event">${scene.text}</p>`}</li>`)}</ol>`
}

const defaultSize = { cols: 80, rows: 24 }

export function LiveTerminal({ id }: { id: string }): View {
  const place = useRef<HTMLDivElement>(null)
  const [link, setLink] = useState<Link>('connecting')
  const [failure, setFailure] = useState<unknown>()
  const [events, setEvents] = useState<readonly string[]>([])
  useEffect(() => {
    const stop = new AbortController()
    const begin = (dispatch: Dispatch): void => {
      dispatch('reset', { size: defaultSize })
      follow(id, stop.signal, scene => {
        if (scene.kind === 'text') dispatch('output', scene.text)
        else if (scene.kind === 'resize') dispatch('resize', { cols: scene.columns, rows: scene.rows })
        else {
          const text = `${momentOf(scene.atMs)} ${scene.text}`
          setEvents(before => [...before.slice(1 - scenesShownMax), text])
        }
      }, setLink).catch(setFailure)
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
  }, [id])
  return html`<${Status} link=${link} failure=${failure} />
    <div class="terminal" ref=${place} aria-label="Live terminal"></div>
    ${events.length === 0 ? null : html`<ol class="events" aria-label="Events">
      ${events.map(text => html`<li>${text}</li>`)}</ol>`}`
}
