// What the rest of the house knows of a recording. A recording is one append-only file of frames; `append`
// takes a frame into the buffer, `commit` puts everything appended so far into the file. Strict mode rests on
// one rule: a relay forwards the bytes of a frame only after `commit` said so.

/** What a frame holds. The numbers are the format: never reuse one. */
export const frameKind = {
  /** JSON: who, what, when. The first frame. */
  open: 1,
  /** Raw bytes from the client to the target. */
  input: 2,
  /** Raw bytes from the target to the client. */
  output: 3,
  /** JSON: a thing that happened (`type` names it): warning, resize, notice, kill … */
  event: 4,
  /** PostgreSQL: client messages as they came (Query, Parse, Bind, Execute, FunctionCall …), back to back. */
  statement: 5,
  /** PostgreSQL: what the target answered: rows, bytes, command tag or error, duration. */
  result: 6,
  /** JSON: how it ended. The last frame before the seal. */
  close: 7,
  /** Hash chain checkpoint and, at the end, the signed seal. */
  seal: 8,
  /** SSH: bytes of a transferred file, behind the number of its copy (u32). */
  file: 9
} as const

export type FrameKind = typeof frameKind[keyof typeof frameKind]

export interface RecordingHead {
  session: string
  user: string
  credential: string
  target: string
  protocol: string
  address: string
  /** ISO 8601 UTC. Names the folder of the file (year/month/day). */
  startedAt: string
  node: string
  /** `web`: over a page of the console. */
  client?: string
  /** PostgreSQL: the database, for the prompt in a replay. */
  database?: string
  /** Terminals: the size at the start; later sizes are `resize` events. */
  terminal?: { columns: number, rows: number }
}

export interface Ending {
  /** `ended` by a peer; `cut` by us; `interrupted` by a crash (written by recovery). */
  how: 'ended' | 'cut' | 'interrupted'
  /** An ErrorCode, or `client-closed` / `target-closed`. */
  reason: string
  /** Of the error that the client saw. */
  reference?: string | undefined
  /** For operators. */
  detail?: string | undefined
}

/**
 * Ed25519 under the key of this node or cluster. Whoever has the public key can verify; nobody else can sign.
 */
export interface Signer {
  /** Names the key for people: at most 32 ASCII characters, longer ones are cut. */
  readonly keyId: string
  /** Ed25519 (RFC 8032) over the bytes: 64 bytes. */
  sign(bytes: Uint8Array): Uint8Array
}

/** What a seal says of the file: belongs into the audit log, which then notices a file that was replaced. */
export interface SealSummary {
  session: string
  /** False: the recorder had failed, or the disk did not answer; recovery seals the file as interrupted. */
  sealed: boolean
  /** Relative to the recordings folder: `2026/11/21/<session>.spr`. */
  path: string
  /** Length of the whole file, the seal included. */
  bytes: number
  frames: number
  /** Hex of the last link of the hash chain; empty when not sealed. */
  headHash: string
  ending: Ending
}

export interface Recording {
  readonly session: string
  /** Aborts with a SallyportError (`recorder-failed`) when a write failed: cut both sides. */
  readonly failed: AbortSignal
  /** Takes a frame into the buffer; copies the bytes. `lane` is the channel (0 for PostgreSQL). */
  append(kind: FrameKind, lane: number, ...parts: readonly Uint8Array[]): void
  /**
   * Puts everything appended so far into the file. `true` at once on the fast path (write(2) returned);
   * a promise when the disk is slow: hold the bytes back until it resolves. Throws or rejects with
   * `recorder-failed`; `failed` is aborted before that. A frame that nobody commits reaches the file within
   * 20 ms.
   */
  commit(): true | Promise<void>
  /** Seals, signs, syncs and closes. Idempotent (the first ending counts); never throws. */
  seal(ending: Ending): Promise<SealSummary>
}
