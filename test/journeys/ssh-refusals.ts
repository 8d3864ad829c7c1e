// deadline: 300 s
// D5: what a grant does not allow is refused over SSH, in words that stock clients show; each refusal is in
// the audit, the rest of the connection goes on, and nothing was dialled for it (R17).
import { createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { audited, startMirror } from '../peers/ssh-mirror.ts'
import type { Mirror } from '../peers/ssh-mirror.ts'

let both: Mirror
let trap: Server
let trapped = 0

const credential = (name: string): string => `---
kind: credential
name: ${name}
target: web01
username: deploy
privateKey: { env: DEPLOY_KEY }
---
kind: grant
name: alice-${name}
users: [alice]
credentials: [${name}]
`

test.before(async () => {
  trap = createServer(socket => {
    trapped++
    socket.destroy()
  })
  await new Promise<void>(resolve => trap.listen(0, '127.0.0.1', resolve))
  both = await startMirror({
    channels: undefined,
    access: `${credential('files')}channels: [sftp, download]
${credential('commands')}channels: [exec]
${credential('nothing')}channels: []
`
  })
})
test.after(async () => {
  trap.close()
  await both.end()
})

interface Refusal {
  detail: { what: string, right: string | null }
}

interface Case {
  name: string
  credential?: string
  script: string
  shows: RegExp
  /** `what` of the refusals that the audit must have gained. */
  audit: readonly string[]
}

const away = [
  '10.0.0.1:22', '169.254.169.254:80', 'localhost:5432', '[::1]:80', '192.168.1.1:443', '0.0.0.0:1',
  'metadata.internal:80', '127.0.0.1:2222', '255.255.255.255:9'
]

const cases: Case[] = [
  {
    name: 'without local-forward: -L, and nothing is dialled',
    script: 'S -E log -fN -M -S ctl -L $P:127.0.0.1:$TRAP; curl -sS localhost:$P 2>&1; echo "is $?"; '
      + 'grep -o "open failed: .*" log',
    shows: /is (52|56)\nopen failed: administratively prohibited: direct-tcpip: the grant does not allow it/,
    audit: ['direct-tcpip']
  },
  {
    name: 'without local-forward: ten destinations with -W',
    script: 'for to in $AWAY 127.0.0.1:$TRAP; do S -W $to < /dev/null 2>&1 | head -n 1; done | '
      + 'sort | uniq -c',
    shows: /^ *10 channel 0: open failed: administratively prohibited: direct-tcpip: the grant does not/,
    audit: Array(10).fill('direct-tcpip') as string[]
  },
  {
    name: 'without local-forward: a socket file of the target',
    script: 'S -E log -fN -M -S ctl -L $P:/run/docker.sock; curl -sS localhost:$P 2>/dev/null; '
      + 'grep -o "open failed: .*" log',
    shows: /administratively prohibited: direct-streamlocal@openssh.com: the grant does not allow it/,
    audit: ['direct-streamlocal@openssh.com']
  },
  {
    name: 'without local-forward: requests through -D',
    script: 'S -fN -M -S ctl -D $P 2> /dev/null; curl -sS --socks5 localhost:$P http://127.0.0.1:$TRAP 2>&1; '
      + 'echo "is $?"',
    shows: /is (97|7|52|56)\n$/,
    audit: ['direct-tcpip']
  },
  {
    name: 'without remote-forward: -R, and the command goes on',
    script: 'S -R $P:127.0.0.1:$TRAP "echo on" 2>&1; '
      + 'S -o ExitOnForwardFailure=yes -R $P:127.0.0.1:$TRAP true 2>&1; '
      + 'echo "is $?"; S -R $R/s:127.0.0.1:$TRAP "test -e $R/s; echo \\$?" 2>&1',
    shows: /remote port forwarding failed for listen port FIRST\s+on\n.*failed.*\s+is 255\n.*\s1\n$/s,
    audit: ['tcpip-forward', 'tcpip-forward', 'streamlocal-forward@openssh.com']
  },
  {
    name: 'without agent: no agent inside, and the command goes on',
    script: 'eval $(ssh-agent) > /dev/null; S -A "ssh-add -l 2>&1; echo \\"agent [\\$SSH_AUTH_SOCK]\\"" 2>&1',
    shows: /Could not open a connection to your authentication agent.\nagent \[\]\n$/,
    audit: ['auth-agent-req@openssh.com']
  },
  {
    name: 'without x11: no display, and the command goes on',
    script: 'export DISPLAY=127.0.0.1:9 XAUTHORITY=$PWD/a; xauth -q add $DISPLAY . 00112233 2>/dev/null; '
      + 'S -Y "echo \\"display [\\$DISPLAY]\\"" 2>&1',
    shows: /X11 forwarding request failed on channel 0\s+display \[\]\n$/,
    audit: ['x11-req']
  },
  {
    name: 'sftp and download: no shell, no command, no upload by scp -O; sftp works',
    credential: 'files',
    script: 'S true 2>&1; echo "is $?"; S -tt < /dev/null 2>&1; echo "is $?"; echo x > x; '
      + 'scp -O -q -F $C x box:$R/x 2>&1; echo "is $?"; printf "cd $R\npwd\n" | '
      + 'sftp -q -F $C -b - box 2>&1 | tail -n 1',
    shows: /^exec request fail.*is 255\nshell request fail.*is 255\nlost connection\nis 1\n.* THERE\n$/s,
    audit: ['exec', 'shell', 'exec']
  },
  {
    name: 'sftp and download: scp -O down works',
    credential: 'files',
    script: 'scp -O -q -F $C box:/etc/hostname here; echo "is $?"; test -s here && echo got',
    shows: /^is 0\ngot\n$/,
    audit: []
  },
  {
    name: 'exec: no shell, no sftp, and commands work',
    credential: 'commands',
    script: 'S -T < /dev/null 2>&1; echo "is $?"; echo x > x; scp -q -F $C x box:$R/x 2>&1; '
      + 'echo "is $?"; S "echo works"',
    shows: /^shell request failed on channel 0\s+is 255\nscp: Connection closed\s+is 255\nworks\n$/,
    audit: ['shell', 'subsystem']
  }
]

for (const { name, credential: opened = 'deploy', script, shows, audit } of cases) {
  test(name, async () => {
    const before = (await audited<Refusal>(both.house, 'channel.refused')).length
    const environment = { TRAP: String((trap.address() as AddressInfo).port), AWAY: away.join(' ') }
    const as = `sed "s/alice+deploy/alice+${opened}/" $C > config; C=$PWD/config\n`
    const { stdout, stderr } = await both.play('proxy', { script: as + script }, environment)
    assert.match(stdout, shows, JSON.stringify([stdout, stderr]))
    assert.is(trapped, 0)
    const refusals = (await audited<Refusal>(both.house, 'channel.refused')).map(each => each.detail.what)
    // Newest first.
    assert.equal(refusals.slice(0, refusals.length - before).sort(), [...audit].sort())
  })
}

test('nothing at all may be granted: the login works, and every channel is refused', async () => {
  const script = 'sed "s/alice+deploy/alice+nothing/" $C > config; C=$PWD/config\n'
    + 'for words in true -T "-s sftp"; do S $words < /dev/null 2>&1; echo "is $?"; done'
  const { stdout } = await both.play('proxy', { script }, {})
  assert.is(stdout.match(/is 255/g)?.length, 3, stdout)
})

test.run()
