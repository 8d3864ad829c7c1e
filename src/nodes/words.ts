// What one node asks another: the questions, as addresses, and the shapes of the answers. A recording lies on
// the node that made it; whoever asks another node is answered by that one, which asks the first. Only
// questions about recordings exist here, and only what lies on the asked node itself answers them: nothing
// that was passed on can be passed on again.
import { z } from 'zod'
import { exportFormats } from '../recording/export.ts'

/** Below it are the questions; the number is that of this language. */
export const nodesPath = '/nodes/v1'

/** Lines that wait for something say an empty one now and then: who hears none for this long gives up. */
export const silenceMs = 30_000

const id = z.string().regex(/^[0-9a-z]{8,40}$/, 'expected a session id')
const count = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

const question = z.discriminatedUnion('what', [
  /** Whether the recording lies there: asked first, so that a node that hangs is found out early. */
  z.strictObject({ what: z.literal('has'), session: id }),
  z.strictObject({ what: z.literal('raw'), session: id, start: count.optional(), end: count.optional() }),
  z.strictObject({ what: z.literal('scenes'), session: id }),
  z.strictObject({ what: z.literal('follow'), session: id }),
  z.strictObject({ what: z.literal('live'), session: id, after: count, lane: count.optional() }),
  z.strictObject({ what: z.literal('lines'), session: id, from: z.coerce.number().min(0), before: count }),
  z.strictObject({ what: z.literal('export'), session: id, format: z.enum(exportFormats) }),
  z.strictObject({ what: z.literal('file'), session: id, copy: count }),
  z.strictObject({ what: z.literal('piece'), session: id, from: z.coerce.number().min(0) }),
  z.strictObject({
    what: z.literal('verify'), session: id, headHash: z.string().max(200).optional(), bytes: count.optional()
  }),
  z.strictObject({
    what: z.literal('search'), session: id.optional(), query: z.string().min(1).max(1024),
    limit: z.coerce.number().int().min(1).max(1000)
  })
])

export type Question = z.output<typeof question>

/** Who asks: the node, and for whom. Both are part of the address, so the ticket is for them alone. */
export interface Asker {
  by: string
  person: string
}

/** Path and query of a question, as it is asked and as the ticket names it. */
export function printQuestion({ what, ...rest }: Question, { by, person }: Asker): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(rest)) if (value !== undefined) query.set(name, String(value))
  query.set('for', person)
  query.set('by', by)
  return `${nodesPath}/${what}?${query.toString()}`
}

/** Undefined when it is none of ours. */
export function readQuestion(line: string): Question | undefined {
  const [path = '', text = ''] = line.split('?', 2)
  if (!path.startsWith(`${nodesPath}/`)) return undefined
  const { for: _for, by: _by, ...rest } = Object.fromEntries(new URLSearchParams(text))
  const read = question.safeParse({ ...rest, what: path.slice(nodesPath.length + 1) })
  return read.success ? read.data : undefined
}

// ---- answers: what does not fit its shape was not said by a node of this version

const lane = z.int().optional()

export const sceneAnswer = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('text'), atMs: z.number(), text: z.string(), lane }),
  z.object({ kind: z.literal('resize'), atMs: z.number(), columns: z.int(), rows: z.int(), lane }),
  z.object({ kind: z.literal('event'), atMs: z.number(), text: z.string(), lane }),
  z.object({ kind: z.literal('end'), atMs: z.number(), text: z.string() })
])

/** How it stands, and what happens then. */
export const nowAnswer = z.union([
  z.object({
    kind: z.literal('begin'), atMs: z.number(), count: z.int(), lanes: z.array(z.int()),
    screen: z.object({ columns: z.int(), rows: z.int(), picture: z.string(), lane }).optional(),
    lately: z.array(z.object({ number: z.int(), scene: sceneAnswer }))
  }),
  sceneAnswer
])

export const hasAnswer = z.object({ has: z.boolean() })

export const pieceAnswer = z.object({
  durationMs: z.number().optional(), columns: z.int(), rows: z.int(), picture: z.string(),
  scenes: z.array(sceneAnswer), untilMs: z.number(), last: z.boolean()
})

export const verdictAnswer = z.object({
  state: z.enum(['sealed', 'interrupted', 'broken', 'missing']), session: z.string(), bytes: z.int(),
  frames: z.int(), verifiedBytes: z.int(), headHash: z.string(), keyId: z.string(),
  brokenAt: z.int().optional(), problem: z.string().optional()
})

export type VerdictAnswer = z.output<typeof verdictAnswer>

/** A place where a text was found; `day`, lane and offset put it in order and tell it from others. */
export const placeAnswer = z.object({
  session: z.string(), user: z.string(), credential: z.string(), target: z.string(), at: z.string(),
  atMs: z.number(), kind: z.string(), text: z.string(), day: z.string(), lane: z.int(), offset: z.int()
})

export type Place = z.output<typeof placeAnswer>

export const refusalAnswer = z.object({
  error: z.object({
    code: z.string(), reference: z.string(), detail: z.string().optional(), problems: z.array(z.string())
  })
})
