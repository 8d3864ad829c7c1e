// Contrast as WCAG 2 counts it, worked out in the page itself: every text that is shown, against the ground
// that is painted under it. What is below 4.5 to 1 (3 to 1 for large type) is named with its text. It runs
// in the browser, so it is a text here.

/** An expression for the browser; its value is the list of texts that cannot be read well. */
export const faintTexts = `(() => {
  const numbers = color => (color.match(/[\\d.]+/g) ?? []).map(Number)
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    return 0.2126 * x + 0.7152 * y + 0.0722 * z
  }
  const groundOf = element => {
    for (let each = element; each !== null; each = each.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(each).backgroundColor)
      if (alpha > 0) return [r, g, b]
    }
    return [255, 255, 255]
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const faint = []
  let seen = 0
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode
    if (data.trim() === '' || parentElement.getClientRects().length === 0) continue
    if (parentElement.closest('.terminal, script, noscript') !== null) continue
    seen++
    const { color, fontSize, fontWeight } = getComputedStyle(parentElement)
    const [one, other] = [light(numbers(color)), light(groundOf(parentElement))].sort((a, b) => b - a)
    const ratio = (one + 0.05) / (other + 0.05)
    const large = parseFloat(fontSize) >= 24 || (parseFloat(fontSize) >= 18.66 && Number(fontWeight) >= 700)
    if (ratio < (large ? 3 : 4.5)) faint.push(data.trim().slice(0, 40) + ' ' + ratio.toFixed(2))
  }
  return seen < 5 ? ['there is nothing to look at'] : faint
})()`
