// The listener as a well-known scanner sees it (R29): nothing fails, and what is warned of has its reason
// here. Debian's ssh-audit is older than the strict key exchange, so it does not know its mark.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { programOf } from '../tool/services.ts'
import { ran } from './peers/house.ts'
import { sshWorld } from './peers/ssh-world.ts'

const reasons: Readonly<Record<string, string>> = {
  'kex-strict-s-v00@openssh.com': 'the mark of the strict exchange, which answers the Terrapin attack',
  'mlkem768x25519-sha256': 'newer than this scanner: X25519 and ML-KEM together',
  'hmac-sha2-256': 'clients with counter mode and without the better order; the strict exchange covers it',
  'hmac-sha2-512': 'the same'
}

test('ssh-audit finds nothing that fails, and warns of nothing without a reason', async () => {
  await using house = await sshWorld()
  const words = ['-n', '-l', 'warn', '-p', String(house.front.port), '127.0.0.1']
  const { stdout } = await ran(programOf('ssh-audit'), words)
  assert.match(stdout, /kex-strict-s-v00/, 'it saw our algorithms')
  assert.not.match(stdout, /\[fail\]/)
  const warned = stdout.split('\n').filter(line => line.includes('[warn]')).map(line => line.split(/\s+/)[1]!)
  assert.equal(warned.filter(name => !Object.hasOwn(reasons, name)), [])
})

test('a scanner is no attacker: it is still let in afterwards', async () => {
  await using house = await sshWorld()
  await ran(programOf('ssh-audit'), ['-n', '-p', String(house.front.port), '127.0.0.1'])
  assert.equal([...new Set(house.front.endings.map(({ reason }) => reason))], ['client-closed'])
})

test.run()
