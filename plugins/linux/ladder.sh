# Verbs that close, in the order that makes a removal safe: no new logins, then no processes, only then what
# they left. Each may be repeated, and each judges by looking. No name is ever followed through a link.
graveyard=69999
listed_max=50

# The first act of a removal. Without an account, only what bears its name is left to clean.
jit_begin_removal() {
  jit_begin
  if [ "$present" = yes ]; then jit_mark "$marked_done" "$uid"; return; fi
  [ "$kind" = create ] && [ "$action" = delete ] || { jit_say unchanged; jit_say end; exit 0; }
  if [ -n "$jit_uid" ] && [ "$marked_by" = "$id" ]; then
    # An earlier removal got as far as the account itself; or a creation no further than the group.
    uid=$jit_uid gid=$jit_uid
    jit_group=$(awk -F: -v name="$name" '$1 == name { print $3; exit }' /etc/group)
    [ "$jit_group" != "$uid" ] || jit_alone groupdel -- "$name"
    jit_end_processes 5
    rm -f -- "$keys/$name" "/etc/sudoers.d/sallyport-$name" "$state/accounts/$name"
  else jit_say unchanged
  fi
  jit_say end
  exit 0
}

# Expired, not locked: a locked account still has its keys, cron and at.
jit_refuse_logins() {
  jit_alone usermod -e 1 -- "$name"
  rm -f -- "$keys/$name"
}

# One call to the kernel reaches all that run with the uid, however fast they fork; it leaves out its caller.
# As the account itself, which can do nothing but get killed for it; then the slower way below finds the rest.
jit_strike() {
  command -v setpriv > /dev/null || return 0
  setpriv --reuid "$uid" --regid "$gid" --clear-groups \
    /bin/sh -c 'kill -STOP -1; kill -KILL -1' > /dev/null 2>&1 3>&- 9>&- || true
}

# jit_end_processes SECONDS: frozen first, so that nothing forks away, then killed; gone when two looks in a
# row find none.
jit_end_processes() {
  jit_end_manager
  jit_now; jit_limit=$((jit_clock + $1 * 100)) jit_clean=0 jit_before= jit_round=0
  while :; do
    [ "$jit_clean" -gt 0 ] || jit_strike
    jit_pids
    if [ "$jit_count" = 0 ]; then
      jit_clean=$((jit_clean + 1))
      [ "$jit_clean" -lt 2 ] || return 0
      sleep 0.03
      continue
    fi
    jit_clean=0
    jit_now
    [ "$jit_clock" -lt "$jit_limit" ] || jit_refuse retry "$jit_count processes do not end:$jit_found"
    kill -STOP $jit_found 2> /dev/null || true
    # Killed once nobody new appears; those who fork too fast for that are thinned out.
    jit_round=$((jit_round + 1))
    if [ "$jit_found" = "$jit_before" ] || [ $((jit_round % 4)) = 0 ]; then
      kill -KILL $jit_found 2> /dev/null || true
    fi
    jit_before=$jit_found
  done
}

# A lingering systemd manager would start again by itself, and may hold processes of any uid.
jit_end_manager() {
  if [ -e "/var/lib/systemd/linger/$name" ]; then
    rm -f -- "/var/lib/systemd/linger/$name"
    jit_residue linger "$name" removed
  fi
  if [ -d /run/systemd/system ] && command -v loginctl > /dev/null; then
    timeout 3 loginctl terminate-user "$name" > /dev/null 2>&1 || true
  fi
  jit_slice=/sys/fs/cgroup/user.slice/user-$uid.slice/cgroup.kill
  [ ! -w "$jit_slice" ] || echo 1 > "$jit_slice" || true
}

# What would run or be obeyed later: crontabs, at jobs, sudo rules and tickets, shared memory.
jit_remove_jobs() {
  for jit_file in /var/spool/cron/crontabs /var/spool/cron /var/spool/cron/tabs; do
    [ ! -f "$jit_file/$name" ] || { rm -f -- "$jit_file/$name"; jit_residue crontab "$name" removed; }
  done
  for jit_file in /var/spool/cron/atjobs /var/spool/at /var/spool/atjobs; do
    [ -d "$jit_file" ] || continue
    for jit_job in $(find "$jit_file" -xdev -type f -uid "$uid" -name '[a-z]*' -printf '%f\n' -delete); do
      jit_residue at-job "$jit_job" removed
    done
  done
  for jit_file in "/etc/sudoers.d/$name" "/etc/sudoers.d/sallyport-$name"; do
    [ ! -e "$jit_file" ] || { rm -f -- "$jit_file"; jit_residue sudoers "$jit_file" removed; }
  done
  grep -lswF -- "$name" /etc/sudoers /etc/sudoers.d/* /etc/cron.d/* /etc/crontab \
    | while read -r jit_file; do jit_residue mention "$jit_file" left; done
  rm -rf -- "/run/sudo/ts/$name" "/run/sudo/ts/$uid" "/var/lib/sudo/lectured/$name" \
    "/var/lib/sudo/lectured/$uid"
  jit_remove_ipc shm -m 8 10
  jit_remove_ipc msg -q 8 10
  jit_remove_ipc sem -s 5 7
}

# jit_remove_ipc TABLE OPTION OWNER_COLUMN CREATOR_COLUMN
jit_remove_ipc() {
  [ -r "/proc/sysvipc/$1" ] || return 0
  for jit_number in $(awk -v uid="$uid" -v a="$3" -v b="$4" '
    NR > 1 && ($a == uid || $b == uid) { print $2 }' "/proc/sysvipc/$1"); do
    ipcrm "$2" "$jit_number" && jit_residue "$1" "$jit_number" removed
  done
}

# Places that a file may be in: the ones that everybody can write to first, then every local disk.
jit_places() {
  echo /tmp; echo /var/tmp; echo /dev/shm
  awk '$6 !~ /(^|,)ro(,|$)/ {
    for (i = 7; i <= NF && $i != "-"; i++);
    if ($(i + 1) ~ /^(tmpfs|ramfs|mqueue)$/ && !seen[$3]++) print $5
    else if ($(i + 1) ~ /^(ext[234]|xfs|btrfs|zfs|f2fs|jfs|bcachefs|overlay)$/ && !seen[$3]++) disks[++n] = $5
  } END { for (i = 1; i <= n; i++) print disks[i] }' /proc/self/mountinfo
}

# jit_hand_over_files SECONDS: files outside of the home go to a uid that nobody has. The kernel takes setuid
# bits and capabilities away with that. What the time is too short for is said; the uid is never used again.
jit_hand_over_files() {
  jit_clear_acls
  jit_now; jit_limit=$((jit_clock + $1 * 100))
  jit_places | while read -r jit_place; do
    jit_place=$(printf %b "$jit_place")
    jit_now
    if [ "$jit_clock" -lt "$jit_limit" ]; then jit_hand_over "$jit_place" "$jit_limit"
    else jit_residue search "$jit_place was not searched" left
    fi
  done
}

jit_hand_over() {
  jit_errors=$locks/errors.$$
  jit_seconds=$((($2 - jit_clock) / 100 + 1))
  timeout "$jit_seconds" find "$1" -xdev -path "$home" -prune -o '(' -uid "$uid" -o -gid "$gid" ')' \
    '(' -type f -perm /6000 -printf s -o -printf f ')' -print0 \
    -execdir chown -h "$graveyard:$graveyard" '{}' + 2> "$jit_errors" \
    | tr '\n\000' '?\n' | awk -v max="$listed_max" '
      NR <= max { print } END { if (NR > max) print "f" (NR - max) " more" }' \
    | while read -r jit_file; do
      case $jit_file in s*) jit_what=setuid-file ;; *) jit_what=file ;; esac
      jit_residue "$jit_what" "${jit_file#?}" reassigned
    done
  grep -s '^chown: ' "$jit_errors" | awk 'NR <= 10' \
    | while read -r jit_line; do jit_residue file "$jit_line" left; done
  rm -f "$jit_errors"
  jit_now
  [ "$jit_clock" -lt "$2" ] || jit_residue search "$1 was not searched to its end" left
}

# Entries of access lists keep the number. Only where people put files, and not for long.
jit_clear_acls() {
  command -v getfacl > /dev/null && command -v setfacl > /dev/null || return 0
  timeout 3 getfacl -RPnsp /tmp /var/tmp /dev/shm /home /srv /opt 2> /dev/null | awk -v u="$uid" -v g="$gid" '
    /^# file: / { file = substr($0, 9); told = 0 }
    $0 ~ "^(default:)?(user:" u "|group:" g "):" && !told { print file; told = 1 }' \
    | while read -r jit_file; do
      # getfacl writes blanks and the like as \ooo.
      jit_file=$(printf %b "$(printf %s "$jit_file" | sed 's/\\\([0-7][0-7][0-7]\)/\\0\1/g')")
      for jit_entry in "u:$uid" "g:$gid" "d:u:$uid" "d:g:$gid"; do
        setfacl -x "$jit_entry" -- "$jit_file" 2> /dev/null || true
      done
      jit_residue acl "$jit_file" removed
    done
}

jit_take_from_groups() {
  [ "$present" = yes ] || return 0
  for jit_group in $1; do
    jit_member=$(awk -F: -v group="$jit_group" -v name="$name" '$1 == group {
      n = split($4, who, ","); for (i = 1; i <= n; i++) if (who[i] == name) print "yes" }' /etc/group)
    [ "$jit_member" != yes ] || jit_alone gpasswd -d "$name" "$jit_group"
  done
}

jit_remove_sudo() {
  rm -f -- "/etc/sudoers.d/sallyport-$name"
  rm -rf -- "/run/sudo/ts/$name" "/run/sudo/ts/$uid"
}

# Home, account, group; the account last, so that a removal that stops here is still seen by everybody.
jit_remove_account() {
  jit_pids
  [ "$jit_count" = 0 ] || jit_refuse retry "$jit_count processes are there again"
  jit_remove_home
  rm -f -- "/var/mail/$name" "/var/spool/mail/$name" "$keys/$name"
  jit_alone userdel -- "$name"
  ! getent group "$name" > /dev/null || jit_alone groupdel -- "$name"
  rm -f -- "$state/accounts/$name"
}

jit_remove_home() {
  case $home in
    */../*|*/./*|*//*) jit_residue home "$home" left; return ;;
    /*/"$name") ;;
    *) jit_residue home "$home" left; return ;;
  esac
  [ -e "$home" ] || [ -L "$home" ] || return 0
  # Whatever is mounted in there is not part of it.
  awk -v home="$home/" 'index($5, home) == 1 { print $5 }' /proc/self/mountinfo | sort -r \
    | while read -r jit_place; do umount -l -- "$(printf %b "$jit_place")" || true; done
  if [ -d "$home" ] && [ ! -L "$home" ] && [ "$(stat -c %u -- "$home")" != "$uid" ]; then
    jit_residue home "$home belongs to somebody else" left
    return
  fi
  if ! rm -rf --one-file-system -- "$home"; then
    ! command -v chattr > /dev/null || chattr -R -f -ia -- "$home" || true
    rm -rf --one-file-system -- "$home" || jit_refuse retry "$home cannot be removed"
  fi
  jit_residue home "$home" removed
}
