# What this host lacks, and what works and is weaker than it looks. Reads only. Each line is `missing` or
# `warning` with a sentence, or `version`.
jit_probe() {
  jit_os=$(. /etc/os-release 2> /dev/null && printf %s "${PRETTY_NAME:-Linux}")
  jit_say version "${jit_os:-Linux}, kernel $(uname -r)"
  for jit_tool in useradd:passwd usermod:passwd userdel:passwd groupadd:passwd groupdel:passwd \
    gpasswd:passwd getent:libc-bin flock:util-linux find:findutils awk:mawk cksum:coreutils timeout:coreutils; do
    command -v "${jit_tool%:*}" > /dev/null \
      || jit_say missing "there is no ${jit_tool%:*} on the host: apt-get install ${jit_tool#*:}"
  done
  command -v getfacl > /dev/null || jit_say warning \
    'there is no getfacl, so access lists that name an account are not cleaned: apt-get install acl'
  case $(useradd --help 2>&1) in *BusyBox*) jit_say missing \
    'the useradd of this host is BusyBox: apk add shadow' ;; esac
  jit_probe_sshd
  jit_probe_place
}

# What sshd itself says it does, for an account like ours.
jit_probe_sshd() {
  jit_sshd=$(command -v sshd || true)
  jit_who=user=jit_0000000,host=localhost,addr=127.0.0.1
  jit_set=$([ -z "$jit_sshd" ] || "$jit_sshd" -T -C "$jit_who" 2> /dev/null \
    || "$jit_sshd" -T 2> /dev/null || true)
  if [ -z "$jit_set" ]; then
    jit_say warning 'sshd does not tell its configuration (sshd -T), so nobody knows where it looks for keys'
    return
  fi
  jit_has() { printf '%s\n' "$jit_set" | grep -qiE "$1"; }
  if ! jit_has '^authorizedkeysfile .*/etc/ssh/jit_keys/%u( |$)'; then
    jit_line="AuthorizedKeysFile .ssh/authorized_keys $keys/%u"
    # Within `Match Group` nobody can ask sshd for it: the account is not there yet.
    if grep -qsriE '^[[:space:]]*TrustedUserCAKeys[[:space:]=]+"?/' /etc/ssh
    then jit_say warning "only templates with injection: certificate work without $jit_line"
    else jit_say missing "sshd does not look for keys in $keys: $jit_line"
    fi
  fi
  jit_has '^pubkeyauthentication yes' || jit_say missing 'sshd takes no keys: PubkeyAuthentication yes'
  ! jit_has '^allow(users|groups) ' || jit_say warning \
    'sshd lets only some accounts in (AllowUsers, AllowGroups): ours are in the group sallyport_jit'
  ! jit_has '^usepam no' || jit_say warning \
    'sshd does not ask PAM (UsePAM no): what pam_access and pam_limits say does not hold for its logins'
  ! jit_has '^permituserenvironment yes' || jit_say warning \
    'sshd reads the environment from files of the account (PermitUserEnvironment yes)'
}

jit_probe_place() {
  [ -d /proc/1 ] && [ -r /proc/self/loginuid ] || jit_say warning \
    'the kernel keeps no login uid, so what an account started through sudo is not found when it is removed'
  if [ -L "$keys" ]; then jit_say missing "$keys is a link: rm $keys"; fi
  ! grep -qsE '^CHFN_RESTRICT.*f' /etc/login.defs || jit_say warning \
    'accounts may change their full name, which is our marker: CHFN_RESTRICT rwh in /etc/login.defs'
}

# jit_probe_authority KEY: of our user authority, in base64. Files are asked for by sshd, and looked for within
# `Match` as well, where nobody can ask it.
jit_probe_authority() {
  jit_trusted=$( { printf '%s\n' "$jit_set"; grep -hsriE '^[[:space:]]*TrustedUserCAKeys' /etc/ssh; } \
    | sed -nE 's/^[[:space:]]*trustedusercakeys[[:space:]=]+"?([^"[:space:]]+).*/\1/Ip' | grep -vx none | sort -u)
  for jit_file in $jit_trusted; do
    ! grep -qsF "$1" "$jit_file" || return 0
  done
  if [ -z "$jit_trusted" ]
  then jit_say missing 'sshd trusts no user authority: TrustedUserCAKeys with the line of ssh-config --user-ca'
  else jit_say missing \
    "$(printf '%s' "$jit_trusted" | tr '\n' ' ') lacks our user authority: the line of ssh-config --user-ca"
  fi
}

# jit_probe_groups GROUPS: that accounts are to be in.
jit_probe_groups() {
  for jit_group in $1; do
    getent group "$jit_group" > /dev/null \
      || jit_say missing "the group $jit_group does not exist: groupadd $jit_group"
    case $jit_group in root|sudo|wheel|admin|docker|lxd|disk|shadow|kmem|adm) jit_say warning \
      "the group $jit_group is as strong as root: its sessions can undo everything that we do" ;; esac
  done
}

# jit_probe_account: one that exists, to be switched on and off.
jit_probe_account() {
  jit_look
  case $present in
    no) jit_say missing "the account $name does not exist: useradd -m -e 1 -p '*' $name" ;;
    directory) jit_say missing \
      "$name is an account of a directory, which this host cannot change: use the ldap plugin" ;;
    yes) [ "$uid" != 0 ] || jit_say missing "$name is root, which is never shut: name another account" ;;
  esac
}
