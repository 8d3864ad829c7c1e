// The try-out of a credential's JIT settings: `plan` says what would be sent, with secrets masked and nothing
// sent; `prove` does both actions on the target with an account of its own and shows each step when it is
// over. What was proved is what is stored.
import { useState } from 'preact/hooks'
import type { ProofJson } from '../api/client-types.ts'
import { Refusal, lines, post } from './call.ts'
import { actionsOf, variablesOf } from './credential-draft.ts'
import type { Declaration, Draft } from './credential-draft.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, State, lengthOf, show, useLoad } from './parts.ts'

export function TryOut(props: { draft: Draft, declared: readonly Declaration[], admin: boolean }): View {
  const { draft, admin } = props
  if (!draft.enabled) return html`<p>JIT is disabled: there is nothing to run.</p>`
  return html`
    <h2>Prove</h2>
    ${admin ? html`<${Prove} credential=${draft.name} shared=${draft.type === 'enable-disable'} />`
      : html`<p class="quiet">Only admins run something on a target.</p>`}
    <h2>Plan</h2>
    <p class="quiet">What would be sent, with samples for what is only known then. Nothing is sent.</p>
    <${Plan} ...${props} />`
}

function Plan({ draft, declared }: { draft: Draft, declared: readonly Declaration[] }): View {
  const variables = variablesOf(draft, declared)
  const own = draft.type === 'enable-disable' ? { username: draft.username } : {}
  const loaded = useLoad(async () => Promise.all(actionsOf[draft.type].map(action => post('/plan', {
    body: { template: draft.choices[action].template, variables: { ...variables, ...own } }
  }))), [JSON.stringify(variables)])
  return show(loaded, plans => html`${plans.map(({ template, version, steps }) => html`
    <section class="plan" aria-label=${template}>
      <h3><a href=${`/console/templates/${template}`}>${template}</a>
        <span class="quiet"> version ${version}</span></h3>
      <ol>${steps.map(({ name, text }) => html`<li><span>${name}</span>
        <pre><code>${text}</code></pre></li>`)}</ol>
    </section>`)}`)
}

type Step = ProofJson['steps'][0]

function Prove({ credential, shared }: { credential: string, shared: boolean }): View {
  const [steps, setSteps] = useState<readonly Step[]>([])
  const [state, setState] = useState<'idle' | 'asked' | 'running' | 'passed' | 'failed'>('idle')
  const [failure, setFailure] = useState<unknown>()
  const run = async (): Promise<void> => {
    setSteps([])
    setFailure(undefined)
    setState('running')
    try {
      const stop = new AbortController()
      for await (const line of lines('/prove/steps', {
        body: { credential }, signal: stop.signal
      })) {
        if (line.kind === 'step') setSteps(before => [...before, line])
        else if (line.kind === 'failed') throw new Refusal(line.error)
        else setState(line.passed ? 'passed' : 'failed')
      }
      setState(before => before === 'running' ? 'failed' : before)
    } catch (thrown) {
      setFailure(thrown)
      setState('failed')
    }
  }
  const account = shared ? 'switches the account on and off' : 'makes an account of its own and removes it'
  return html`<p>Runs on the target itself: ${account}, and looks whether anything remains.</p>
    <p class="acts">${state === 'asked'
      ? html`<button type="button" class="main" onClick=${run}>Run it on the target</button>
        <button type="button" onClick=${() => setState('idle')}>No</button>`
      : html`<button type="button" disabled=${state === 'running'} onClick=${() => setState('asked')}>
        Prove</button>`}</p>
    ${steps.length === 0 ? null : html`<ol class="lane" aria-label="Steps">${steps.map(stepView)}</ol>`}
    <p role="status" aria-label="Proof">${state === 'running' ? html`<span class="quiet">Running …</span>`
      : state === 'passed' ? html`<${State} of="ok" /> Proved: nothing remained.`
        : state === 'failed' && failure === undefined ? html`<${State} of="failed" /> Not proved.` : null}</p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}

function stepView({ name, passed, detail, milliseconds }: Step): Content {
  return html`<li><span><${State} of=${passed ? 'ok' : 'failed'} /></span>
    <div><p>${name} <span class="quiet">${lengthOf(milliseconds)}</span></p>
      ${detail === '' ? null : html`<p class=${passed ? 'quiet' : 'bad'}>${detail}</p>`}</div></li>`
}
