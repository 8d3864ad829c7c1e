// The same bash script twice, at the same time: with stock OpenSSH straight to a target, and through the
// proxy. What it printed, what it complained of and how it ended must be the same; only what names the
// connection (login, port, folder) may differ and is taken out. In a script `S …` is ssh, `$C` the file for
// `-F`, `box` the host, `$R` an empty folder in the box, `.` an empty one here, `$P $Q` free ports, `G 20M`
// so many bytes that are always the same (in the box: `gen 20M`), `T` types at a terminal (see below),
// `$SERVICE` the port of a web server.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort } from '../../tool/postgres.ts'
import { channelKinds } from '../../src/policy/types.ts'
import { alicePassword } from './house.ts'
import { standingAccount, startSshHouse } from './ssh-house.ts'
import type { SshHouse, SshHouseOptions } from './ssh-house.ts'

export interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

export interface Behaviour {
  name: string
  /** Bash. */
  script: string
  /** What its standard output must show without the proxy: or the comparison compares nothing. */
  shows: RegExp
  /** A documented difference: why, and what the proxy's output must show instead. */
  differs?: { why: string, shows: RegExp }
}

export interface Mirror {
  house: SshHouse
  /** Files of both sides: `direct` and `proxy` for `-F`. */
  folder: string
  play(
    side: Side, behaviour: Pick<Behaviour, 'script'>, environment: Record<string, string>
  ): Promise<Outcome>
  end(): Promise<void>
}

export type Side = 'direct' | 'proxy'

const scriptLimitMs = 60_000
const foldersMax = 120

// Types at a terminal of its own: `T 80x24 see:REGEX send:TEXT size:100x40 … -- COMMAND`; says what it saw
// and how the command ended. Everything has a limit.
const typist = String.raw`
import fcntl, os, pty, re, select, struct, sys, termios, time
cut = sys.argv.index('--')
steps, command = sys.argv[1:cut], sys.argv[cut + 1:]
def size(fd, text):
    columns, rows = map(int, text.split('x'))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.1)
    os.execvp(command[0], command)
size(fd, steps.pop(0))
text, end = b'', time.time() + 40
def read(seconds):
    global text
    if not select.select([fd], [], [], seconds)[0]: return True
    try: got = os.read(fd, 65536)
    except OSError: got = b''
    text += got
    return got != b''
for step in steps:
    verb, what = step.split(':', 1)
    if verb == 'send': os.write(fd, what.encode().decode('unicode_escape').encode('latin1'))
    elif verb == 'size': size(fd, what)
    else:
        while True:
            found = re.search(what.encode(), text)
            if found: break
            if time.time() > end or not read(1): break
        print(what, '->', found.group(0).decode() if found else 'not seen in %r' % text)
        text = text[found.end():] if found else text
while time.time() < end and read(1): pass
if time.time() >= end: os.kill(pid, 9)
print('rest', repr(text.decode('latin1')))
print('exit', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

const prelude = `
S() { ssh -F "$C" box "$@"; }
G() { openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c "$1"; }
T() { /usr/bin/python3 "$TYPIST" "$@"; }
`

const prepare = `
cat > /usr/local/bin/gen <<'END'
#!/bin/sh
openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c "$1"
END
chmod 755 /usr/local/bin/gen
for side in direct proxy; do mkdir -p $(seq -f "/tmp/mirror/$side/%g" 1 ${foldersMax}); done
chmod -R 777 /tmp/mirror
`

export async function startMirror(options: SshHouseOptions = {}): Promise<Mirror> {
  const house = await startSshHouse({
    channels: channelKinds, ...options,
    box: { ...options.box, prepare: `${prepare}\n${options.box?.prepare ?? ''}` }
  })
  await house.box.run(`echo '${standingAccount}:${alicePassword}' | chpasswd`)
  const service = await webService()
  const folder = join(house.home, 'mirror')
  mkdirSync(folder)
  writeFileSync(join(folder, 'typist.py'), typist)
  const ports = { direct: house.box.port, proxy: house.sshPort }
  const keys = { direct: 'deploy', proxy: 'id' }
  const users = { direct: standingAccount, proxy: `alice+${standingAccount}` }
  for (const side of ['direct', 'proxy'] as const) {
    writeFileSync(join(folder, side), `Host box
  HostName 127.0.0.1
  Port ${ports[side]}
  User ${users[side]}
  IdentityFile ${join(house.home, keys[side])}
  IdentitiesOnly yes
  UserKnownHostsFile ${join(house.home, 'known_hosts')}
  StrictHostKeyChecking yes
  BatchMode yes
`)
  }
  const counts = { direct: 0, proxy: 0 }
  return {
    house, folder,
    async play(side, { script }, environment) {
      const count = ++counts[side]
      const here = join(folder, `${side}-${count}`)
      const there = `/tmp/mirror/${side}/${count}`
      mkdirSync(here)
      const [first, second] = [await freePort(), await freePort()]
      const outcome = await bash(script, here, {
        C: join(folder, side), R: there, P: String(first), Q: String(second),
        TYPIST: join(folder, 'typist.py'), PASSWORD: alicePassword, LANG: 'C.UTF-8', TERM: 'xterm',
        SERVICE: String((service.address() as AddressInfo).port), ...environment
      })
      const plain = (text: string): string => text
        .replaceAll(here, 'HERE').replaceAll(there, 'THERE').replaceAll(String(first), 'FIRST')
        .replaceAll(String(second), 'SECOND').replaceAll(String(ports[side]), 'PORT')
        .replaceAll(`${users[side]}@`, 'LOGIN@')
      return { status: outcome.status, stdout: plain(outcome.stdout), stderr: plain(outcome.stderr) }
    },
    async end() {
      const { exitCode, signalCode } = house.process
      service.close()
      service.closeAllConnections()
      await house.end()
      const log = house.log()
      if (exitCode !== null || signalCode !== null) {
        throw new Error(`the proxy was gone (${exitCode ?? signalCode}):\n${log}`)
      }
      if (/"code":"internal"|a defect/.test(log)) throw new Error(`the proxy logged a defect:\n${log}`)
    }
  }
}

/** One test for each behaviour; MIRROR_ONLY=REGEX takes some, MIRROR_SHOW=1 shows what comes out. */
export function mirror(
  behaviours: readonly Behaviour[], of: () => Mirror, environment: Record<string, string> = {}
): void {
  const only = process.env['MIRROR_ONLY']
  for (const behaviour of behaviours) {
    if (only !== undefined && !new RegExp(only).test(behaviour.name)) continue
    test(behaviour.name, async () => {
      const [direct, proxy] = await Promise.all([
        of().play('direct', behaviour, environment), of().play('proxy', behaviour, environment)
      ])
      if (process.env['MIRROR_SHOW']) console.log(behaviour.name, performance.now(), JSON.stringify(direct))
      assert.match(direct.stdout, behaviour.shows, `without the proxy: ${JSON.stringify(direct)}`)
      if (behaviour.differs === undefined) assert.equal(proxy, direct)
      else assert.match(proxy.stdout, behaviour.differs.shows, JSON.stringify(proxy))
    })
  }
}

export async function bash(
  script: string, folder: string, environment: Record<string, string>
): Promise<Outcome> {
  const { PATH, HOME } = process.env
  const child = spawn('/bin/bash', ['--norc', '-c', `${prelude}\n${script}`], {
    cwd: folder, env: { PATH, HOME, ...environment }, detached: true, stdio: ['ignore', 'pipe', 'pipe']
  })
  const chunks: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] }
  child.stdout.on('data', (chunk: Buffer) => chunks.stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => chunks.stderr.push(chunk))
  let late = ''
  const limit = setTimeout(() => {
    late = `still running after ${scriptLimitMs} ms`
    killGroup(child.pid)
  }, scriptLimitMs)
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  clearTimeout(limit)
  killGroup(child.pid)
  const text = (name: 'stdout' | 'stderr'): string => Buffer.concat(chunks[name]).toString('latin1')
  return { status, stdout: text('stdout') + late, stderr: text('stderr') }
}

/** What a script left behind: masters, agents. */
function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch { /* nothing is left */ }
}

async function webService(): Promise<Server> {
  const server = createServer((request, response) => {
    response.end(`service ${request.url} ${'.'.repeat(2000)} end\n`)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return server
}

/** The audit's entries of a kind, newest last. */
export async function audited<T>(house: SshHouse, kind: string): Promise<T[]> {
  const all = await house.json<(T & { kind: string })[]>('audit', 'list')
  return all.filter(entry => entry.kind === kind)
}

export function boxLog({ box }: SshHouse): string {
  return readFileSync(box.logFile, 'utf8')
}
