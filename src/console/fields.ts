// Fields of forms: a label, an input, a hint, and below it what is wrong with what stands there. The value is
// the form's, so that what is shown is what would be sent. Errors are tied to their input, for whoever hears
// the page instead of seeing it.
import { useId } from 'preact/hooks'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { sentence } from './parts.ts'

/** Longest text of a field; the server has its own limits. */
const textCharactersMax = 16_384

export interface FieldProps {
  label: string
  value: string
  set(value: string): void
  hint?: Content
  /** Sentences of the server about this field. */
  wrong?: readonly string[]
  disabled?: boolean
  /** Takes the room of several. */
  wide?: boolean
}

interface TextProps extends FieldProps {
  type?: 'text' | 'password'
  placeholder?: string
  required?: boolean
  /** Rows: then it is a text of several lines. */
  rows?: number
  /** Ids of suggestions, see `Suggestions`. */
  list?: string
}

const valueOf = (event: Event): string => (event.currentTarget as HTMLInputElement).value

export function TextField(props: TextProps): View {
  const { value, set, type = 'text', placeholder, required = false, rows, list, disabled = false } = props
  const id = useId()
  const shared = {
    ...described(id, props), value, placeholder, required, disabled, maxlength: textCharactersMax,
    onInput: (event: Event) => set(valueOf(event))
  }
  return framed(id, props, rows === undefined
    ? html`<input ...${shared} type=${type} list=${list} spellcheck=${false}
        autocomplete=${type === 'password' ? 'new-password' : 'off'} />`
    : html`<textarea ...${shared} rows=${rows} spellcheck=${false}></textarea>`)
}

interface ChoiceProps extends FieldProps {
  choices: readonly string[]
  /** What stands for no choice. */
  none?: string
}

export function ChoiceField(props: ChoiceProps): View {
  const { value, set, choices, none = 'choose …', disabled = false } = props
  const id = useId()
  // What is stored is shown even where nobody could choose it any more.
  const all = value === '' || choices.includes(value) ? choices : [value, ...choices]
  return framed(id, props, html`<select ...${described(id, props)} value=${value} disabled=${disabled}
      onChange=${(event: Event) => set(valueOf(event))}>
    <option value="" selected=${value === ''}>${none}</option>
    ${all.map(choice => html`<option value=${choice} selected=${choice === value}>${choice}</option>`)}
  </select>`)
}

export function SwitchField({ label, hint, wrong = [], value, set, disabled = false }: {
  label: string, value: boolean, set(value: boolean): void, hint?: Content, wrong?: readonly string[],
  disabled?: boolean
}): View {
  const id = useId()
  return html`<div class=${`field switch ${wrong.length > 0 ? 'is-wrong' : ''}`}>
    <label><input type="checkbox" checked=${value} disabled=${disabled} ...${described(id, { hint, wrong })}
      onChange=${(event: Event) => set((event.currentTarget as HTMLInputElement).checked)} />
      ${label}</label>
    ${below(id, { hint, wrong })}</div>`
}

/** Any of a few; the value is those that are chosen, with commas, in the order of the choices. */
export function SeveralField({ label, hint, wrong = [], value, set, choices, disabled = false }:
  FieldProps & { choices: readonly string[] }): View {
  const id = useId()
  const chosen = value.split(',').map(each => each.trim()).filter(each => each !== '')
  const change = (choice: string, on: boolean): void =>
    set([...new Set([...choices, ...chosen])].filter(each => each === choice ? on : chosen.includes(each))
      .join(', '))
  return html`<fieldset class=${`field several ${wrong.length > 0 ? 'is-wrong' : ''}`} disabled=${disabled}
      ...${described(id, { hint, wrong })}>
    <legend>${label}</legend>
    <div class="acts">${choices.map(choice => html`<label class="choice"><input type="checkbox"
      checked=${chosen.includes(choice)} onChange=${(event: Event) =>
        change(choice, (event.currentTarget as HTMLInputElement).checked)} />${choice}</label>`)}</div>
    ${below(id, { hint, wrong })}</fieldset>`
}

function described(
  id: string, { hint, wrong = [] }: Pick<FieldProps, 'hint' | 'wrong'>
): Record<string, string | undefined> {
  const by = [...hint === undefined ? [] : [`${id}-hint`], ...wrong.length === 0 ? [] : [`${id}-wrong`]]
  return {
    id, 'aria-describedby': by.length === 0 ? undefined : by.join(' '),
    'aria-invalid': wrong.length === 0 ? undefined : 'true'
  }
}

function framed(id: string, { label, hint, wrong = [], wide = false }: FieldProps, input: View): View {
  return html`<div class=${`field ${wide ? 'wide' : ''} ${wrong.length > 0 ? 'is-wrong' : ''}`}>
    <label for=${id}>${label}</label>${input}${below(id, { hint, wrong })}</div>`
}

function below(id: string, { hint, wrong = [] }: Pick<FieldProps, 'hint' | 'wrong'>): Content {
  return html`
    ${hint === undefined ? null : html`<p class="quiet" id=${`${id}-hint`}>${hint}</p>`}
    ${wrong.length === 0 ? null : html`<div class="bad" id=${`${id}-wrong`} role="alert">
      ${wrong.map(line => html`<p>${sentence(line)} <code class="tag">invalid</code></p>`)}</div>`}`
}

/** Names that a text field offers while somebody types. */
export function Suggestions({ id, of }: { id: string, of: readonly string[] }): View {
  return html`<datalist id=${id}>${of.map(name => html`<option value=${name} />`)}</datalist>`
}
