"""Which file system a path lies on."""

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


def file_system(path: Path) -> str | None:
    """Returns the type of the file system that a path lies on, such as "nfs4"; None where it is not known."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape")
    except OSError:  # not Linux
        return None
    return type_in(path.resolve(), mounts)


def type_in(path: Path, mounts_text: str) -> str | None:
    """Returns the type that a path (absolute, links resolved) has by the text of /proc/mounts.

    The longest mount point that holds the path counts, and of two on the same place the later one.
    """
    longest, found = -1, None
    for line in mounts_text.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(_unescaped(fields[1]))
        if path.is_relative_to(mount) and len(mount.parts) >= longest:
            longest, found = len(mount.parts), fields[2]
    return found


def _unescaped(text: str) -> str:
    """A field of /proc/mounts, where blanks and backslashes are written as octal numbers."""
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text
