// A QR code (ISO/IEC 18004) of a short text, as rows of dark and light modules: bytes, error correction M,
// versions 1 to 15, up to 412 bytes. An address for an authenticator app needs no more, and a package that
// draws would need a style or a canvas of its own; this is a path.

/** Of level M, by version from 1: correction bytes of a block, blocks, and data bytes in all. */
const versions: readonly (readonly [correction: number, blocks: number, bytes: number])[] = [
  [10, 1, 16], [16, 1, 28], [26, 1, 44], [18, 2, 64], [24, 2, 86], [16, 4, 108], [18, 4, 124], [22, 4, 154],
  [22, 5, 182], [26, 5, 216], [30, 5, 254], [22, 8, 290], [22, 9, 334], [24, 9, 365], [24, 10, 415]
]
/** From here on the number of bytes is told in two bytes. */
const longFromVersion = 10
/** … and the version is drawn. */
const toldFromVersion = 7
const quietModules = 4

type Modules = (boolean | undefined)[][]

/** Undefined for what is too long. */
export function qrCode(text: string): readonly (readonly boolean[])[] | undefined {
  const bytes = new TextEncoder().encode(text)
  const index = versions.findIndex(([, , room], at) =>
    bytes.length + (at + 1 < longFromVersion ? 2 : 3) <= room)
  if (index === -1) return undefined
  const bits = interleaved(dataOf(bytes, index + 1), index + 1)
  const masks = Array.from({ length: 8 }, (_, mask) => drawn(index + 1, bits, mask))
  return masks.toSorted((one, other) => penaltyOf(one) - penaltyOf(other))[0]!
}

/** The same as the path of an SVG of that many units. */
export function qrPath(text: string): { path: string, size: number } | undefined {
  const modules = qrCode(text)
  if (modules === undefined) return undefined
  const path = modules.flatMap((row, y) => row.map((dark, x) =>
    dark ? `M${x + quietModules} ${y + quietModules}h1v1h-1z` : '')).join('')
  return { path, size: modules.length + 2 * quietModules }
}

/** Mode, length, the bytes, and what fills the rest. */
function dataOf(bytes: Uint8Array, version: number): number[] {
  const bits: number[] = []
  const put = (value: number, count: number): void => {
    for (let at = count - 1; at >= 0; at--) bits.push(value >> at & 1)
  }
  put(0b0100, 4)
  put(bytes.length, version < longFromVersion ? 8 : 16)
  for (const byte of bytes) put(byte, 8)
  put(0, 4)
  const words: number[] = []
  for (let at = 0; at < bits.length; at += 8) {
    words.push(bits.slice(at, at + 8).reduce((sum, bit, place) => sum | bit << 7 - place, 0))
  }
  const room = versions[version - 1]![2]
  for (let at = 0; words.length < room; at++) words.push(at % 2 === 0 ? 0xec : 0x11)
  return words
}

/** Blocks with their correction, a byte of each in turn; the last ones have one byte more. */
function interleaved(data: readonly number[], version: number): number[] {
  const [correction, blocks, room] = versions[version - 1]!
  const short = Math.floor(room / blocks)
  const longOnes = room % blocks
  const divisor = divisorOf(correction)
  let at = 0
  const all = Array.from({ length: blocks }, (_, block) => {
    const words = data.slice(at, at += short + (block < blocks - longOnes ? 0 : 1))
    return { words, rest: restOf(words, divisor) }
  })
  const turns = <T>(lists: readonly (readonly T[])[]): T[] =>
    Array.from({ length: Math.max(...lists.map(list => list.length)) }, (_, turn) =>
      lists.flatMap(list => list.slice(turn, turn + 1))).flat()
  const words = [...turns(all.map(each => each.words)), ...turns(all.map(each => each.rest))]
  return words.flatMap(word => Array.from({ length: 8 }, (_, place) => word >> 7 - place & 1))
}

/** In GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1. */
function times(one: number, other: number): number {
  let product = 0
  for (let bit = 7; bit >= 0; bit--) {
    product = product << 1 ^ (product >> 7) * 0x11d
    product ^= (other >> bit & 1) * one
  }
  return product
}

function divisorOf(degree: number): number[] {
  let coefficients = [...Array<number>(degree - 1).fill(0), 1]
  let root = 1
  for (let at = 0; at < degree; at++) {
    coefficients = coefficients.map((each, place) => times(each, root) ^ (coefficients[place + 1] ?? 0))
    root = times(root, 2)
  }
  return coefficients
}

function restOf(words: readonly number[], divisor: readonly number[]): number[] {
  let rest = divisor.map(() => 0)
  for (const word of words) {
    const factor = word ^ rest[0]!
    rest = divisor.map((each, place) => (rest[place + 1] ?? 0) ^ times(each, factor))
  }
  return rest
}

const masks: readonly ((x: number, y: number) => boolean)[] = [
  (x, y) => (x + y) % 2 === 0, (_, y) => y % 2 === 0, x => x % 3 === 0, (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0, (x, y) => x * y % 2 + x * y % 3 === 0,
  (x, y) => (x * y % 2 + x * y % 3) % 2 === 0, (x, y) => ((x + y) % 2 + x * y % 3) % 2 === 0
]

function drawn(version: number, bits: readonly number[], mask: number): boolean[][] {
  const modules = frameOf(version, mask)
  const size = modules.length
  let at = 0
  // Two columns at a time from the right, up and down in turn; the column of the dotted line is left out.
  for (let right = size - 1, up = true; right > 0; right -= right === 8 ? 3 : 2, up = !up) {
    for (let step = 0; step < size; step++) {
      const y = up ? size - 1 - step : step
      for (const x of [right, right - 1]) {
        if (modules[y]![x] === undefined) modules[y]![x] = (bits[at++] === 1) !== masks[mask]!(x, y)
      }
    }
  }
  return modules as boolean[][]
}

/** Everything but the data: corners, small squares, dotted lines, format and version. */
function frameOf(version: number, mask: number): Modules {
  const size = version * 4 + 17
  const modules: Modules = Array.from({ length: size }, () =>
    Array<boolean | undefined>(size).fill(undefined))
  const set = (x: number, y: number, dark: boolean): void => {
    if (x >= 0 && y >= 0 && x < size && y < size) modules[y]![x] = dark
  }
  const square = (left: number, top: number, half: number, dark: (distance: number) => boolean): void => {
    for (let y = -half; y <= half; y++) {
      for (let x = -half; x <= half; x++) set(left + x, top + y, dark(Math.max(Math.abs(x), Math.abs(y))))
    }
  }
  for (let at = 0; at < size; at++) {
    set(6, at, at % 2 === 0)
    set(at, 6, at % 2 === 0)
  }
  const places = squaresOf(version, size)
  places.forEach((y, row) => places.forEach((x, column) => {
    const last = places.length - 1
    // Three corners have the large ones.
    const isCorner = (row === 0 && (column === 0 || column === last)) || (row === last && column === 0)
    if (!isCorner) square(x, y, 2, distance => distance !== 1)
  }))
  for (const [x, y] of [[3, 3], [size - 4, 3], [3, size - 4]] as const) {
    square(x, y, 4, distance => distance !== 2 && distance !== 4)
  }
  // Level M has the number 0.
  const format = (mask << 10 | remainder(mask, 10, 0x537)) ^ 0x5412
  drawFormat(set, size, at => (format >> at & 1) === 1)
  if (version >= toldFromVersion) {
    const told = version << 12 | remainder(version, 12, 0x1f25)
    for (let at = 0; at < 18; at++) {
      const [near, far] = [Math.floor(at / 3), size - 11 + at % 3]
      set(near, far, (told >> at & 1) === 1)
      set(far, near, (told >> at & 1) === 1)
    }
  }
  return modules
}

function drawFormat(
  set: (x: number, y: number, dark: boolean) => void, size: number, bit: (at: number) => boolean
): void {
  for (let at = 0; at < 15; at++) {
    // Around the first corner, past the dotted lines …
    const near = at < 6 ? at : at < 8 ? at + 1 : 14 - at + (at < 9 ? 1 : 0)
    if (at < 8) set(8, near, bit(at))
    else set(near, 8, bit(at))
    // … and once more along the other two.
    if (at < 8) set(size - 1 - at, 8, bit(at))
    else set(8, size - 15 + at, bit(at))
  }
  set(8, size - 8, true)
}

/** Centres of the small squares, in both directions. */
function squaresOf(version: number, size: number): number[] {
  if (version === 1) return []
  const count = Math.floor(version / 7) + 2
  const step = Math.ceil((size - 13) / (count * 2 - 2)) * 2
  const others = Array.from({ length: count - 1 }, (_, at) => size - 7 - at * step)
  return [6, ...others.reverse()]
}

function remainder(value: number, degree: number, generator: number): number {
  let rest = value
  for (let at = 0; at < degree; at++) rest = rest << 1 ^ (rest >> degree - 1) * generator
  return rest
}

/** How hard it is to read: long runs, squares of one colour, what looks like a corner, too much of one. */
function penaltyOf(modules: readonly (readonly boolean[])[]): number {
  const size = modules.length
  const columns = modules.map((_, x) => modules.map(row => row[x]!))
  let penalty = 0
  for (const line of [...modules, ...columns]) {
    const text = line.map(dark => dark ? '1' : '0').join('')
    for (const run of text.match(/0{5,}|1{5,}/g) ?? []) penalty += run.length - 2
    penalty += 40 * [...text.matchAll(/(?=00001011101|10111010000)/g)].length
  }
  for (let y = 1; y < size; y++) {
    for (let x = 1; x < size; x++) {
      const dark = modules[y]![x]
      const others = [modules[y - 1]![x], modules[y]![x - 1], modules[y - 1]![x - 1]]
      if (others.every(other => other === dark)) penalty += 3
    }
  }
  const share = modules.flat().filter(Boolean).length / size ** 2
  return penalty + 10 * Math.floor(Math.abs(share - 0.5) * 20)
}
