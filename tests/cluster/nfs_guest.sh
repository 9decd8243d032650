#!/bin/sh
# First process of the guest that nfs_run.sh starts: one NFS server of the kernel, and two clients of it, each in a
# network of its own and under a host name of its own, by which NFS 4.1 and later know a client.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts; mount -t tmpfs shm /dev/shm; mount -t devpts p /dev/pts; ln -sf /proc/self/fd /dev/fd
mount -t tmpfs -o size=600m tmp /mnt; mount -t tmpfs run /run; mount -t hostfs -o "$SHARED_RW" host "$SHARED_RW"
exec >"${STATE:?}/guest.log" 2>&1
ip link set lo up; hostname localhost
: >/run/resolv; mount --bind /run/resolv /etc/resolv.conf
printf '127.0.0.1 localhost\n10.9.1.2 n1\n10.9.2.2 n2\n' >/run/hosts; mount --bind /run/hosts /etc/hosts
grep -v inet6 /etc/netconfig >/run/netconfig; mount --bind /run/netconfig /etc/netconfig  # there is no IPv6
kernel=$(uname -r); mkdir -p /mnt/r/lib/modules /mnt/exp /mnt/n1 /mnt/n2
ln -s "/usr/lib/uml/modules/$kernel" "/mnt/r/lib/modules/$kernel"
for module in nfsd nfsv4 veth loop quota_v2; do modprobe -d /mnt/r $module || echo "no module $module"; done
mount -t tmpfs lib /var/lib/nfs; mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /run/netns
: >/var/lib/nfs/etab; : >/var/lib/nfs/rmtab
mount -t rpc_pipefs pipes /var/lib/nfs/rpc_pipefs; mount -t nfsd nfsd /proc/fs/nfsd
mount -t tmpfs -o size=300m exp /mnt/exp
# A file system with quotas, on which the clients are user 65534 (root could write beyond its quota)
truncate -s 64M /mnt/quota.img; mkfs.ext4 -q -O quota /mnt/quota.img; mkdir /mnt/exp/quota
mount -o loop,usrquota /mnt/quota.img /mnt/exp/quota && chmod 777 /mnt/exp/quota
for each in nfsv4leasetime nfsv4gracetime; do echo 10 >/proc/fs/nfsd/$each; done
exportfs -i -o rw,fsid=0,no_root_squash,insecure,sync,no_subtree_check '*:/mnt/exp'
exportfs -i -o rw,all_squash,insecure,sync,no_subtree_check '*:/mnt/exp/quota'
rpc.nfsd -N 3 --no-udp 4; rpc.mountd -N 3; echo Y >/proc/fs/nfsd/v4_end_grace
for n in 1 2; do
    ip netns add n$n; ip link add v$n type veth peer name e0 netns n$n
    ip addr add 10.9.$n.1/24 dev v$n; ip link set v$n up
    nsenter --net=/run/netns/n$n sh -c "ip link set lo up; ip addr add 10.9.$n.2/24 dev e0; ip link set e0 up"
    unshare --uts nsenter --net=/run/netns/n$n \
        sh -c "hostname node$n; mount -t nfs4 -o vers=4.2,hard,acdirmin=1,acdirmax=5 10.9.$n.1:/ /mnt/n$n"
done
cd "$SHARED_RW"; M1=/mnt/n1 M2=/mnt/n2 sh "$STATE/command" >"$STATE/out" 2>&1; echo $? >"$STATE/code"
umount -l /mnt/n1 /mnt/n2; poweroff -f
