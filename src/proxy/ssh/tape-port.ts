// What the relay tells the evidence of a session: each message before it is passed on, and what we did
// ourselves.
export interface Tape {
  /** @throws WireError for what no peer may send */
  fromClient(payload: Buffer): void
  fromTarget(payload: Buffer): void
  event(event: Record<string, unknown>): void
  /** Nothing more comes. */
  end(): void
}
