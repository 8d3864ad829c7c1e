// The terminal of an SSH session. What is typed goes as it is; what is pasted loses its control characters,
// so that no text can end the paste by itself and go on as keystrokes, and where the shell does not know
// pastes several lines are asked about. What has been shown is acknowledged: the target waits for a slow
// browser.
import type { Terminal } from '@xterm/xterm'
import { useEffect, useRef } from 'preact/hooks'
import { Around } from './around.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { useSession } from './socket.ts'
import { createTerminal } from './xterm.ts'

/** So much is shown before it is said that it was. */
const ackBytes = 32 * 1024
/** Typed text goes in pieces; a paste may be long. */
const pieceBytes = 64 * 1024
const resizeMs = 100

export function Shell({ login, watches }: { login: string, watches: boolean }): View {
  const place = useRef<HTMLDivElement>(null)
  const end = useRef<() => void>(() => undefined)
  const connection = useSession('ssh', login)
  const screen = useRef<Terminal>(undefined)
  useEffect(() => () => end.current(), [])
  // Also when the line was cut without a word: what is typed would go nowhere.
  useEffect(() => {
    if (connection.phase !== 'over' || screen.current === undefined) return
    screen.current.options.disableStdin = true
  }, [connection.phase])

  const begin = async (): Promise<void> => {
    end.current()
    // A place that is not shown has no size.
    place.current!.hidden = false
    const { terminal, fit } = await createTerminal(place.current!)
    screen.current = terminal
    const stopResizing = follow(place.current!, fit)
    end.current = () => {
      stopResizing()
      terminal.dispose()
      end.current = () => undefined
    }
    let unsaid = 0
    const shown = (bytes: number): void => {
      unsaid += bytes
      if (unsaid < ackBytes) return
      connection.say({ type: 'ack', bytes: unsaid })
      unsaid = 0
    }
    terminal.onData(text => sendPieces(new TextEncoder().encode(text), connection.send))
    terminal.onBinary(text => connection.send(Uint8Array.from(text, each => each.charCodeAt(0))))
    terminal.onResize(({ cols, rows }) => connection.say({ type: 'size', columns: cols, rows }))
    guardPaste(terminal)
    // Tab belongs to the shell: this is the way out for those who have only a keyboard. When the session is
    // over it is theirs again.
    terminal.attachCustomKeyEventHandler(event => {
      if (terminal.options.disableStdin === true) return false
      if (event.key !== 'Escape' || !event.shiftKey) return true
      document.getElementById('leave')?.focus()
      return false
    })
    await connection.begin({ columns: terminal.cols, rows: terminal.rows }, {
      bytes: bytes => terminal.write(bytes, () => shown(bytes.length)),
      words(words) {
        if (words.type === 'open') terminal.focus()
        if (words.type === 'exit') terminal.options.disableStdin = true
      }
    })
  }
  return html`<${Around} connection=${connection} watches=${watches} what="shell" begin=${begin}>
    <div class="shell" ref=${place} hidden=${connection.phase === 'idle'} role="group"
      aria-label="Shell"></div>
    ${connection.phase === 'open'
      ? html`<p class="quiet">Shift+Escape leaves the terminal, Ctrl+Shift+V pastes.</p>` : null}
  <//>`
}

function sendPieces(bytes: Uint8Array<ArrayBuffer>, send: (bytes: Uint8Array<ArrayBuffer>) => void): void {
  for (let at = 0; at < bytes.length; at += pieceBytes) send(bytes.slice(at, at + pieceBytes))
}

/** As large as its place, once that has stopped changing. */
function follow(place: HTMLElement, fit: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined
  const observer = new ResizeObserver(() => {
    clearTimeout(timer)
    timer = setTimeout(fit, resizeMs)
  })
  observer.observe(place)
  return () => {
    clearTimeout(timer)
    observer.disconnect()
  }
}

function guardPaste(terminal: Terminal): void {
  terminal.textarea!.parentElement!.addEventListener('paste', event => {
    event.preventDefault()
    event.stopPropagation()
    const text = harmless(event.clipboardData?.getData('text/plain') ?? '')
    const lines = text.trimEnd().split('\n').length
    const asked = lines > 1 && !terminal.modes.bracketedPasteMode
    if (!asked || confirm(`Paste ${lines} lines? Each is carried out at once.`)) terminal.paste(text)
  }, { capture: true })
}

/** Everything that is no text, but line ends and tabs: ESC would end a bracketed paste. */
function harmless(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, '')
}
