// A driver as a hostile server would have it: in its thread it does with a statement what the statement says.
import { serve } from '../../plugins/apart/serve.ts'
import type { Rows } from '../../plugins/apart/words.ts'

const wrongs: Readonly<Record<string, () => Promise<Rows>>> = {
  'answer': async () => [['an answer']],
  'spin': async () => {
    for (;;) process.uptime()
  },
  'leak': async () => {
    const kept: string[][] = []
    for (;;) kept.push(Array.from({ length: 10_000 }, (_, index) => `row ${index}`))
  },
  'answer and leak': async () => {
    const kept: string[][] = []
    const leak = setInterval(() => {
      for (let round = 0; round < 20; round++) {
        kept.push(Array.from({ length: 10_000 }, (_, index) => `row ${index}`))
      }
      if (kept.length > 700) clearInterval(leak)
    })
    return [['an answer']]
  },
  'throw out of turn': async () => {
    setTimeout(() => { throw new Error('out of turn') })
    return new Promise(() => undefined)
  },
  'end': async () => process.exit(7)
}

serve<object>(async () => ({
  query: sql => wrongs[sql]!(),
  close: () => undefined
}))
