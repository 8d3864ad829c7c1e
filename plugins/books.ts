// Who is ours, on servers whose accounts carry no marker (SQL Server, Oracle): a table of our own, a row for
// each account. A row also says which of our processes acts on the account now, and until when: whoever dies
// or sleeps is out of the way after a few seconds of the server's own clock. The SQL is each plugin's; here
// is the order in which rows are asked and written.
import { randomBytes } from 'node:crypto'
import type { AccountRef } from '../src/jit/plugin.ts'
import { pause } from '../src/wire/pause.ts'
import { StepFailed, assertOurs } from './steps.ts'
import type { Marker } from './steps.ts'

export interface BookRow {
  /** '' while the row only keeps others away. */
  accountId: string
  epoch: number
  holder: string
  /** Until the hold ends, by the server's clock. */
  heldMs: number
}

export interface Book {
  /** Undefined when there is no row, or no table yet. */
  read(name: string): Promise<BookRow | undefined>
  /** A row without an owner, where there is none; makes the table when it is missing. */
  open(name: string): Promise<void>
  /** Takes or prolongs the hold, unless another process has it; answers whether it is ours now. */
  hold(name: string, holder: string): Promise<boolean>
  write(account: AccountRef): Promise<void>
}

/** How long a process that says nothing keeps others away. */
export const holdSeconds = 10
const waitMs = 5000
const lookMs = 100

/** This process: what an earlier connection of ours held, a later one may go on with. */
export const ourHolder = randomBytes(8).toString('hex')

/** The marker of a row. */
export function markerOf(row: BookRow | undefined): Marker | undefined {
  if (row === undefined || row.accountId === '') return undefined
  return { accountId: row.accountId, epoch: row.epoch }
}

/** Waits until no other process acts on the account; reads only. @throws StepFailed */
export async function whenQuiet(book: Book, name: string): Promise<BookRow | undefined> {
  for (let left = waitMs; ; left -= lookMs) {
    const row = await book.read(name)
    if (row === undefined || row.holder === ourHolder || row.heldMs <= 0) return row
    if (left <= 0) throw new StepFailed(`another hook is acting on ${name}`)
    await pause(lookMs)
  }
}

/**
 * Takes the account for an action: the hold, then whose it is, then our epoch in its row, which stands before
 * the account does. Answers what is there, by `look`; `isBound` says whether that is what the row speaks of.
 * @throws Foreign, StepFailed
 */
export async function takeAccount<Seen>(
  book: Book, account: AccountRef, look: () => Promise<Seen | undefined>, isBound: (seen: Seen) => boolean
): Promise<Seen | undefined> {
  const { name } = account
  await whenQuiet(book, name)
  await book.open(name)
  if (!await book.hold(name, ourHolder)) throw new StepFailed(`another hook is acting on ${name}`)
  const seen = await look()
  const marker = markerOf(await book.read(name))
  assertOurs(seen !== undefined, seen === undefined || isBound(seen) ? marker : undefined, account)
  await book.write(account)
  return seen
}

/** Before each step: nothing may be done for an account that another process has taken. */
export async function keepHold(book: Book, name: string): Promise<void> {
  if (!await book.hold(name, ourHolder)) throw new StepFailed(`the hold on ${name} was lost`)
}
