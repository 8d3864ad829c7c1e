// A whole plugin in fifty lines, to copy from: its target is a file, an account is a line `name:key:account
// id` in it. It cannot fence (two nodes could write at once), so the runner looks before and after. It is not
// in shipped.ts; its test runs it.
import { randomBytes } from 'node:crypto'
import { access as reach, readFile, rename, writeFile } from 'node:fs/promises'
import { SallyportError } from '../src/errors.ts'
import type { Access, AccountRef, Plugin, Verified } from '../src/jit/plugin.ts'
import { renderStep } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'

async function read({ target }: Access): Promise<string[][]> {
  const text = await readFile(target.host, 'utf8').catch((cause: unknown) => {
    throw new SallyportError('target-unreachable', { detail: target.host, cause })
  })
  return text.split('\n').filter(line => line !== '').map(line => line.split(':'))
}

async function verify(access: Access, account: AccountRef): Promise<Verified> {
  const line = (await read(access)).find(([name]) => name === account.name)
  const exists = line !== undefined
  return { exists, enabled: exists, ours: line?.[2] === account.accountId, sessions: 0, residue: [] }
}

function isVerb(word: string | undefined): boolean {
  return word === 'put' || word === 'drop'
}

export const example: Plugin = {
  id: 'example', apiVersion: 1, canEnableItself: false, fences: false,
  actions: new Set(['create', 'delete'] as const),
  variables: { username: 'name of the account', key: 'what the account logs in with (secret)' },
  lint: template => template.steps.filter(step => !isVerb(step.do)).map(step => `${step.name}: put or drop`),
  plan: template => template.steps.map(step => ({ name: step.name, text: JSON.stringify(step.with) })),
  mint: () => {
    const key = new Secret(randomBytes(16).toString('hex'))
    return { inject: { kind: 'password', password: key }, variables: { key } }
  },
  knock: target => reach(target.host).then(() => true, () => false),
  probe: async access => ({ version: `${(await read(access)).length}`, missingRights: [], warnings: [] }),
  run: async (access, template, account, variables) => {
    let lines = await read(access)
    for (const step of template.steps) {
      lines = lines.filter(([name]) => name !== account.name)
      const { key = '' } = renderStep(template, step, variables).with
      if (step.do === 'put') lines.push([account.name, key, account.accountId])
    }
    await writeFile(`${access.target.host}.new`, lines.map(line => `${line.join(':')}\n`).join(''))
    await rename(`${access.target.host}.new`, access.target.host)
    return { state: 'done', changed: true, residue: [] }
  },
  verify,
  listOwned: async access => (await read(access)).map(([name = '', , accountId]) => ({ name, accountId }))
}
