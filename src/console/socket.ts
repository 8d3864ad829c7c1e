// A session in this page: a ticket from the API, a WebSocket that brings it, words and bytes. A line that is
// cut has ended its session, and the account with it: connecting again is a new one, and nothing pretends
// otherwise. Whoever is about to close the page is asked, because that ends the session as well.
import { useEffect, useRef, useState } from 'preact/hooks'
import { apiPrefix } from '../api/calling.ts'
import { post } from './call.ts'

export type Words = Readonly<Record<string, unknown>> & { readonly type: string }

export interface Heard {
  words?(words: Words): void
  bytes?(bytes: Uint8Array<ArrayBuffer>): void
}

export interface Session {
  phase: 'idle' | 'connecting' | 'open' | 'over'
  /** Of the record; once it is open. */
  id: string | undefined
  /** What was said while the account was made, and warnings. */
  notices: readonly string[]
  /** Why it is over, in the server's sentence. */
  end: string | undefined
  failure: unknown
}

export interface Connection extends Session {
  begin(first: Record<string, unknown>, heard: Heard): Promise<void>
  say(words: Words): void
  send(bytes: Uint8Array<ArrayBuffer>): void
  /** Ends it from here. */
  leave(): void
}

const noticesMax = 20
const nothing: Session = { phase: 'idle', id: undefined, notices: [], end: undefined, failure: undefined }
const cutSentence = 'The line was cut: that has ended the session. Connecting again begins a new one.'

export function useSession(protocol: 'ssh' | 'postgres', login: string): Connection {
  const [session, setSession] = useState(nothing)
  const socket = useRef<WebSocket | undefined>(undefined)
  useEffect(() => () => socket.current?.close(), [])
  useEffect(() => {
    if (session.phase !== 'open') return undefined
    const ask = (event: BeforeUnloadEvent): void => event.preventDefault()
    addEventListener('beforeunload', ask)
    return () => removeEventListener('beforeunload', ask)
  }, [session.phase])

  const hear = (words: Words): void => setSession(before => {
    if (words.type === 'open') return { ...before, phase: 'open', id: String(words['session']) }
    if (words.type === 'end') {
      return { ...before, end: [words['text'], words['detail']].filter(Boolean).join('. ') }
    }
    if (words.type !== 'notice' || words['severity'] !== undefined) return before
    return { ...before, notices: [...before.notices.slice(1 - noticesMax), String(words['text'])] }
  })

  const begin = async (first: Record<string, unknown>, heard: Heard): Promise<void> => {
    setSession({ ...nothing, phase: 'connecting' })
    try {
      const { ticket } = await post('/browser/tickets')
      const address = new URL(`${apiPrefix}/browser/socket`, location.href)
      address.protocol = 'wss:'
      const line = socket.current = new WebSocket(address)
      line.binaryType = 'arraybuffer'
      line.onopen = () => line.send(JSON.stringify({ ...first, type: 'open', protocol, login, ticket }))
      line.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
        if (typeof data !== 'string') return heard.bytes?.(new Uint8Array(data))
        const words = JSON.parse(data) as Words
        hear(words)
        heard.words?.(words)
      }
      line.onclose = ({ code }) => setSession(before => ({
        ...before, phase: 'over', end: before.end ?? (code === 1000 ? undefined : cutSentence)
      }))
    } catch (failure) {
      setSession({ ...nothing, phase: 'over', failure })
    }
  }
  const open = (): WebSocket | undefined =>
    socket.current?.readyState === WebSocket.OPEN ? socket.current : undefined
  return {
    ...session, begin,
    say: words => open()?.send(JSON.stringify(words)),
    send: bytes => open()?.send(bytes),
    leave: () => socket.current?.close(1000)
  }
}
