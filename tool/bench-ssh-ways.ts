// The three ways to a target that the SSH benchmark compares: directly, over an OpenSSH bastion in two hops
// (`ssh bastion ssh target`, what records nothing), and through our front end with recording on. Targets and
// bastion are boxes of their own, so that the CPU and the memory of everything that a way starts can be read.
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { cpuUs, residentKiB, startOwn } from './bench-processes.ts'
import { startLinuxBox } from './linux-box.ts'
import type { LinuxBox } from './linux-box.ts'
import { freePort } from './postgres.ts'

export const ciphers: Readonly<Record<string, string>> = {
  aes128: 'aes128-gcm@openssh.com', aes256: 'aes256-gcm@openssh.com', chacha: 'chacha20-poly1305@openssh.com'
}

/** Where a client of our own connects, and as whom. */
export interface Address {
  port: number
  hostKey: string
  username: string
}

export interface Way {
  name: string
  /** The words behind `ssh` that run a command at the target. */
  words(cipher: string, command: string, options?: readonly string[]): string[]
  /** What to run there to have the command run at the target. */
  address: Address
  wrapped(command: string): string
  /** Of whatever stands between client and target; NaN where there is nothing. */
  cpuUs(): number
  memoryKiB(): number
}

export interface Estate extends AsyncDisposable {
  ways: Way[]
  target: LinuxBox
  /** What clients log in with. */
  privateKey: string
}

/** As every client of the benchmark is started, on whichever machine. */
const plain = [
  '-F', 'none', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'BatchMode=yes',
  '-o', 'LogLevel=ERROR', '-o', 'IdentitiesOnly=yes'
]
const account = 'bench'
const crowd = ['MaxStartups 4000', 'MaxSessions 4000', 'PrintLastLog no']
const tickUs = 10_000

/** Every process of a box, as this machine counts them. */
function processesOf(box: LinuxBox): number[] {
  const namespace = readlinkSync(`/proc/${box.pid}/ns/pid`)
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => {
    try {
      return readlinkSync(`/proc/${pid}/ns/pid`) === namespace
    } catch {
      return false
    }
  })
}

function sumOf(box: LinuxBox, value: (pid: number) => number): number {
  let sum = 0
  for (const pid of processesOf(box)) {
    try {
      sum += value(pid)
    } catch {
      // It has ended; its parent has its time.
    }
  }
  return sum
}

/** With the time of those that have ended. */
function cpuWithChildrenUs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * tickUs
}

/** Its share of what it has in common with others. */
function proportionalKiB(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
}

/** A second sshd in the target for each cipher: its port says which one both hops use. */
async function cipherPorts(target: LinuxBox): Promise<Record<string, number>> {
  const ports: Record<string, number> = {}
  for (const [name, cipher] of Object.entries(ciphers)) {
    const port = ports[name] = await freePort()
    await target.run(`/usr/sbin/sshd -p ${port} -o Ciphers=${cipher} < /dev/null > /dev/null 2>&1`)
  }
  return ports
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

/** `keyFile`: where a client's key is written. */
export async function openEstate(keyFile: string, writeKey: (text: string) => void): Promise<Estate> {
  const [client, inner, own] = [generateSshKey(), generateSshKey(), generateSshKey()]
  writeKey(client.privateKey)
  const target = await startLinuxBox({ sshd: crowd })
  const bastion = await startLinuxBox({ sshd: crowd })
  for (const key of [client, inner]) {
    await target.run(`id ${account} > /dev/null 2>&1 || { useradd -m -s /bin/bash ${account}
      usermod -p '*' ${account}; install -d -m 700 -o ${account} ~${account}/.ssh; }
      cat >> ~${account}/.ssh/authorized_keys`, `${key.publicKey}\n`)
  }
  await bastion.addUser(account, client.publicKey)
  await bastion.run(
    `cat > ~${account}/.ssh/id; chmod 600 ~${account}/.ssh/id; chown ${account} ~${account}/.ssh/id`,
    inner.privateKey)
  const ports = await cipherPorts(target)
  const proxy = await startOwn('test/peers/ssh-bench-front.ts', {
    ports, hostKey: target.hostKey, username: account, privateKey: inner.privateKey,
    clientKey: client.publicKey, ownKey: own.privateKey
  })
  const head = (cipher: string): string[] => [...plain, '-c', ciphers[cipher]!]
  const outer = (cipher: string, port: number, login: string, options: readonly string[]): string[] =>
    [...head(cipher), '-i', keyFile, ...options, '-p', String(port), `${login}@127.0.0.1`]
  const hop = (cipher: string, command: string, options: readonly string[]): string => [
    'ssh', ...head(cipher), '-i', '.ssh/id', ...options, '-p', ports[cipher]!, `${account}@127.0.0.1`,
    quoted(command)
  ].join(' ')
  const ways: Way[] = [{
    name: 'direct', cpuUs: () => NaN, memoryKiB: () => NaN, wrapped: command => command,
    address: { port: ports['aes128']!, hostKey: target.hostKey, username: account },
    words: (cipher, command, options = []) => [...outer(cipher, ports[cipher]!, account, options), command]
  }, {
    name: 'two hops', wrapped: command => hop('aes128', command, []),
    address: { port: bastion.port, hostKey: bastion.hostKey, username: account },
    words: (cipher, command, options = []) =>
      [...outer(cipher, bastion.port, account, options), hop(cipher, command, options)],
    cpuUs: () => sumOf(bastion, cpuWithChildrenUs), memoryKiB: () => sumOf(bastion, proportionalKiB)
  }, {
    name: 'sallyport', wrapped: command => command,
    address: { port: proxy.port, hostKey: own.publicKey, username: 'aes128' },
    words: (cipher, command, options = []) => [...outer(cipher, proxy.port, cipher, options), command],
    cpuUs: () => cpuUs(proxy.pid), memoryKiB: () => residentKiB(proxy.pid)
  }]
  return {
    ways, target, privateKey: client.privateKey,
    [Symbol.asyncDispose]: async () => {
      await proxy.stop()
      await bastion.stop()
      await target.stop()
    }
  }
}
