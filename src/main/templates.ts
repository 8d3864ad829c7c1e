// The templates that come with the build, read at every start. The store keeps each text as a version, so
// that an update of Sallyport is a new version like an admin's own, and a session that is open keeps the one
// it began with.
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseTemplate } from '../jit/template.ts'
import type { TemplateText } from '../store/templates.ts'

const shippedFolder = fileURLToPath(new URL('../../templates/', import.meta.url))

/** Every template of the build; a folder for each plugin. */
export function shippedTemplates(): readonly TemplateText[] {
  const files = readdirSync(shippedFolder, { recursive: true }).map(String)
  return files.filter(file => file.endsWith('.yaml')).sort().map(file => {
    const body = readFileSync(`${shippedFolder}${file}`, 'utf8')
    const { id, plugin, action } = parseTemplate(body)
    return { id, plugin, action, body, author: 'sallyport', shipped: true }
  })
}
