#!/bin/sh
# nfs_run.sh COMMAND: runs a shell line in a user-mode Linux guest, in which $M1 and $M2 are the mounts of two NFS
# clients of one kernel NFS server. The guest sees this machine's files read-only, and the current folder
# writable. Prints what the command printed, and ends with its exit code (97: the guest did not come up).
# LIMIT: seconds that it may take.  Needs: apt-get install user-mode-linux nfs-kernel-server nfs-common kmod e2fsprogs
set -u
here=$(cd "$(dirname "$0")" && pwd); state=$(mktemp -d "$PWD/.nfs.XXXXXX")
printf '%s\n' "$*" > "$state/command"
timeout "${LIMIT:-300}" linux.uml mem=1G rootfstype=hostfs rootflags=/ ro init="$here/nfs_guest.sh" \
    SHARED_RW="$PWD" STATE="$state" con0=fd:0,fd:1 con=null ssl=null quiet </dev/null >"$state/console" 2>&1
cat "$state/out" 2>/dev/null; code=$(cat "$state/code" 2>/dev/null || echo 97)
[ "$code" != 97 ] || tail -n 15 "$state/guest.log" "$state/console" >&2
rm -rf "$state"
exit "$code"
