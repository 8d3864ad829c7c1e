// What every page is made of: loading with its failure, times, states, tables, facts, and buttons that ask
// once more before something ends.
import { useEffect, useState } from 'preact/hooks'
import { Refusal, post } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'

export interface Loaded<T> {
  value: T | undefined
  failure: unknown
  /** Loads once more; what is shown stays until the new is there. */
  again(): void
}

/** Loads when the page comes, whenever one of `keys` changes, and each `everyMs` where that is given. */
export function useLoad<T>(
  load: (signal: AbortSignal) => Promise<T>, keys: readonly unknown[] = [], everyMs?: number
): Loaded<T> {
  const [state, setState] = useState<{ value?: T, failure?: unknown }>({})
  const [round, setRound] = useState(0)
  useEffect(() => {
    const stop = new AbortController()
    load(stop.signal).then(
      value => { if (!stop.signal.aborted) setState({ value }) },
      (failure: unknown) => { if (!stop.signal.aborted) setState(before => ({ ...before, failure })) })
    const timer = everyMs === undefined ? undefined
      : setTimeout(() => setRound(before => before + 1), everyMs)
    return () => {
      clearTimeout(timer)
      stop.abort()
    }
  }, [...keys, round])
  return { value: state.value, failure: state.failure, again: () => setRound(before => before + 1) }
}

/** What was loaded, in its view; else why not, else that it comes. */
export function show<T>({ value, failure }: Loaded<T>, view: (value: T) => Content): View {
  return html`
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${value === undefined
      ? failure === undefined ? html`<p class="quiet" role="status">Loading …</p>` : null
      : view(value)}`
}

/** An error as its sentence, with code and reference; for those who may see it, what to look at next. */
export function Problem({ failure }: { failure: unknown }): View {
  const { message, code, reference, problems, detail, hint } = failure instanceof Refusal
    ? failure
    : new Refusal({ code: 'console', message: failure instanceof Error ? failure.message : String(failure) })
  return html`<div class="problem" role="alert">
    <p><strong>${sentence(message)}</strong>
      <code class="tag">${code}${reference === undefined ? '' : ` ${reference}`}</code></p>
    ${problems.length === 0 ? null : html`<ul>${problems.map(line => html`<li>${line}</li>`)}</ul>`}
    ${detail === undefined ? null : html`<p>${detail}</p>`}
    ${hint === undefined ? null : html`<p class="quiet">${sentence(hint)}</p>`}
    ${code === 'fresh-login-required' ? html`<${LogInAgain} />` : null}
    ${code === 'auth-required' ? html`<p><a href="">Log in</a></p>` : null}
  </div>`
}

/** Ends this login and comes back to this page. */
function LogInAgain(): View {
  return html`<p><button type="button" onClick=${() =>
    post('/browser/logout').finally(() => location.reload())}>Log in again</button></p>`
}

export function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`
}

/** An instant, absolute, in UTC, as the records have it. */
export function When({ at }: { at: string | null }): View {
  if (at === null) return html`<span class="quiet">–</span>`
  const shown = at.replace('T', ' ').replace(/(\.\d+)?Z$/, '')
  return html`<time datetime=${at}>${shown}<span class="quiet"> UTC</span></time>`
}

/** `1 h 02 min`, `2 min 03 s`, `45 ms`. */
export function lengthOf(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`
  const seconds = Math.round(ms / 1000)
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, '0')} min`
  return minutes > 0 ? `${minutes} min ${String(rest).padStart(2, '0')} s` : `${rest} s`
}

/** `1 row`, `3 rows`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** Moment of a recording: `+1:02:03.4`. */
export function momentOf(ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  const seconds = (ms % 60_000 / 1000).toFixed(1).padStart(4, '0')
  return minutes < 60
    ? `+${minutes}:${seconds}`
    : `+${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${seconds}`
}

const good = new Set([
  'live', 'active', 'proved-gone', 'valid', 'sealed', 'ok', 'on', 'allowed', 'approved', 'closed', 'done',
  'current'
])
const bad = new Set([
  'refused', 'interrupted', 'failed', 'stuck', 'quarantined', 'unreachable', 'broken', 'missing', 'revoking',
  'denied', 'open', 'half-open', 'orphan', 'conflict', 'emergency', 'unknown'
])

/** A state: the word says it, the colour only helps. */
export function State({ of }: { of: string }): View {
  return html`<span class=${`state ${good.has(of) ? 'good' : bad.has(of) ? 'bad' : ''}`}>${of}</span>`
}

/** Names and values, one below the other on small screens. */
export function Facts({ of }: { of: readonly (readonly [name: string, value: Content])[] }): View {
  return html`<dl class="facts">${of.filter(([, value]) => value !== undefined).map(([name, value]) => html`
    <div><dt>${name}</dt><dd>${value ?? html`<span class="quiet">–</span>`}</dd></div>`)}
  </dl>`
}

/** A table that becomes a list of cards where it does not fit; `label` says what it is a table of. */
export function Table({ label, heads, rows, none }: {
  label: string, heads: readonly string[], rows: readonly (readonly Content[])[], none: string
}): View {
  if (rows.length === 0) return html`<p class="quiet">${none}</p>`
  return html`<table aria-label=${label}>
    <thead><tr>${heads.map(head => html`<th scope="col">${head}</th>`)}</tr></thead>
    <tbody>${rows.map(cells => html`<tr>${cells.map((cell, index) => html`
      <td data-head=${heads[index]} class=${isNothing(cell) ? 'none' : undefined}><div>${cell}</div></td>`)}
    </tr>`)}</tbody>
  </table>`
}

function isNothing(cell: Content): boolean {
  return cell === null || cell === undefined || cell === ''
}

/** Asks once more, then acts; what went wrong stays to be read. */
export function Act({ label, sure, act }: { label: string, sure: string, act(): Promise<void> }): View {
  const [step, setStep] = useState<'idle' | 'asked' | 'busy'>('idle')
  const [failure, setFailure] = useState<unknown>()
  const go = async (): Promise<void> => {
    setStep('busy')
    setFailure(undefined)
    await act().catch(setFailure)
    setStep('idle')
  }
  return html`<span class="act">
    ${step === 'idle'
      ? html`<button type="button" class="danger" onClick=${() => setStep('asked')}>${label}</button>`
      : html`<button type="button" class="danger" disabled=${step === 'busy'} onClick=${go}>${sure}</button>
        <button type="button" disabled=${step === 'busy'} onClick=${() => setStep('idle')}>No</button>`}
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
  </span>`
}

export interface Field {
  name: string
  label: string
  type?: 'text' | 'search' | 'datetime-local'
  choices?: readonly string[]
  /** Takes the room of several. */
  wide?: boolean
}

/** From here on filters are open by themselves. */
const wide = '(min-width: 60rem)'

/** A form that is sent as the page's own query: every view has an address that can be kept. */
export function Filters({ fields, values, label, button = 'Show' }: {
  fields: readonly Field[], values: URLSearchParams, label: string, button?: string
}): View {
  const open = fields.some(({ name }) => (values.get(name) ?? '') !== '') || matchMedia(wide).matches
  return html`<details class="filtering" open=${open}><summary>${label}</summary>
  <form class="filters" method="get" aria-label=${label}>
    ${fields.map(({ name, label: text, type = 'text', choices, wide: roomy = false }) => html`
    <label class=${roomy ? 'wide' : undefined}>${text}
      ${choices === undefined
        ? html`<input name=${name} type=${type} defaultValue=${values.get(name) ?? ''} maxlength="256"
            step=${type === 'datetime-local' ? '1' : undefined} />`
        : html`<select name=${name}><option value="">any</option>${choices.map(choice => html`
            <option value=${choice} selected=${values.get(name) === choice}>${choice}</option>`)}</select>`}
    </label>`)}
    <button>${button}</button>
  </form></details>`
}

/** What a filter says, where it is one of its choices. */
export function chosen<T extends string>(
  values: URLSearchParams, name: string, choices: readonly T[]
): T | undefined {
  return choices.find(choice => choice === values.get(name))
}

/** Rows of a list on one page. */
export const rowsPerPage = 100

/** To what follows the last row of a full page: the same view with its filters, from there on. */
export function More({ label, rows, values, by, last }: {
  label: string, rows: number, values: URLSearchParams, by: 'after' | 'before', last: string | undefined
}): View {
  if (rows < rowsPerPage || last === undefined) return html``
  const next = new URLSearchParams(values)
  next.set(by, last)
  return html`<p><a href=${`?${next}`}>${label}</a></p>`
}

/** What a field `datetime-local` holds, which is meant in UTC. */
export function instantOf(value: string | null): string | undefined {
  if (value === null || value === '') return undefined
  return `${value.length === 16 ? `${value}:00` : value}Z`
}
