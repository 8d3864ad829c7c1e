# Verbs that open: an account that was never there before, its key, its groups, its sudo rule. Each may be
# repeated. No link is followed, nothing that exists is taken over, and no secret stands in an argument.

# A uid that no account of this host ever had. The counter is on disk before anybody has the uid.
jit_next_uid() {
  next_uid=$uid_first
  [ ! -s "$state/next-uid" ] || read -r next_uid < "$state/next-uid"
  while :; do
    # Uids that containers of people may use are theirs (subuid), and so is what is taken in any directory.
    jit_skip=$(cat /etc/subuid /etc/subgid 2> /dev/null | awk -F: -v n="$next_uid" '
      $2 <= n && n < $2 + $3 { if ($2 + $3 > to) to = $2 + $3 } END { print to }')
    if [ -n "$jit_skip" ]; then next_uid=$jit_skip
    elif getent passwd "$next_uid" > /dev/null || getent group "$next_uid" > /dev/null; then
      next_uid=$((next_uid + 1))
    else break
    fi
  done
  [ "$next_uid" -le "$uid_last" ] || jit_refuse final "no uid is left below $uid_last"
  echo "$((next_uid + 1))" > "$state/.next-uid"
  sync "$state/.next-uid" 2> /dev/null || sync
  mv -f "$state/.next-uid" "$state/next-uid"
}

# jit_make_account SHELL HOME_BASE EXPIRY_DAY GROUPS
jit_make_account() {
  if [ "$present" = yes ]; then
    # It is ours, and somebody may have its old key: place-key replaces that.
    jit_alone usermod -e "$3" -- "$name"
    return
  fi
  home=$2/$name
  [ -x "$1" ] || jit_refuse final "there is no shell $1"
  [ "$(stat -L -c %u -- "$2")" = 0 ] || jit_refuse final "$2 does not belong to root"
  if [ -e "$home" ] || [ -L "$home" ]; then
    jit_refuse final "$home is there already, and not ours to take"
  fi
  if getent group "$name" > /dev/null; then
    jit_say conflict "a group $name exists and is not ours"
    exit 21
  fi
  for jit_group in $4; do
    getent group "$jit_group" > /dev/null || jit_refuse final "there is no group $jit_group"
  done
  jit_groups=$marker_group
  for jit_group in $4; do jit_groups="$jit_groups,$jit_group"; done
  jit_alone jit_add "$1" "$home" "$3" "$jit_groups"
  chmod 0700 -- "$home"
}

# Uid, group and account in one go: a failure takes back what was done.
jit_add() {
  getent group "$marker_group" > /dev/null || groupadd --system "$marker_group"
  jit_next_uid
  trap 'groupdel -- "$name"; rm -f -- "$state/accounts/$name"' EXIT
  groupadd -g "$next_uid" -- "$name"
  jit_mark 0 "$next_uid"
  useradd -l -m -d "$2" -u "$next_uid" -g "$next_uid" -G "$4" -s "$1" -e "$3" -p '*' \
    -c "sallyport/$id" -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 -K UMASK=077 -- "$name"
  trap - EXIT
}

# jit_place_key OPTIONS KEY UNTIL: the account cannot write here, so no key of its own outlives the session.
jit_place_key() {
  [ ! -L "$keys" ] || jit_refuse final "$keys is a link"
  mkdir -p -m 755 "$keys"
  [ "$(stat -c %u "$keys")" = 0 ] || jit_refuse final "$keys does not belong to root"
  # Local time without a zone: sshd before 9.1 takes no `Z`.
  jit_until=$(date -d "@$3" +%Y%m%d%H%M%S)
  printf '%s,expiry-time="%s" %s\n' "$1" "$jit_until" "$2" > "$keys/.$name"
  chmod 0644 -- "$keys/.$name"
  mv -f -- "$keys/.$name" "$keys/$name"
}

# jit_allow_logins EXPIRY_DAY: of an account that exists.
jit_allow_logins() {
  [ "$present" = yes ] || jit_refuse final "there is no account $name"
  jit_alone usermod -e "$1" -- "$name"
}

jit_add_to_groups() {
  [ "$present" = yes ] || jit_refuse final "there is no account $name"
  for jit_group in $1; do
    getent group "$jit_group" > /dev/null || jit_refuse final "there is no group $jit_group"
    jit_alone usermod -aG "$jit_group" -- "$name"
  done
}

# jit_place_sudo RULE: one line, checked alone and then with all others. A name with a dot is no fragment.
jit_place_sudo() {
  jit_look
  [ "$present" = yes ] || jit_refuse final "there is no account $name"
  case $name in *.*) jit_refuse final 'sudo passes over a fragment whose name has a dot' ;; esac
  command -v visudo > /dev/null || jit_refuse final 'there is no sudo'
  jit_rule=/etc/sudoers.d/sallyport-$name
  printf '#%s %s\n' "$uid" "$1" > "/etc/sudoers.d/.sallyport-$name"
  chmod 0440 -- "/etc/sudoers.d/.sallyport-$name"
  if ! visudo -qcf "/etc/sudoers.d/.sallyport-$name"; then
    rm -f -- "/etc/sudoers.d/.sallyport-$name"
    jit_refuse final 'sudo does not understand the rule'
  fi
  mv -f -- "/etc/sudoers.d/.sallyport-$name" "$jit_rule"
  visudo -qc || { rm -f -- "$jit_rule"; jit_refuse final 'the sudoers of this host would be broken by it'; }
}

# The fence is raised before anything is done to an account that exists.
jit_begin_opening() {
  jit_begin
  [ "$present" != yes ] || jit_mark "$marked_done" "$uid"
}

# The last thing that an opening does: its epoch is in the marker only when all of it happened.
jit_opened() {
  jit_look
  [ "$present" != yes ] || jit_mark "$epoch" "$uid"
}
