// What a page of the console must be for whoever does not see it well, or has no mouse, or another screen:
// axe-core finds nothing serious in light and in dark, and nothing runs off to the right.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Page } from 'playwright-core'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

interface Violation {
  id: string
  impact: string
  nodes: { html: string }[]
}

/** `rule: element` for each serious or critical violation. `only`: one rule. */
export async function violationsOn(page: Page, only?: string): Promise<string[]> {
  await page.evaluate(axe)
  const options = { resultTypes: ['violations'], ...only === undefined ? {} : { runOnly: [only] } }
  const { violations } = await page.evaluate(`axe.run(${JSON.stringify(options)})`) as {
    violations: Violation[]
  }
  return violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`))
}

/** Pixels by which the page is wider than the screen. */
export async function excessOf(page: Page): Promise<number> {
  return await page.evaluate('document.documentElement.scrollWidth - innerWidth') as number
}
