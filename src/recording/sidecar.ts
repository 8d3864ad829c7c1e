// The index beside a sealed recording (`<session>.spx`): where in the file a time lies, and a filter that
// says which texts are certainly not in it, so that a search opens few recordings. It is made by reading the
// recording and can be thrown away at any time. It is believed only to save work: nothing is verified with
// it, and one that does not fit the recording is made again. Whoever may write into the folder could hide a
// recording from a search by changing its index; `search` can be told not to use it.
import { closeSync, constants, fstatSync, openSync, read, renameSync, unlinkSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { indexSuffix, openForReading, recordingSuffix } from './paths.ts'
import { readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { TextReader } from './text.ts'

const readPooled = promisify(read)

const magic = Buffer.from('SPX1')
/** A larger file is not ours. */
const indexBytesMax = 4 * 1024 * 1024
/** Distance of the first time marks; when there are too many, every other one is dropped. */
const firstDistanceBytes = 64 * 1024
const marksMax = 4096
/** The filter is made with so many bits and then folded, until an eighth of them is set. */
const filterBitsMax = 2 ** 20
const filterBitsMin = 2 ** 10
const filterShareMax = 1 / 8

export interface Mark {
  atMs: number
  offset: number
}

export interface Index {
  /** Hex id of the recording's file head, and its length: what the index was made from. */
  id: string
  bytes: number
  durationMs: number
  frames: number
  marks: Mark[]
  filter: Uint8Array
}

/** Texts are compared like this: without case, any white space as one blank. */
export function folded(text: string): string {
  const lower = (ascii.test(text) ? text : text.normalize('NFC')).toLowerCase()
  return otherSpace.test(lower) ? lower.replace(/\s+/g, ' ') : lower
}

// Asked first, because most lines need neither step and a search reads millions of them.
const ascii = /^[\0-\x7f]*$/
const otherSpace = /[^\S ]| {2}/

/** Multiplicative hash of three bytes to 20 bits; a smaller filter uses the lower ones. */
function trigramBit(first: number, second: number, third: number): number {
  return Math.imul((first << 16) | (second << 8) | third, 0x9e3779b1) >>> 12
}

/** Calls `act` with the bit of every three bytes in a row. */
function eachTrigram(text: string, act: (bit: number) => void): void {
  const bytes = Buffer.from(text, 'utf8')
  for (let i = 2; i < bytes.length; i++) act(trigramBit(bytes[i - 2] ?? 0, bytes[i - 1] ?? 0, bytes[i] ?? 0))
}

const bitsOfByte = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)

function bitsSet(filter: Uint8Array): number {
  let count = 0
  for (const byte of filter) count += bitsOfByte[byte] ?? 0
  return count
}

/** Folds the upper half onto the lower one as long as the filter stays selective. */
function fold(filter: Uint8Array): Uint8Array {
  let small = filter
  while (small.length * 8 > filterBitsMin) {
    const half = small.length / 2
    const next = small.slice(0, half)
    for (let i = 0; i < half; i++) next[i] = (next[i] ?? 0) | (small[half + i] ?? 0)
    if (bitsSet(next) > next.length * 8 * filterShareMax) break
    small = next
  }
  return small
}

/** False: the text is certainly not in the recording. Shorter than three bytes: always true. */
export function mayContain(index: Index, query: string): boolean {
  const mask = index.filter.length * 8 - 1
  let may = true
  eachTrigram(folded(query), bit => {
    const at = bit & mask
    if (((index.filter[at >> 3] ?? 0) & (1 << (at & 7))) === 0) may = false
  })
  return may
}

/** Offset of a frame at or before this time: where to begin reading. Undefined: at the first frame. */
export function seek(index: Index, atMs: number): number | undefined {
  let [low, high] = [0, index.marks.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((index.marks[middle]?.atMs ?? Infinity) <= atMs) low = middle + 1
    else high = middle
  }
  return index.marks[low - 1]?.offset
}

/** Reads the whole recording once. Lets other work go on between the pieces. */
export async function buildIndex(file: RecordingFile): Promise<Index> {
  const text = new TextReader()
  const filter = new Uint8Array(filterBitsMax / 8)
  const bytes = file.bytes
  let marks: Mark[] = []
  let distance = firstDistanceBytes
  let [frames, durationMs] = [0, 0]
  const take = (line: string): void => eachTrigram(folded(line), bit => {
    filter[bit >> 3] = (filter[bit >> 3] ?? 0) | (1 << (bit & 7))
  })
  for await (const batch of readBatches(file)) {
    for (const frame of batch) {
      frames++
      durationMs = frame.atMicroseconds / 1000
      const { offset } = frame
      if (offset - (marks.at(-1)?.offset ?? 0) >= distance) marks.push({ atMs: durationMs, offset })
      if (marks.length > marksMax) {
        marks = marks.filter((_, i) => i % 2 === 0)
        distance *= 2
      }
      for (const line of text.push(frame)) take(line.text)
    }
  }
  for (const line of text.end()) take(line.text)
  return { id: file.fileHead.id.toString('hex'), bytes, durationMs, frames, marks, filter: fold(filter) }
}

function indexPath(file: RecordingFile): string {
  return file.path.slice(0, -recordingSuffix.length) + indexSuffix
}

/**
 * Puts the index beside the recording; a reader sees the old one or the new one. Throws what the system says.
 */
export function saveIndex(file: RecordingFile, index: Index): void {
  const path = indexPath(file)
  const { filter, ...rest } = index
  const json = Buffer.from(JSON.stringify({ ...rest, filterBytes: filter.length }))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  const temporary = `${path}.${process.pid}`
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
  const descriptor = openSync(temporary, flags, 0o600)
  try {
    writeSync(descriptor, Buffer.concat([magic, length, json, filter]))
  } finally {
    closeSync(descriptor)
  }
  try {
    renameSync(temporary, path)
  } catch (thrown) {
    unlinkSync(temporary)
    throw thrown
  }
}

/** The index of this very recording, if there is a usable one. */
export async function loadIndex(file: RecordingFile): Promise<Index | undefined> {
  let descriptor: number
  try {
    descriptor = openForReading(indexPath(file))
  } catch {
    return undefined
  }
  try {
    const { size } = fstatSync(descriptor)
    if (size > indexBytesMax || size < 8) return undefined
    const bytes = Buffer.alloc(size)
    await readPooled(descriptor, bytes, 0, size, 0)
    const index = decodeIndex(bytes)
    const fits = index?.id === file.fileHead.id.toString('hex') && index.bytes === file.bytes
    return fits ? index : undefined
  } finally {
    closeSync(descriptor)
  }
}

function decodeIndex(bytes: Buffer): Index | undefined {
  const jsonEnd = 8 + bytes.readUInt32BE(4)
  if (!bytes.subarray(0, 4).equals(magic) || jsonEnd > bytes.length) return undefined
  try {
    const value = JSON.parse(bytes.toString('utf8', 8, jsonEnd)) as Record<string, unknown>
    const { id, bytes: length, durationMs, frames, marks, filterBytes } = value
    const numbers = [length, durationMs, frames, filterBytes]
    if (typeof id !== 'string' || !numbers.every(each => typeof each === 'number')) return undefined
    if (!Array.isArray(marks) || !marks.every(isMark)) return undefined
    const filter = bytes.subarray(jsonEnd)
    const bits = filter.length * 8
    const fits = bits >= filterBitsMin && bits <= filterBitsMax && (bits & (bits - 1)) === 0
    if (filter.length !== filterBytes || !fits) return undefined
    const counts = { bytes: Number(length), durationMs: Number(durationMs), frames: Number(frames) }
    return { id, ...counts, marks, filter }
  } catch {
    return undefined
  }
}

function isMark(value: unknown): value is Mark {
  const mark = value as Mark | null
  return Number.isFinite(mark?.atMs) && Number.isSafeInteger(mark?.offset)
}

/**
 * The index from the sidecar, or made now; of a sealed recording it is kept, where the folder can be written.
 */
export async function indexOf(file: RecordingFile): Promise<Index> {
  const found = await loadIndex(file)
  if (found !== undefined) return found
  const index = await buildIndex(file)
  if (file.ending() === undefined) return index
  try {
    saveIndex(file, index)
  } catch {
    // A read-only folder: the index is a convenience.
  }
  return index
}
