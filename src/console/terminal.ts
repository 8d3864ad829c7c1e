// A recorded SSH session on the player's screen. A jump to a moment is the player's own seek; events of the
// session (files, refused channels) are marks on its time line.
import { useEffect, useRef, useState } from 'preact/hooks'
import { addressOf } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem } from './parts.ts'
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
    <div class="terminal" ref=${place} aria-label="Terminal"></div>`
}
