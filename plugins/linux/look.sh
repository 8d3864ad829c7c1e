# How the account stands. Reads only. What bears the name of an account that was made for a session, and is
# still there without it, is residue.
jit_view() {
  # Waits for an action that is under way: what it is about to do must not be missed.
  jit_sum=$(printf %s "$name" | cksum)
  jit_lock=$locks/account.$((${jit_sum%% *} % 256))
  if [ -e "$jit_lock" ]; then
    exec 9< "$jit_lock"
    flock -s -w 10 9 || jit_refuse retry 'another action holds the account'
  fi
  jit_look
  jit_open=no jit_count=0
  if [ "$present" = yes ]; then
    jit_expired || jit_open=yes
    jit_pids
  elif [ "$present" = directory ]; then jit_open=yes
  elif [ -n "$jit_uid" ]; then uid=$jit_uid; jit_pids
  fi
  jit_say account "$present" "$jit_open" "$marked_by" "$marked_done" "$jit_count"
  # A state without an account is a removal, or a creation, that has not come to its end.
  [ "$present" = no ] && [ "$kind" = create ] || return 0
  if [ "$marked_by" = "$id" ]; then jit_residue state "$state/accounts/$name" left; fi
  jit_leftovers
  jit_strays
}

jit_leftovers() {
  ! getent group "$name" > /dev/null || jit_residue group "$name" left
  for jit_file in "$keys/$name" "/var/lib/systemd/linger/$name" "/etc/sudoers.d/$name" \
    "/etc/sudoers.d/sallyport-$name" "/var/spool/cron/crontabs/$name" "/var/spool/cron/$name"; do
    if [ -e "$jit_file" ] || [ -L "$jit_file" ]; then jit_residue file "$jit_file" left; fi
  done
}

# Processes of a uid of ours whose account is gone: whose it was, the host has forgotten.
jit_strays() {
  for jit_uid in $(cat /proc/[0-9]*/status 2> /dev/null | awk -v a="$uid_first" -v b="$uid_last" '
    /^Uid:/ { for (i = 2; i <= 5; i++) if ($i >= a && $i <= b && !seen[$i]++) print $i }'); do
    getent passwd "$jit_uid" > /dev/null || jit_residue process "of uid $jit_uid, which has no account" left
  done
}

# jit_privileges GROUPS: in which of them the account is; and its sudo rule.
jit_privileges() {
  for jit_group in $1; do
    awk -F: -v group="$jit_group" -v name="$name" '$1 == group {
      n = split($4, who, ","); for (i = 1; i <= n; i++) if (who[i] == name) print group }' /etc/group \
      | while read -r jit_group; do jit_say group "$jit_group"; done
  done
  [ ! -e "/etc/sudoers.d/sallyport-$name" ] || jit_say sudo
}

# Accounts with our marker, and members of our group that have none.
jit_list_owned() {
  awk -F: '$5 ~ /^sallyport\// { split($5, c, ","); print $1 "\t" substr(c[1], 11) }' /etc/passwd \
    | while read -r name jit_id; do jit_say owned "$name" "$jit_id"; done
  awk -F: -v group="$marker_group" '
    FNR == NR { if ($1 == group) { n = split($4, who, ",") } next }
    $5 !~ /^sallyport\// { for (i = 1; i <= n; i++) if (who[i] == $1) print $1 }' /etc/group /etc/passwd \
    | while read -r name; do jit_say owned "$name"; done
}
