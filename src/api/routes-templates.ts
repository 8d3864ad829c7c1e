// Routes over templates (J8, J9): list, read, save as a new version, switch off, lint, dry run, and the
// proof on a real target. A template is text that runs with an admin's rights on a target, so only admins
// write one, every save is kept with its author, and nothing is saved that lint has something against.
import { z } from 'zod'
import { SallyportError, asSallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import type { Variables } from '../jit/plugin.ts'
import { linesOf } from '../jit/template-lines.ts'
import { parseTemplate } from '../jit/template.ts'
import type { Credential } from '../policy/types.ts'
import { byName, limit, pageOf } from './pages.ts'
import type { ApiPorts, TemplateRow } from './ports.ts'
import { admins, route, watchers } from './route.ts'
import { planShape, templateBodyShape, templateJson, templateShape } from './shapes.ts'

// Characters; the reader (jit/template.ts) has its own limit in bytes.
const templateCharactersMax = 65_536

const part = z.string().regex(/^[a-z0-9][a-z0-9_.-]{0,62}$/, 'expected a name such as postgres/create-role')
const params = z.object({ plugin: part, name: part })
const body = z.string().min(1).max(templateCharactersMax)
/** Warnings are worth a second look and do not keep a template from being saved. */
const lintShape = z.object({
  valid: z.boolean(), problems: z.array(z.string()), warnings: z.array(z.string()),
  /** The line of each problem and then of each warning; null: about the whole text. */
  lines: z.array(z.int().nullable())
})

export function templateRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/templates', roles: watchers,
      summary: 'The newest version of every template, by id.',
      query: z.strictObject({
        plugin: part.optional(), action: z.enum(['create', 'delete', 'enable', 'disable']).optional(),
        ...byName
      }),
      response: z.object({ templates: z.array(templateShape) }),
      run: async ({ query: { plugin, action, ...page } }) => {
        const rows = (await ports.templates.list()).filter(row =>
          (plugin === undefined || row.plugin === plugin) && (action === undefined || row.action === action))
        return { templates: pageOf(rows, ({ id }) => id, page).map(templateJson) }
      }
    }),
    route({
      method: 'get', path: '/templates/{plugin}/{name}', roles: watchers,
      summary: 'One template with its text.',
      params,
      query: z.strictObject({ version: z.coerce.number<number>().int().min(1).optional() }),
      response: templateBodyShape,
      run: async ({ params: at, query }) => bodyJson(await templateOf(ports, idOf(at), query.version))
    }),
    route({
      method: 'get', path: '/templates/{plugin}/{name}/versions', roles: watchers,
      summary: 'Every version of a template, newest first, without its text.',
      params, query: z.strictObject({ before: z.coerce.number<number>().int().optional(), limit }),
      response: z.object({ versions: z.array(templateShape) }),
      run: async ({ params: at, query: { before = Infinity, limit: count } }) => {
        const { id } = await templateOf(ports, idOf(at))
        const older = (await ports.templates.versions(id)).filter(({ version }) => version < before)
        return { versions: older.toReversed().slice(0, count).map(templateJson) }
      }
    }),
    route({
      method: 'put', path: '/templates/{plugin}/{name}', roles: admins,
      bodyBytesMax: templateCharactersMax * 6,
      summary: 'Saves a text as a new version; refused with everything that lint finds.',
      params,
      body: z.strictObject({ body }),
      response: templateBodyShape,
      run: async ({ params: at, body: given, caller }) => {
        const row = await save(ports, idOf(at), given.body, caller.name)
        const { id, version, sha256 } = row
        await ports.audit.append('template.saved', caller.name, id, { version, sha256 })
        return bodyJson(row)
      }
    }),
    route({
      method: 'post', path: '/templates/{plugin}/{name}/active', roles: admins,
      summary: 'Switches a template on or off; one that credentials name is not switched off.',
      params,
      body: z.strictObject({ active: z.boolean() }),
      response: templateShape,
      run: async ({ params: at, body: { active }, caller }) => {
        const { id } = await templateOf(ports, idOf(at))
        const users = active ? [] : await credentialsWith(ports, id)
        if (users.length > 0) {
          const problems = users.map(name => `template ${id}: in use by credential/${name}`)
          throw new SallyportError('in-use', { problems })
        }
        await ports.templates.setActive(id, active)
        await ports.audit.append('template.switched', caller.name, id, { active })
        return templateJson(await templateOf(ports, id))
      }
    }),
    ...trialRoutes(ports)
  ]
}

function trialRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'post', path: '/lint', roles: watchers, bodyBytesMax: templateCharactersMax * 6,
      summary: 'What is wrong with the text of a template, without saving it.',
      body: z.strictObject({ body }),
      response: lintShape,
      run: async ({ body: given }) => lint(ports, given.body)
    }),
    route({
      method: 'post', path: '/plan', roles: watchers,
      summary: 'Dry run: what a template would send, secrets masked, without any network.',
      body: z.strictObject({
        template: z.string().max(200),
        version: z.int().min(1).optional(),
        /** Takes its variables, where it names the template. */
        credential: part.optional(),
        variables: z.record(z.string(), z.union([z.string(), z.number(), z.array(z.string())])).default({})
      }),
      response: planShape,
      run: async ({ body: { template: id, version, credential, variables } }) => {
        const row = await templateOf(ports, id, version)
        const own = credential === undefined ? {} : valuesOf(await credentialOf(ports, credential))
        const template = parseTemplate(row.body, row.version)
        const steps = ports.shelf.plugin(row.plugin).plan(template, { ...own, ...variables })
        return { template: row.id, version: row.version, steps: steps.map(step => ({ ...step })) }
      }
    })
  ]
}

function idOf({ plugin, name }: { plugin: string, name: string }): string {
  return `${plugin}/${name}`
}

function bodyJson(row: TemplateRow): z.output<typeof templateBodyShape> {
  const { variables } = parseTemplate(row.body, row.version)
  return {
    ...templateJson(row), body: row.body,
    variables: Object.entries(variables).map(([name, { description, required, secret, list, ...of }]) =>
      ({ name, description, required, secret, list, default: of.default ?? null }))
  }
}

/** Refuses what lint finds; the name in the text must be the one that it is saved under. */
async function save(ports: ApiPorts, id: string, text: string, author: string): Promise<TemplateRow> {
  const { template } = ports.shelf.admit(text)
  if (template.id !== id) {
    throw new SallyportError('invalid', { problems: [`id: is ${quote(template.id)}, not ${quote(id)}`] })
  }
  const { plugin, action } = template
  return ports.templates.save({ id, plugin, action, body: text, author, shipped: false })
}

function lint(ports: ApiPorts, text: string): z.output<typeof lintShape> {
  const lines = (of: readonly string[]): (number | null)[] => linesOf(text, of).map(line => line ?? null)
  try {
    const { warnings } = ports.shelf.admit(text)
    return { valid: true, problems: [], warnings: [...warnings], lines: lines(warnings) }
  } catch (thrown) {
    const { code, problems } = asSallyportError(thrown)
    if (code !== 'invalid' || problems.length === 0) throw thrown
    return { valid: false, problems: [...problems], warnings: [], lines: lines(problems) }
  }
}

/** What a credential supplies; the engine's own variables are samples. */
function valuesOf({ username, jit }: Credential): Variables {
  return { ...jit?.variables, ...(jit?.type === 'enable-disable' ? { username } : {}) }
}

async function templateOf(ports: ApiPorts, id: string, version?: number): Promise<TemplateRow> {
  const row = await ports.templates.get(id, version)
  if (row !== undefined) return row
  const which = version === undefined ? '' : ` in version ${version}`
  throw new SallyportError('not-found', { detail: `no template ${quote(id)}${which}` })
}

async function credentialOf(ports: ApiPorts, name: string): Promise<Credential> {
  const row = await ports.resources.get('credential', name)
  if (row !== undefined) return row.spec as Credential
  throw new SallyportError('not-found', { detail: `no credential ${quote(name)}` })
}

async function credentialsWith(ports: ApiPorts, template: string): Promise<string[]> {
  const rows = await ports.resources.list('credential')
  return rows.filter(row => Object.values((row.spec as Credential).jit?.actions ?? {})
    .some(chosen => chosen?.template === template)).map(row => row.name)
}
