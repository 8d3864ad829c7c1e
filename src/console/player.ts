// The terminal player, asciinema's, as it is published: loaded only by the page that shows a terminal, since
// it is ten times as large as everything else here. What it is fed has passed the recorder's own filter
// (recording/terminal.ts): colours and cursor movements, and nothing a terminal would answer to.
import type { Options, Player } from 'asciinema-player'

/** What a source of the player may say. */
export type Dispatch = (event: string, data?: unknown) => void
/** A source of ours: the player calls it when its screen is ready. */
export type Driver = (callbacks: { dispatch: Dispatch }) => {
  init?(): void
  play(): boolean
  stop(): void
  getTiming?(): unknown
}

interface PlayerLibrary {
  create(source: { url: string } | Driver, place: HTMLElement, options: Options): Player
}

declare global {
  interface Window {
    AsciinemaPlayer?: PlayerLibrary
  }
}

let loading: Promise<PlayerLibrary> | undefined

export function loadPlayer(): Promise<PlayerLibrary> {
  return loading ??= new Promise((resolve, reject) => {
    const style = document.createElement('link')
    style.rel = 'stylesheet'
    style.href = new URL('../player/asciinema-player.css', import.meta.url).href
    const script = document.createElement('script')
    script.src = new URL('../player/asciinema-player.min.js', import.meta.url).href
    script.onload = () => resolve(window.AsciinemaPlayer!)
    script.onerror = () => reject(new Error('the player cannot be loaded'))
    document.head.append(style, script)
  })
}

/** A screen without the player's controls: `begin` gets what draws on it. */
export function openScreen(
  library: PlayerLibrary, place: HTMLElement, begin: (dispatch: Dispatch) => void, stop: () => void
): Player {
  return library.create(({ dispatch }) => ({
    play: () => {
      dispatch('play')
      dispatch('playing')
      begin(dispatch)
      return true
    },
    stop
  }), place, { autoPlay: true, fit: 'both', controls: false })
}
