// What the API tells line by line, as messages of a WebSocket: one for each line, as fast as they are taken.
// Nothing is said in return.
import { asSallyportError } from '../../errors.ts'
import type { Page } from './page.ts'

/** Never rejects. */
export async function tail(page: Page, lines: AsyncIterable<Uint8Array>): Promise<void> {
  const unasked = (): void => page.breach('words where none are expected')
  page.listen({ words: unasked, bytes: unasked, closed: () => undefined })
  const decoder = new TextDecoder()
  let text = ''
  try {
    for await (const chunk of lines) {
      text += decoder.decode(chunk, { stream: true })
      const whole = text.split('\n')
      text = whole.pop() ?? ''
      for (const line of whole) page.pass(line)
      await page.drain()
      if (page.over) return
    }
    page.leave()
  } catch (thrown) {
    page.fail(asSallyportError(thrown))
  }
}
