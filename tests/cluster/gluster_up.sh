#!/bin/sh
# gluster_up.sh MOUNT1 MOUNT2: one GlusterFS brick on loopback, and two FUSE mounts of it. There is no glusterd
# and no state of a cluster: the two volume files are written here. State lies in $FS_STATE, the port is $FS_PORT.
# FS_CACHE=1 (default): GlusterFS's own caches and 1 s kernel caches.  FS_CACHE=30: names, attributes
# and "is not there" are believed for 30 s (like NFS's acdirmax).  FS_CACHE=0: none.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"
m1=${1:?MOUNT1} m2=${2:?MOUNT2}
st=${FS_STATE:-./gluster.state} port=${FS_PORT:-24107} cache=${FS_CACHE:-1}
mkdir -p "$st/brick" "$st/run"
for m in "$m1" "$m2"; do stat "$m" >/dev/null 2>&1 || mountpoint -q "$m" || mkdir -p "$m" 2>/dev/null || true; done
abs() { case $1 in /*) echo "$1";; *) echo "$PWD/$1";; esac; }
st=$(cd "$st" && pwd); m1=$(abs "$m1"); m2=$(abs "$m2")
cat > "$st/brick.vol" <<V
volume posix
  type storage/posix
  option directory $st/brick
  option volume-id 00000000-0000-4000-8000-000000000001
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume threads
  type performance/io-threads
  subvolumes locks
end-volume
volume brick
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port $port
  option auth.addr.threads.allow 127.0.0.1
  option rpc-auth-allow-insecure on
  subvolumes threads
end-volume
V
cat > "$st/client.vol" <<V
volume remote
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port $port
  option remote-subvolume threads
  option ping-timeout 10
end-volume
V
top=remote
layer() { printf 'volume %s\n  type %s\n%s  subvolumes %s\nend-volume\n' "$1" "$2" "${3:-}" "$top" >> "$st/client.vol"; top=$1; }
if [ "$cache" != 0 ]; then
  layer wb performance/write-behind
  layer ra performance/read-ahead
  layer ioc performance/io-cache
  layer ob performance/open-behind
  layer mdc performance/md-cache "  option md-cache-timeout $cache
"
fi
python3 - "$st/brick" <<'P'
import os, sys, uuid
try: os.setxattr(sys.argv[1], "trusted.glusterfs.volume-id", uuid.UUID("00000000-0000-4000-8000-000000000001").bytes)
except OSError as e: sys.exit("gluster_up: trusted.* attributes are refused here (%s): be root, on ext4 or xfs" % e)
P
up() { python3 -c 'import socket,sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$port" 2>/dev/null; }
if ! up; then
  glusterfsd -f "$st/brick.vol" -p "$st/run/brick.pid" -l "$st/brick.log"
  n=0; until up; do n=$((n+1)); [ $n -lt 100 ] || { tail -5 "$st/brick.log" >&2; exit 1; }; sleep 0.05; done
fi
i=0
for m in "$m1" "$m2"; do
  i=$((i+1))
  grep -q " $m fuse" /proc/mounts && continue
  glusterfs -f "$st/client.vol" -p "$st/run/mount$i.pid" -l "$st/mount$i.log" \
    --attribute-timeout="$cache" --entry-timeout="$cache" --negative-timeout="${FS_NEG:-$cache}" ${FS_OPTS:-} "$m"
  n=0; until grep -q " $m fuse" /proc/mounts && ls "$m" >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 100 ] || { tail -5 "$st/mount$i.log" >&2; exit 1; }; sleep 0.05; done
done
