// A Linux to log in to, for tests: a namespace of its own with sshd, cron and atd, whose files are this
// machine's under a layer in memory. Accounts that are made there, and whatever they leave, vanish with it;
// the machine's own /etc/passwd is never written. Its first process holds a pipe to us: when we end, however
// we end (kill -9 too), it ends, and the kernel kills everything in the namespace with it. Needs root.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { freePort } from './postgres.ts'
import { programOf } from './services.ts'

export interface LinuxBoxOptions {
  /** Default: a free one below 32768. */
  port?: number
  /**
   * Lines of sshd_config, read before ours: sshd takes the first that it finds of each keyword. E.g.
   * `TrustedUserCAKeys /etc/ssh/ca.pub`.
   */
  sshd?: readonly string[]
  /** A root shell script that runs before sshd starts. */
  prepare?: string
}

export interface Ran {
  status: number
  stdout: string
  stderr: string
}

export interface LinuxBox extends AsyncDisposable {
  readonly host: '127.0.0.1'
  readonly port: number
  /** `ssh-ed25519 AAAA…` */
  readonly hostKey: string
  /** Root, who logs in with a key: the account that hooks use. */
  readonly admin: { username: 'root', privateKey: string }
  /** Its first process, as this machine counts. */
  readonly pid: number
  /** What sshd and the others wrote. */
  readonly logFile: string
  /** Runs a script of bash in the box as root; its output without the last newline. @throws when it fails */
  run(script: string, input?: string): Promise<string>
  /** The same, and whatever comes of it. */
  attempt(script: string, input?: string): Promise<Ran>
  /** Makes an ordinary account that this public key opens. */
  addUser(name: string, publicKey: string): Promise<void>
  /** Ends everything in it. Idempotent. */
  stop(): Promise<void>
}

/** Where the keys of our accounts lie; `sallyport` itself asks for this line on a target. */
const authorizedKeysLine = 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/jit_keys/%u'
// A start takes a second; a loaded machine gets much more before we call it a failure.
const startLimitMs = 30_000
const startPollMs = 20
const stopLimitMs = 10_000
const commandLimitMs = 60_000
const outputGraceMs = 300

// In the new namespaces, still with the machine's files. What is not part of a small server (people's homes,
// work folders, manuals) is hidden behind white-outs: a search of the box's disks is then as short as there.
const outerScript = `
  set -eu
  read -r pid _ < /proc/self/stat
  echo "pid $pid"
  mount -t tmpfs -o mode=755 box "$1"
  cd "$1"
  mkdir upper work root
  for place in /*; do
    case \${place#/} in
      bin|dev|etc|lib*|proc|run|sbin|sys|tmp|usr|var) ;;
      *) mknod "upper$place" c 0 0 ;;
    esac
  done
  umask 022
  mkdir -p upper/usr/share upper/usr/lib
  for place in usr/include usr/src usr/share/man usr/share/doc usr/share/icons usr/share/locale \\
    usr/lib/google-cloud-sdk usr/lib/jvm usr/lib/node_modules; do
    [ ! -d "/$place" ] || mknod "upper/$place" c 0 0
  done
  mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay root
  cd root
  mkdir home mnt opt srv
  mkdir -m 700 root root/.ssh
  mount -t proc proc proc
  mount --rbind /dev dev
  mount -t tmpfs -o mode=755 run run
  for place in tmp var/tmp dev/shm; do mount -t tmpfs -o mode=1777 tmp $place; done
  exec chroot . /bin/bash -c "$2"
`

// As the first process of the box. Bash, since it reaps the orphans that end up with it.
const innerScript = `
  set -eu
  mkdir -p /run/sshd /run/lock
  rm -rf /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/* /etc/ssh/jit_keys
  ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
  printf '%s\\n' "$BOX_SSHD" > /etc/ssh/sshd_config
  printf '%s\\n' "$BOX_KEY" > /root/.ssh/authorized_keys
  bash -euc "$BOX_PREPARE" >&2
  unset BOX_SSHD BOX_KEY BOX_PREPARE
  cron >&2
  atd >&2
  /usr/sbin/sshd -D -e < /dev/null >&2 &
  echo "key $(cat /etc/ssh/ssh_host_ed25519_key.pub)"
  while read -r _; do :; done
`

/** Starts a box. About a second. @throws when we are not root, or a Debian package is missing */
export async function startLinuxBox(options: LinuxBoxOptions = {}): Promise<LinuxBox> {
  if (process.getuid?.() !== 0) {
    throw new Error('a Linux box is a set of namespaces with mounts of its own: only root can make one')
  }
  for (const need of ['sshd', 'ssh-keygen', 'cron', 'atd', 'getfacl', 'sudo'] as const) programOf(need)
  const port = options.port ?? await freePort()
  const base = mkdtempSync(join(tmpdir(), 'sallyport-box-'))
  mkdirSync(join(base, 'box'))
  const key = generateSshKey()
  const logFile = join(base, 'log')
  const log = openSync(logFile, 'a')
  const shell = spawn(programOf('unshare'), [
    '-m', '-p', '-f', '-u', '-i', '--kill-child=KILL',
    '/bin/bash', '-c', outerScript, 'box', join(base, 'box'), innerScript
  ], {
    cwd: '/', detached: true, stdio: ['pipe', 'pipe', log],
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', HOME: '/root', BOX_KEY: key.publicKey,
      BOX_SSHD: sshdConfiguration(port, options.sshd ?? []), BOX_PREPARE: options.prepare ?? ''
    }
  })
  closeSync(log)
  const stop = async (): Promise<void> => {
    await end(shell)
    rmSync(base, { recursive: true, force: true })
  }
  try {
    const { pid, hostKey } = await ready(shell, port, logFile)
    // A box that nobody stops must not keep its user alive: it ends with us.
    for (const handle of [shell, shell.stdin as Socket, shell.stdout as Socket]) handle.unref()
    return boxOf({ pid, hostKey, port, logFile, privateKey: key.privateKey, stop })
  } catch (error) {
    await stop()
    throw error
  }
}

function sshdConfiguration(port: number, lines: readonly string[]): string {
  return [
    `Port ${port}`, 'ListenAddress 127.0.0.1', ...lines, 'HostKey /etc/ssh/ssh_host_ed25519_key',
    authorizedKeysLine, 'UsePAM yes', 'KbdInteractiveAuthentication no', 'PrintMotd no', 'UseDNS no',
    'X11Forwarding yes', 'AcceptEnv LANG LC_*', 'Subsystem sftp /usr/lib/openssh/sftp-server', 'PidFile none'
  ].join('\n')
}

/** What its scripts say, and then the greeting of its sshd. */
async function ready(
  shell: ChildProcess, port: number, logFile: string
): Promise<{ pid: number, hostKey: string }> {
  let [pid, hostKey] = [0, '']
  shell.stdin?.on('error', () => { /* it is gone: its exit is what counts */ })
  createInterface({ input: shell.stdout! }).on('line', line => {
    if (line.startsWith('pid ')) pid = Number(line.slice(4))
    if (line.startsWith('key ')) hostKey = line.slice(4).trim()
  })
  const readyBy = performance.now() + startLimitMs
  const died = once(shell, 'exit').then(() => 'died' as const)
  for (;;) {
    const event = await Promise.race([died, wait(startPollMs, 'look' as const)])
    if (event === 'died' || performance.now() > readyBy) {
      const what = event === 'died' ? 'it ended' : 'too slow'
      throw new Error(`the Linux box did not start (${what}):\n${readFileSync(logFile, 'utf8')}`)
    }
    if (pid > 0 && hostKey !== '' && await greets(port)) return { pid, hostKey }
  }
}

async function greets(port: number): Promise<boolean> {
  return await new Promise<boolean>(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('data', data => {
      socket.destroy()
      resolve(data.toString('latin1').startsWith('SSH-'))
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

async function end(shell: ChildProcess): Promise<void> {
  if (shell.exitCode !== null || shell.signalCode !== null) return
  const ended = once(shell, 'exit')
  shell.ref()
  shell.stdin?.end()
  // A first process that does not see the end of its pipe dies with its parent.
  const limit = new AbortController()
  const late = wait(stopLimitMs, 'late' as const, { signal: limit.signal }).catch(() => 'ended' as const)
  if (await Promise.race([ended, late]) === 'late') shell.kill('SIGKILL')
  limit.abort()
  await ended
}

interface Started {
  pid: number
  hostKey: string
  port: number
  logFile: string
  privateKey: string
  stop(): Promise<void>
}

function boxOf({ pid, hostKey, port, logFile, privateKey, stop }: Started): LinuxBox {
  const attempt = async (script: string, input = ''): Promise<Ran> => await runWithin(pid, script, input)
  const run = async (script: string, input?: string): Promise<string> => {
    const ran = await attempt(script, input)
    if (ran.status !== 0) throw new Error(`exit ${ran.status} of ${script}:\n${ran.stdout}${ran.stderr}`)
    return ran.stdout.replace(/\n$/, '')
  }
  return {
    host: '127.0.0.1', port, hostKey, pid, logFile, admin: { username: 'root', privateKey }, run, attempt,
    addUser: async (name, publicKey) => {
      await run(`
        useradd -m -s /bin/bash -- '${name}'
        usermod -p '*' -- '${name}'
        install -d -m 700 -o '${name}' -g '${name}' '/home/${name}/.ssh'
        cat > '/home/${name}/.ssh/authorized_keys'`, `${publicKey}\n`)
    },
    stop, [Symbol.asyncDispose]: stop
  }
}

async function runWithin(pid: number, script: string, input: string): Promise<Ran> {
  const child = spawn(programOf('nsenter'), [
    '-t', String(pid), '-m', '-p', '-u', '-i', '-r', '-w', '/bin/bash', '--norc', '-euc', script
  ], {
    stdio: ['pipe', 'pipe', 'pipe'], timeout: commandLimitMs, killSignal: 'SIGKILL',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', HOME: '/root' }
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output.stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => { output.stderr += text })
  child.stdin.on('error', () => { /* it did not want its input */ })
  child.stdin.end(input)
  const closed = once(child, 'close')
  const [status] = await once(child, 'exit') as [number | null]
  // What the script left running may hold the pipes for ever.
  await Promise.race([closed, wait(outputGraceMs)])
  return { status: status ?? -1, ...output }
}
