// deadline: 400 s
// D1, R26, the rest of the mirror (ssh-mirror.ts): forwards both ways, shared connections, agents, X11, and
// everything that is settled before the first channel: keys, passwords, certificates, ciphers.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import { programOf } from '../../tool/services.ts'
import { ran } from '../peers/house.ts'
import { mirror, startMirror } from '../peers/ssh-mirror.ts'
import type { Behaviour, Mirror } from '../peers/ssh-mirror.ts'

let both: Mirror
/** Keys of every kind that alice and `deploy` have, and the authority that both sides trust. */
const keys = mkdtempSync(join(tmpdir(), 'sallyport-keys-'))

async function makeKey(name: string, ...words: string[]): Promise<string> {
  const file = join(keys, name)
  await ran(programOf('ssh-keygen'), ['-q', '-N', '', '-C', name, '-f', file, ...words])
  return readFileSync(`${file}.pub`, 'utf8').trim()
}

test.before(async () => {
  const publicKeys = [
    await makeKey('rsa', '-t', 'rsa', '-b', '3072'), await makeKey('ecdsa', '-t', 'ecdsa', '-b', '384'),
    await makeKey('ed25519', '-t', 'ed25519')
  ]
  const authority = await makeKey('authority', '-t', 'ed25519')
  await makeKey('certified', '-t', 'ecdsa')
  await ran(programOf('ssh-keygen'), [
    '-q', '-s', join(keys, 'authority'), '-I', 'alice-laptop', '-n', 'alice,deploy', '-V', '-5m:+1h',
    join(keys, 'certified.pub')
  ])
  both = await startMirror({
    box: {
      sshd: ['AddressFamily inet', 'KbdInteractiveAuthentication yes', 'MaxSessions 40', 'MaxStartups 100',
        'TrustedUserCAKeys /etc/ssh/authority.pub'],
      prepare: `echo '${authority}' > /etc/ssh/authority.pub`
    },
    config: `ssh: { userAuthorities: ["${authority}"] }`,
    publicKeys
  })
  await both.house.box.run(
    'cat >> /home/deploy/.ssh/authorized_keys; install -m 600 -o deploy /dev/null /home/deploy/.Xauthority',
    `${publicKeys.join('\n')}\n`)
})
test.after(async () => {
  await both.end()
  rmSync(keys, { recursive: true })
})

const get = 'curl -sS --max-time 20'
/** A master in the background; `M` speaks to it. */
const master = 'M() { ssh -F $C -S ctl box "$@"; }; ssh -F $C -M -S ctl -fN box; '

const shared: Behaviour[] = [
  {
    name: 'ten sessions at once over one connection, asked after and ended',
    script: `${master} M -O check 2>&1 | sed 's/pid=[0-9]*/pid/'; for n in $(seq 10); do
      M "read line; echo $n \\$line; exit $n" <<< "word$n" > out$n & pids="$pids $!"; done
      for pid in $pids; do wait $pid; echo "is $?"; done; cat out*; M -O exit 2>&1; sleep 0.2; ls`,
    shows: /Master running \(pid\)\r?\nis 1\n.*is 10\n1 word1\n10 word10\n.*Exit request sent.\r?\n(?!.*ctl)/s
  },
  {
    name: 'a hundred commands in turn over one connection',
    script: `${master} for n in $(seq 100); do M "echo $n" || echo failed; done | md5sum; seq 100 |
      md5sum; M -O exit 2>&1`,
    shows: /^([0-9a-f]{32}) {2}-\n\1 {2}-\n/
  },
  {
    name: 'sftp and a command side by side over one connection',
    script: `${master} G 8M > f; M "sleep 1; echo done" > done & pid=$!;
      scp -q -o ControlPath=ctl -F $C f box:$R/f; M "md5sum < $R/f"; md5sum < f; wait $pid; cat done`,
    shows: /([0-9a-f]{32}) {2}-\n\1 {2}-\n/
  },
  {
    name: 'forwards that are added to a connection and taken away',
    script: `${master} M -O forward -L $P:127.0.0.1:$SERVICE; ${get} localhost:$P/added | cut -c1-15;
      M -O cancel -L $P:127.0.0.1:$SERVICE; `
      + `${get} localhost:$P/gone 2>/dev/null; echo "is $?"; M -O exit 2>/dev/null`,
    shows: /^service \/added ?\nis 7\n$/
  }
]

const forwards: Behaviour[] = [
  {
    name: '-L to a service at the target',
    script: `S -fN -M -S ctl -L $P:127.0.0.1:$SERVICE; for n in 1 2 3; do ${get} localhost:$P/$n; done`,
    shows: /^(service \/\d \.{2000} end\n){3}$/
  },
  {
    name: '-L to a port where nobody listens',
    script: `S -E log -fN -M -S ctl -L $P:127.0.0.1:$Q; ${get} localhost:$P/ 2> curl; echo "is $?";
      sleep 0.3; cat log`,
    shows: /^is (52|56)\n.*open failed: connect failed: Connection refused/s
  },
  {
    name: '-R to a service here',
    script: `S -R $P:127.0.0.1:$SERVICE "${get} localhost:$P/back"`,
    shows: /^service \/back \.+ end\n$/
  },
  {
    name: '-R 0: the target chooses a port',
    script: `${master} port=$(M -O forward -R 0:127.0.0.1:$SERVICE); [ "$port" -gt 0 ] && echo port;
      M "${get} localhost:$port/zero"`,
    shows: /^port\nservice \/zero \.+ end\n$/
  },
  {
    name: '-R on a port that is taken, under ExitOnForwardFailure',
    script: 'S -o ExitOnForwardFailure=yes -R $SERVICE:127.0.0.1:$SERVICE "echo never" 2>&1 | '
      + 'sed "s/$SERVICE/TAKEN/"; echo "is ${PIPESTATUS[0]}"',
    shows: /remote port forwarding failed for listen port TAKEN\r?\nis 255\n$/
  },
  {
    name: '-D with twenty requests at once',
    script: `S -fN -M -S ctl -D $P; for n in $(seq 20);
      do ${get} --socks5-hostname localhost:$P 127.0.0.1:$SERVICE/$n > out$n & done; `
      + 'wait; cat out* | sort | md5sum; cat out* | grep -c end',
    shows: /^[0-9a-f]{32} {2}-\n20\n$/
  },
  {
    name: '-L from a socket file to a socket file',
    script: `S "/usr/bin/python3 -c 'import socket
s = socket.socket(socket.AF_UNIX); s.bind(\\"$R/web\\"); s.listen(); c, _ = s.accept()
c.recv(1000); c.sendall(b\\"HTTP/1.0 200 OK\\")'" &
      for n in $(seq 50); do S "test -S $R/web" && break; sleep 0.1; done
      S -fN -M -S ctl -L $PWD/here:$R/web; printf 'GET /none HTTP/1.0\\r\\n\\r\\n' |
      /usr/bin/python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect("here"); s.sendall(sys.stdin.buffer.read())
print(s.recv(100).split(b"\\r")[0])'`,
    shows: /^b'HTTP\/1.0 /
  },
  {
    name: '-R from a socket file at the target',
    script: `S -R $R/sock:127.0.0.1:$SERVICE "${get} --unix-socket $R/sock http://any/unix"`,
    shows: /^service \/unix \.+ end\n$/
  },
  {
    name: '-W: standard input and output are the connection',
    script: 'printf "GET /through HTTP/1.0\\r\\n\\r\\n" | S -W 127.0.0.1:$SERVICE | tail -n 1; '
      + 'echo "is ${PIPESTATUS[1]}"',
    shows: /^service \/through \.+ end\nis 0\n$/
  },
  {
    name: '-W to a port where nobody listens',
    script: 'S -W 127.0.0.1:$P < /dev/null 2>&1; echo "is $?"',
    shows: /stdio forwarding failed\r?\nis 255\n$/
  },
  {
    name: 'what editors do: commands on standard input, requests through a SOCKS port',
    script: `mkfifo in; S -T -D $P bash < in > out & exec 3> in; echo 'echo "ready on $(hostname |
      wc -l)"' >&3
      for n in $(seq 100); do grep -q ready out && break; sleep 0.1; done
      for n in 1 2 3 4 5; do ${get} --socks5-hostname localhost:$P 127.0.0.1:$SERVICE/$n > web$n &
      done; sleep 0.5
      echo 'cat > '$R'/file <<END' >&3; G 300K | base64 >&3; echo END >&3; echo "md5sum < $R/file;
      exit 3" >&3; exec 3>&-
      wait %1; echo "is $?"; wait; cat out; G 300K | base64 | md5sum; cat web* | grep -c end`,
    shows: /^is 3\nready on 1\n([0-9a-f]{32}) {2}-\n\1 {2}-\n5\n$/
  },
  {
    name: 'the agent, inside',
    script: 'eval $(ssh-agent) > /dev/null; ssh-add -q $KEYS/ed25519 2>&1; S -A "ssh-add -l"; '
      + 'ssh-add -D 2> /dev/null; '
      + 'S -A "ssh-add -l"; echo "is $?"; S "ssh-add -l" 2>&1; kill $SSH_AGENT_PID',
    shows: /^256 SHA256:\S+ ed25519 \(ED25519\)\nThe agent has no identities.\nis 1\nCould not open/
  },
  {
    name: 'X11: a display, and a connection from it to here',
    script: `export DISPLAY=127.0.0.1:$((P - 6000)) XAUTHORITY=$PWD/auth
      xauth -q add $DISPLAY . 00112233445566778899aabbccddeeff 2> /dev/null
      /usr/bin/python3 -c 'import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); c, _ = s.accept()
head = c.recv(12); c.recv(200); c.sendall(b"\\0\\5\\x0b\\0\\0\\0\\2\\0never\\0\\0\\0"); c.close()
open("x11", "w").write(head[:1].decode())' $P & sleep 0.3
      S -Y '[ -n "$DISPLAY" ] && echo display; d=\${DISPLAY##*:}; cookie=$(xauth list $DISPLAY |
      head -n 1 | sed "s/.* //")
        /usr/bin/python3 -c "import socket, sys
name = b\\"MIT-MAGIC-COOKIE-1\\"
s = socket.create_connection((\\"127.0.0.1\\", 6000 + int(float(sys.argv[1]))))
s.sendall(b\\"l\\\\0\\\\x0b\\\\0\\\\0\\\\0\\\\x12\\\\0\\\\x10\\\\0\\\\0\\\\0\\" + name + b\\"\\\\0\\\\0\\"
  + bytes.fromhex(sys.argv[2])); print(s.recv(100)[8:13])" $d $cookie'
      wait; cat x11`,
    shows: /^display\nb'never'\nl$/
  }
]

const logins: Behaviour[] = [
  ...['rsa', 'ecdsa', 'ed25519', 'certified'].map((key): Behaviour => ({
    name: `a login with ${key === 'certified' ? 'a certificate' : `a key of ${key}`}`,
    script: `S -i $KEYS/${key} -o IdentityFile=none -v "echo in" 2> log;
      grep -o "Server accepts key: [^ ]*/${key}" log | sed 's/.*keys.*[/]//'`,
    shows: new RegExp(`^in\\n${key}\\n`)
  })),
  {
    name: 'a key that nobody knows',
    script: 'ssh-keygen -q -N "" -t ed25519 -f new; sed /IdentityFile/d $C > config; '
      + 'ssh -F config -i new box true 2>&1 | sed "s/ (.*//"; echo "is ${PIPESTATUS[0]}"',
    shows: /Permission denied\r?\n?is 255\n$/
  },
  ...['password', 'keyboard-interactive'].map((method): Behaviour => ({
    name: `a login with ${method}`,
    script: `sshpass -p "$PASSWORD" \\
      ssh -F $C -o BatchMode=no -o PreferredAuthentications=${method} box "echo in"`,
    shows: /^in\n$/
  })),
  {
    name: 'a password that is wrong three times',
    script: 'printf "#!/bin/sh\\necho wrong\\n" > ask; chmod 755 ask; '
      + 'SSH_ASKPASS=$PWD/ask SSH_ASKPASS_REQUIRE=force '
      + 'ssh -F $C -o BatchMode=no -o PreferredAuthentications=password box true 2>&1 | sed "s/ (.*//"; '
      + 'echo "is ${PIPESTATUS[0]}"',
    shows: /(Permission denied, please try again.\s+){2}LOGIN@127.0.0.1: Permission denied\r?\n?is 255\n$/
  }
]

const ciphers = [
  'aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'chacha20-poly1305@openssh.com', 'aes256-ctr',
  'aes192-ctr', 'aes128-ctr'
]
const macs = [
  'hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'
]
// What clients get: the curves of NIST and the group of 8192 bits are for targets, or for nobody
// (algorithms.ts).
const exchanges = [
  'curve25519-sha256', 'curve25519-sha256@libssh.org', 'diffie-hellman-group16-sha512',
  'diffie-hellman-group14-sha256'
]
/** 3 MB there and back with new keys after each MB, and what was agreed on. */
const exercise = (option: string, what: string): string =>
  `G 3M | S -v ${option} -o RekeyLimit=1M cat 2> log | md5sum; G 3M | md5sum;
      grep -o "kex: ${what}.*" log | sort -u`

const algorithms: Behaviour[] = [
  ...ciphers.map((cipher): Behaviour => ({
    name: `cipher ${cipher}`,
    script: exercise(`-c ${cipher} -m hmac-sha2-256-etm@openssh.com`, 'server->client'),
    shows: new RegExp(`^(\\S+) {2}-\\n\\1 {2}-\\n[^]*cipher: ${cipher}`)
  })),
  ...macs.map((mac): Behaviour => ({
    name: `integrity ${mac}`, script: exercise(`-c aes256-ctr -m ${mac}`, 'server->client'),
    shows: new RegExp(`^(\\S+) {2}-\\n\\1 {2}-\\n[^]*MAC: ${mac}`)
  })),
  ...exchanges.map((kex): Behaviour => ({
    name: `key exchange ${kex}`,
    script: exercise(`-c aes128-gcm@openssh.com -o KexAlgorithms=${kex}`, 'algorithm'),
    shows: new RegExp(`^(\\S+) {2}-\\n\\1 {2}-\\n[^]*algorithm: ${kex}`)
  })),
  {
    name: 'new keys after each MB, 30 MB both ways',
    script: 'G 30M | S -v -o RekeyLimit=1M cat 2> log | md5sum; G 30M | md5sum; '
      + 'test $(grep -c "SSH2_MSG_NEWKEYS received" log) -ge 20 && echo often',
    shows: /^(\S+) {2}-\n\1 {2}-\noften\n$/
  },
  {
    name: 'compression, when it is asked for',
    script: 'G 1M | S -v -C cat 2> log | md5sum; G 1M | md5sum; '
      + 'grep -o "client->server.*compression: .*" log | sed "s/.*compression/compression/"',
    shows: /^(\S+) {2}-\n\1 {2}-\ncompression: zlib@openssh.com/,
    differs: {
      why: 'algorithms.ts: what a peer inflates to is memory of ours; the client goes on without',
      shows: /^(\S+) {2}-\n\1 {2}-\ncompression: none/
    }
  }
]

mirror([...shared, ...forwards, ...logins, ...algorithms], () => both, { KEYS: keys })

test.run()
