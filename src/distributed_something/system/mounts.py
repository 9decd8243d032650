"""Tells which file system a path lies on. SQLite and file locks need a local one."""

from __future__ import annotations

from pathlib import Path

# fmt: off
NETWORK_FILE_SYSTEMS = frozenset([
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "davfs",
    "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "panfs", "pvfs2", "wekafs",
    "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.davfs2", "fuse.gcsfuse", "fuse.goofys",
    "fuse.mountpoint-s3", "fuse.blobfuse2", "fuse.juicefs",
    "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.beegfs",
])
# fmt: on


def network_file_system_of(path: Path) -> str | None:
    """Returns the type of the network file system that `path` lies on; None: it is local, or unknown."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape")
    except OSError:  # not Linux: nothing to go by
        return None
    return network_file_system(path.resolve(), mounts)


def network_file_system(path: Path, mounts_text: str) -> str | None:
    """Returns the type of the network file system that `path` (absolute, links resolved) lies on, or None.

    `mounts_text` is what /proc/mounts says. The longest mount point that holds the path counts, and of
    two on the same place the later one. SQLite's locks are not to be trusted across a network.
    """
    longest, found = -1, ""
    for line in mounts_text.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(_unescaped(fields[1]))
        if path.is_relative_to(mount) and len(mount.parts) >= longest:
            longest, found = len(mount.parts), fields[2]
    return found if found in NETWORK_FILE_SYSTEMS else None


def _unescaped(text: str) -> str:
    """Returns a field of /proc/mounts, where blanks and backslashes are written as octal numbers."""
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text
