# What every script begins with: how it reports, how it looks at the account, and the fence. Its report goes
# to descriptor 3, a line of tab-separated fields for each thing; whatever commands print goes to standard
# error. Set before: name, id, epoch, kind (create | enable), action, deadline (hundredths of a second of the
# target's own uptime clock).
keys=/etc/ssh/jit_keys
state=/var/lib/sallyport
locks=/run/sallyport
marker_group=sallyport_jit
# Uids of ours: above those that Debian and systemd hand out, below 500000, since one login of uid N makes
# lastlog 292 times N bytes long. None is ever used twice.
uid_first=70000
uid_last=499999

# Control characters are replaced: a file may have any name, and a line is ours to make.
jit_say() {
  jit_line=$1; shift
  for jit_field in "$@"; do jit_line="$jit_line	$(printf %s "$jit_field" | tr '\000-\037\177' '?')"; done
  printf '%s\n' "$jit_line" >&3
}

# jit_refuse retry|final TEXT: ends this script; nothing more of it happens.
jit_refuse() { jit_say refused "$1" "$2"; exit 20; }

jit_residue() { jit_say residue "$1" "$2" "$3"; }

# The clock runs on when a node sleeps, and nobody can set it.
jit_now() { read -r jit_up jit_rest < /proc/uptime; jit_clock=${jit_up%.*}${jit_up#*.}; }

jit_in_time() {
  jit_now
  [ "$jit_clock" -lt "$deadline" ] || jit_refuse retry 'the claim on the account has lapsed'
}

# jit_step NAME: what follows is told by this name when it fails.
jit_step() { jit_in_time; jit_say step "$1"; }

# shadow's tools wait a whole second for each other's lock; one at a time they do not meet.
jit_alone() { ( exec 8> "$locks/passwd"; flock -w 10 8; "$@" ); }

# How the account stands: present (yes | no | directory), uid, gid, comment, home, and whose marker it has.
jit_look() {
  present=no uid= gid= comment= home= marked_by= marked_epoch=0 marked_done=0
  jit_line=$(awk -F: -v name="$name" '$1 == name { print; exit }' /etc/passwd)
  if [ -n "$jit_line" ]; then
    present=yes
    IFS=: read -r jit_rest jit_rest uid gid comment home jit_rest <<LINE
$jit_line
LINE
  elif getent passwd "$name" > /dev/null; then present=directory
  fi
  case $comment in sallyport/*) marked_by=${comment#sallyport/}; marked_by=${marked_by%%,*} ;; esac
  jit_uid=
  if [ -f "$state/accounts/$name" ]; then
    read -r jit_id jit_epoch jit_done jit_uid < "$state/accounts/$name" || true
    # A name that somebody removed and made again is another account.
    if [ -z "$uid" ] || [ "$uid" = "$jit_uid" ]; then
      marked_by=$jit_id marked_epoch=$jit_epoch marked_done=$jit_done
    fi
  fi
}

# jit_mark DONE UID: the epoch is the fence; DONE is the epoch of the last opening that ran to its end.
jit_mark() {
  printf '%s %s %s %s\n' "$id" "$epoch" "$1" "$2" > "$state/accounts/.$name"
  mv -f -- "$state/accounts/.$name" "$state/accounts/$name"
}

# Alone with the account from here on; then the same questions as every fenced plugin asks.
jit_begin() {
  mkdir -p -m 700 "$locks" "$state" "$state/accounts"
  jit_sum=$(printf %s "$name" | cksum)
  exec 9> "$locks/account.$((${jit_sum%% *} % 256))"
  flock -w 10 9 || jit_refuse retry 'another action holds the account'
  jit_in_time
  jit_look
  if [ "$present" = directory ]; then
    jit_why="$name is an account of a directory (LDAP, SSSD …), which the tools of this host cannot change"
    [ "$kind" = enable ] || { jit_say conflict "$jit_why"; exit 21; }
    jit_refuse final "$jit_why: use the ldap plugin"
  fi
  if [ "$marked_by" = "$id" ] && [ "$marked_epoch" -gt "$epoch" ]; then
    jit_refuse final "epoch $marked_epoch has acted on the account, this is $epoch"
  fi
  [ "$present" = yes ] || return 0
  jit_foreign
  read -r hook_uid < /proc/self/loginuid || true
  if [ "$uid" = 0 ] || [ "$uid" = "$hook_uid" ]; then
    jit_refuse final "$name is root or the login of the hooks: it would shut itself out"
  fi
}

jit_foreign() {
  [ "$marked_by" != "$id" ] || return 0
  # A proof may begin on an account that nobody uses now; once a session takes it, it must not go on.
  jit_claimed=yes
  case $marked_by in ''|proof-*) jit_claimed=no ;; esac
  case $id in proof-*) [ "$epoch" != 1 ] || jit_claimed=no ;; esac
  [ "$kind" = create ] || [ "$jit_claimed" = yes ] || return 0
  jit_owner='is not ours'
  [ -z "$marked_by" ] || jit_owner="belongs to account $marked_by"
  jit_say conflict "the account $name exists and $jit_owner"
  exit 21
}

# Processes that have a uid of the account, or that began with its login (sudo and su do not change that).
jit_pids() {
  jit_found= jit_count=0
  for jit_file in $(
    # A grep that finds nothing fails, and must not keep the other from looking.
    grep -slE "^Uid:.*	$uid(	|\$)" /proc/[0-9]*/status || true
    grep -slx "$uid" /proc/[0-9]*/loginuid || true
  ); do
    jit_pid=${jit_file#/proc/}; jit_pid=${jit_pid%%/*}
    { read -r jit_stat < "/proc/$jit_pid/stat"; } 2> /dev/null || continue
    # A zombie does nothing; its parent has not asked yet how it ended.
    case ${jit_stat##*) } in Z*|X*) continue ;; esac
    case " $jit_found " in *" $jit_pid "*) continue ;; esac
    jit_found="$jit_found $jit_pid" jit_count=$((jit_count + 1))
  done
}

# True when the account may not log in: shadow's eighth field, in whole days of UTC.
jit_expired() {
  jit_day=$(awk -F: -v name="$name" '$1 == name { print $8; exit }' /etc/shadow)
  [ -n "$jit_day" ] && [ "$jit_day" -le $(($(date +%s) / 86400)) ]
}
