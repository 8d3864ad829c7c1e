// The variables of templates in a form: which ones the chosen templates declare, and a field for each; lists
// have one value a line. What is stored and declared by none of them can be taken away.
import { useEffect, useState } from 'preact/hooks'
import { get } from './call.ts'
import type { Declaration } from './credential-draft.ts'
import { TextField } from './fields.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { Wrong } from './wrong.ts'

/** What these templates declare, each name once; undefined until it is known. */
export function useDeclared(templates: readonly string[]): readonly Declaration[] | undefined {
  const [known, setKnown] = useState<Readonly<Record<string, readonly Declaration[]>>>({})
  const wanted = templates.filter(id => /^[\w.-]+\/[\w.-]+$/.test(id))
  useEffect(() => {
    for (const id of wanted.filter(each => known[each] === undefined)) {
      const keep = (variables: readonly Declaration[]): void =>
        setKnown(before => ({ ...before, [id]: variables }))
      // One that cannot be read is refused by the trial, at its field.
      const [plugin = '', name = ''] = id.split('/')
      get('/templates/{plugin}/{name}', { params: { plugin, name } })
        .then(({ variables }) => keep(variables), () => keep([]))
    }
  }, [wanted.join(' ')])
  if (wanted.some(id => known[id] === undefined)) return undefined
  const all = wanted.flatMap(id => known[id] ?? [])
  return [...new Map(all.map(each => [each.name, each])).values()]
}

type Texts = Readonly<Record<string, string>>

/** `at`: their place in the document, in front of each name in what is wrong. */
export function Variables({ at, declared, texts, set, wrong, disabled }: {
  at: string, declared: readonly Declaration[], texts: Texts, set(texts: Texts): void, wrong: Wrong,
  disabled: boolean
}): View {
  const names = new Set(declared.map(({ name }) => name))
  const strays = Object.keys(texts).filter(name => !names.has(name))
  const change = (name: string) => (text: string): void => set({ ...texts, [name]: text })
  const without = (gone: string): void =>
    set(Object.fromEntries(Object.entries(texts).filter(([name]) => name !== gone)))
  if (declared.length + strays.length === 0) return html``
  return html`<h2>Variables of the templates</h2>
    <div class="fields">
      ${declared.map(({ name, description, required, list, default: preset }) => html`<${TextField}
        key=${name} label=${`${name}${required ? ' (required)' : ''}`} value=${texts[name] ?? ''}
        set=${change(name)} disabled=${disabled} wrong=${wrong[`${at}.${name}`]}
        rows=${list ? 2 : undefined} placeholder=${presetOf(preset)}
        hint=${`${description}${list ? ' (one a line)' : ''}`} />`)}
      ${strays.map(name => html`<${TextField} key=${name} label=${name} value=${texts[name]}
        set=${change(name)} disabled=${disabled}
        wrong=${wrong[`${at}.${name}`]} hint=${html`not declared by these templates
          <button type="button" disabled=${disabled} onClick=${() => without(name)}>
            Remove ${name}</button>`} />`)}
    </div>
    ${(wrong[at] ?? []).map(line => html`<p class="bad" role="alert">${line}</p>`)}`
}

function presetOf(preset: unknown): string | undefined {
  if (preset === null || preset === undefined) return undefined
  return Array.isArray(preset) ? preset.join(', ') : String(preset)
}
