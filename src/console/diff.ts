// The difference of two texts by lines, for versions of a template: what both have stays in its place, what
// only one has is marked. The longest common run of lines is found exactly; templates are pages, not books.

export interface DiffLine {
  kind: 'same' | 'removed' | 'added'
  text: string
}

/** Beyond this both texts are shown whole, one after the other. */
const linesMax = 3_000

export function diffOf(before: string, after: string): DiffLine[] {
  const [old, next] = [before.split('\n'), after.split('\n')]
  const line = (kind: DiffLine['kind']) => (text: string): DiffLine => ({ kind, text })
  if (Math.max(old.length, next.length) > linesMax) {
    return [...old.map(line('removed')), ...next.map(line('added'))]
  }
  // Length of the longest common run of the rest of both, from each pair of places.
  const width = next.length + 1
  const common = new Uint16Array((old.length + 1) * width)
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = next.length - 1; j >= 0; j--) {
      common[i * width + j] = old[i] === next[j]
        ? common[(i + 1) * width + j + 1]! + 1
        : Math.max(common[(i + 1) * width + j]!, common[i * width + j + 1]!)
    }
  }
  const lines: DiffLine[] = []
  let [i, j] = [0, 0]
  while (i < old.length || j < next.length) {
    if (i < old.length && j < next.length && old[i] === next[j]) {
      lines.push({ kind: 'same', text: old[i++]! })
      j++
    } else if (j >= next.length || (i < old.length
      && common[(i + 1) * width + j]! >= common[i * width + j + 1]!)) {
      lines.push({ kind: 'removed', text: old[i++]! })
    } else lines.push({ kind: 'added', text: next[j++]! })
  }
  return lines
}
