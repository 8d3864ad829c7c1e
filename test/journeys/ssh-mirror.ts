// deadline: 400 s
// D1: whoever works through the proxy must not notice it (R26, F26). Each line is done with stock OpenSSH
// straight at a real sshd and through the proxy, and compared: output, complaints, exit status. Here:
// commands, terminals, transfers; ssh-mirror-channels.ts has forwards, shared connections, keys and ciphers.
import { test } from 'uvu'
import { mirror, startMirror } from '../peers/ssh-mirror.ts'
import type { Behaviour, Mirror } from '../peers/ssh-mirror.ts'

let both: Mirror

test.before(async () => {
  both = await startMirror({ box: { sshd: ['AcceptEnv MIRROR'] } })
})
test.after(() => both.end())

const commands: Behaviour[] = [
  {
    name: 'exit codes',
    script: 'for n in 0 1 7 42 127 255; do S "exit $n"; echo "is $?"; done',
    shows: /^is 0\nis 1\nis 7\nis 42\nis 127\nis 255\n$/
  },
  {
    name: 'a command that a signal ends',
    script: 'S -v \'kill -TERM $$\' 2> log; echo "is $?"; grep -o "rtype exit-signal" log; '
      + 'S \'kill -SEGV $$\'; echo "is $?"',
    shows: /^is 255\nrtype exit-signal\nis 255\n$/
  },
  {
    name: 'standard error apart from standard output',
    script: 'S "echo out; echo err >&2" 2> err; echo "errors: $(cat err)"',
    shows: /^out\nerrors: err\n$/
  },
  {
    name: 'standard error after standard output was closed',
    script: 'S "exec >&-; sleep 0.3; echo late >&2; exit 3" 2>&1; echo "is $?"',
    shows: /^late\nis 3\n$/
  },
  {
    name: 'an exit status after both outputs were closed',
    script: 'S "exec >&- 2>&-; sleep 0.3; exit 5"; echo "is $?"',
    shows: /^is 5\n$/
  },
  {
    name: 'no standard input',
    script: 'S -n "cat; echo one"; S "cat; echo two" < /dev/null',
    shows: /^one\ntwo\n$/
  },
  {
    name: 'the end of the input is heard, the output goes on',
    script: 'printf "a\\nb" | S "cat; sleep 0.2; echo; echo after"; echo "is $?"',
    shows: /^a\nb\nafter\nis 0\n$/
  },
  {
    name: '20 MB in',
    script: 'G 20M | S md5sum; G 20M | md5sum',
    shows: /^([0-9a-f]{32}) {2}-\n\1 {2}-\n$/
  },
  {
    name: '100 MB out',
    script: 'S "gen 100M" | md5sum; G 100M | md5sum',
    shows: /^([0-9a-f]{32}) {2}-\n\1 {2}-\n$/
  },
  {
    name: '20 MB in and out at once',
    script: 'G 20M | S cat | md5sum; G 20M | md5sum',
    shows: /^([0-9a-f]{32}) {2}-\n\1 {2}-\n$/
  },
  {
    name: 'a reader that leaves early ends an endless command',
    script: 'S "yes; echo \\"left \\$?\\" > $R/left" | head -c 1; echo "is ${PIPESTATUS[0]}"; '
      + 'sleep 0.3; S "cat $R/left"',
    shows: /^yis \d+\nleft 141\n$/
  },
  {
    name: 'a command that stops reading',
    script: 'G 20M | S "head -c 4 | od -An -tx1; exit 4"; echo "is ${PIPESTATUS[1]}"',
    shows: /^( [0-9a-f]{2}){4}\nis 4\n$/
  },
  {
    name: 'every byte value, both ways',
    script: '/usr/bin/python3 -c "import os; os.write(1, bytes(range(256)) * 100)" > all; '
      + 'S "tee $R/all; cat $R/all >&2" < all > out 2> err; cmp all out && cmp all err && echo same',
    shows: /^same\n$/
  },
  {
    name: 'a command without output',
    script: 'S true | wc -c; S "printf \'\'" | wc -c',
    shows: /^0\n0\n$/
  },
  {
    name: 'a command line of 64 KiB',
    script: 'text=$(head -c 65536 /dev/zero | tr "\\0" x); S "echo $text" | md5sum; echo $text | md5sum',
    shows: /^([0-9a-f]{32}) {2}-\n\1 {2}-\n$/
  },
  {
    name: 'quotes, newlines and letters of other scripts in a command',
    script: 'S "printf \'%s\\n\' \\"it\'s\\" \'ἀ ß 字\'\necho second"',
    shows: /it's\n/
  },
  {
    name: 'a command that does not exist',
    script: 'S no-such-command 2>&1; echo "is $?"',
    shows: /not found\nis 127\n$/
  },
  {
    name: 'a subsystem that does not exist',
    script: 'S -s no-such-subsystem 2>&1; echo "is $?"',
    shows: /subsystem request failed on channel 0\n?\r?\nis 255\n$/
  },
  {
    name: 'a shell without a terminal, fed with commands',
    script: 'printf \'echo one\\nread line\\nfood\\necho "$line" >&2\\nexit 6\\n\' | S; echo "is $?"',
    shows: /one\nis 6\n$/
  },
  {
    name: 'LANG and LC_* pass, LD_PRELOAD does not',
    script: 'LANG=xx LC_NUMERIC=yy LD_LIBRARY_PATH=/none S -o SendEnv="LANG LC_* LD_*" '
      + '-o SetEnv=LD_PRELOAD=/none \'echo "$LANG $LC_NUMERIC [$LD_PRELOAD] [$LD_LIBRARY_PATH]"\' '
      + '2> /dev/null',
    shows: /^xx yy \[\] \[\]\n$/
  },
  {
    name: 'another variable that the target would accept',
    script: 'S -o SetEnv=MIRROR=set \'echo "[$MIRROR]"\'',
    shows: /^\[set\]\n$/,
    differs: {
      why: 'rights.ts has a list of variables; a target that accepts more is more open than we are',
      shows: /^\[\]\n$/
    }
  },
  {
    name: 'a quiet session under ServerAliveInterval',
    script: 'S -o ServerAliveInterval=1 -o ServerAliveCountMax=2 "sleep 4; echo alive"',
    shows: /^alive\n$/
  },
  {
    name: 'a session that was forked into the background',
    script: 'S -f "echo back; sleep 0.2; echo ground"; sleep 1',
    shows: /^back\nground\n$/
  }
]

const terminals: Behaviour[] = [
  {
    name: 'a terminal that was forced: name, TERM, size',
    script: 'TERM=vt220 S -tt "tty | tr -d 0-9; echo \\$TERM; stty size; exit 8" < /dev/null; echo "is $?"',
    shows: /^\/dev\/pts\/\r\nvt220\r\n0 0\r\nis 8\n$/
  },
  {
    name: 'no terminal when none is asked for',
    script: 'S tty; S -T tty; echo "is $?"',
    shows: /^not a tty\nnot a tty\nis 1\n$/
  },
  {
    name: 'the size of a terminal, and its change in the middle',
    script: `T 91x33 'see:33 91' 'see:ready' size:120x50 'see:50 120' -- ssh -F $C -tt box '
      trap "stty size; exit 9" WINCH; stty size; echo ready; while :; do sleep 0.1; done'`,
    shows: /33 91 -> 33 91\n.*ready\n50 120 -> 50 120\nrest .*\nexit 9\n$/
  },
  {
    name: 'the modes of a terminal',
    script: 'T 80x24 -- ssh -F $C -tt box "stty -a"',
    shows: /speed \d+ baud; rows 24; columns 80;.*exit 0\n$/s
  },
  {
    name: 'Ctrl-C',
    script: `T 80x24 see:ready 'send:\\x03' see:caught -- ssh -F $C -tt box '
      trap "echo caught; exit 3" INT; echo ready; sleep 30'`,
    shows: /caught -> caught\nrest .*\nexit 3\n$/
  },
  {
    name: 'Ctrl-D',
    script: `T 80x24 see:ready 'send:word\\n' see:word 'send:\\x04' see:after -- ssh -F $C -tt box '
      stty -echo; echo ready; cat; echo after; exit 4'`,
    shows: /after -> after\nrest .*\nexit 4\n$/
  },
  // exec: while a shell waits inside vfork for its child to begin, a stop reaches the child alone. Two exits:
  // the first is refused as long as the shell has not seen that its stopped job is gone.
  {
    name: 'Ctrl-Z in a login shell',
    script: `T 80x24 'see:\\$ $' "send:sh -c 'echo g\\"\\"o; exec sleep 60'\\n" see:go \
      'send:\\x1a' see:Stopped 'send:kill -9 %1; exit 5\\nexit 5\\n' -- ssh -F $C -tt box | grep -v rest`,
    shows: /exit 5\n$/
  },
  {
    name: 'the escape that hangs up',
    script: `T 80x24 see:ready 'send:\\r~.' 'see:Connection to .* closed' \\
      -- ssh -F $C -tt box 'echo ready; sleep 30'`,
    shows: /closed -> Connection to 127.0.0.1 closed\nrest .*\nexit 255\n$/
  }
]

const transfers: Behaviour[] = [
  {
    name: 'scp up and down, over SFTP',
    script: 'G 5M > file; scp -F $C -q file box:$R/there; scp -F $C -q box:$R/there back; echo "is $?"; '
      + 'cmp file back && echo same',
    shows: /^is 0\nsame\n$/
  },
  {
    name: 'scp -O up and down',
    script: 'G 5M > file; scp -O -F $C -q file box:$R/there; scp -O -F $C -q box:$R/there back; '
      + 'echo "is $?"; '
      + 'cmp file back && echo same',
    shows: /^is 0\nsame\n$/
  },
  ...['', '-O '].map((old): Behaviour => ({
    name: `scp ${old}-rp of folders, with modes and times`,
    script: 'mkdir -p "tree/a b/c"; echo one > "tree/a b/c/1"; echo two > tree/2; chmod 640 tree/2; '
      + `touch -d 2020-02-02 tree/2; scp ${old}-rpq -F $C tree box:$R/tree;
      scp ${old}-rpq -F $C box:$R/tree back; `
      + 'diff -r tree back && stat -c "%n %a %Y" back/2',
    shows: /^back\/2 640 1580\d+\n$/
  })),
  {
    name: 'scp of what is not there, and to where nobody may write',
    script: 'scp -F $C -q box:$R/none . 2>&1; echo "is $?"; echo x > x; '
      + 'scp -F $C -q x box:/none/x 2>&1; echo "is $?"; '
      + 'scp -O -F $C -q x box:/none/x 2>&1; echo "is $?"',
    shows: /none: No such file or directory\s+is 1\n.*is 1\n.*is 1\n$/s
  },
  {
    name: 'an sftp batch: put, get, rename, rm, mkdir, ln, ls, df',
    script: 'G 3M > file; sftp -q -F $C -b - box <<END\n'
      + 'cd $R\nput file one\nrename one two\nchmod 600 two\nget two back\n'
      + 'mkdir dir\nput file dir/three\nln -s two link\n'
      + 'ls -1\nls -1 dir\nrm two\nls -1\n-rm none\nEND\necho "is $?"; cmp file back && echo same',
    shows: /two\n[^]*is 0\nsame\n$/
  },
  {
    name: 'sftp with a large file and many requests at once',
    script: 'G 20M > file; printf "put file $R/there\\nget $R/there back\\n" | '
      + 'sftp -q -R 128 -B 32768 -F $C -b - box '
      + '> /dev/null; cmp file back && echo same',
    shows: /^same\n$/
  },
  {
    name: 'rsync both ways',
    // What rsync says of times must not depend on whether a second went by.
    script: 'export RSYNC_RSH="ssh -F $C"; mkdir -p src/a; G 2M > src/a/big; echo 1 > src/one; '
      + 'touch -d 2020-01-01 src/a src/one; rsync -a src/ box:$R/copy/; echo "is $?"; '
      + 'echo second > src/one; rm src/a/big; touch -d 2021-01-01 src/a src/one; '
      + 'rsync -a --delete -i src/ box:$R/copy/; '
      + 'rsync -a box:$R/copy/ back/; diff -r src back && echo same',
    shows: /^is 0\n[^]*one\n[^]*same\n$/
  },
  {
    name: 'git push and clone',
    script: 'export GIT_SSH_COMMAND="ssh -F $C" GIT_CONFIG_GLOBAL=/dev/null; '
      + 'S "git init -q --bare -b main $R/repo"; '
      + 'git init -q -b main work; cd work; G 1M > blob; git add .; '
      + 'git -c user.name=a -c user.email=a@b commit -qm first --date 2020-01-01; '
      + 'git push -q box:$R/repo main; echo "is $?"; '
      + 'cd ..; git clone -q box:$R/repo clone; cmp work/blob clone/blob && git -C clone log --format=%s',
    shows: /^is 0\nfirst\n$/
  },
  {
    name: 'tar through a pipe, both ways',
    script: 'mkdir d; G 3M > d/f; tar c d | S "tar x -C $R"; S "tar c -C $R d" | tar x --one-top-level=back; '
      + 'diff -r d back/d && echo same',
    shows: /^same\n$/
  }
]

mirror([...commands, ...terminals, ...transfers], () => both)

test.run()
