// The templates that come with the build, looked at in every start. The store keeps each text as a version,
// so that an update of Sallyport is a new version like an admin's own, and a session that is open keeps the
// one it began with.
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseTemplate } from '../jit/template.ts'
import { hashOf } from '../store/templates.ts'
import type { TemplateText } from '../store/templates.ts'

const shippedFolder = fileURLToPath(new URL('../../templates/', import.meta.url))

/**
 * Every template of the build, a folder for each plugin, but for those whose hash is known: reading all of
 * them takes a tenth of a second, and a start nearly always finds all in the store.
 */
export function shippedTemplates(known: ReadonlySet<string> = new Set()): readonly TemplateText[] {
  const files = readdirSync(shippedFolder, { recursive: true }).map(String)
  const bodies = files.filter(file => file.endsWith('.yaml')).sort()
    .map(file => readFileSync(`${shippedFolder}${file}`, 'utf8'))
  return bodies.filter(body => !known.has(hashOf(body))).map(body => {
    const { id, plugin, action } = parseTemplate(body)
    return { id, plugin, action, body, author: 'sallyport', shipped: true }
  })
}
