"""Opens files of users: a pipe would wait for its writer, and a device may have no end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader, FileIO

TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_FEW = 8
BUFFER = 1 << 16
"""Bytes that are read at once: a line of 200 MB in few pieces."""
FEWER_FILES = "raise the limit (ulimit -n 4096), or end programs that hold files open"
"""How to go on after an error of TOO_MANY_FILES."""


def few_files_left() -> bool:
    """Whether this process may hardly open one file more."""
    opened = list[int]()
    try:
        while len(opened) < _FEW:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in TOO_MANY_FILES
    finally:
        for file in opened:
            os.close(file)
    return False


class NotRegular(OSError):
    """A pipe, a socket or a device is where a file was expected."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Opens a file for reading, at once. Raises IsADirectoryError, NotRegular or another OSError."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(opened).st_mode
    if stat.S_ISREG(mode):
        return BufferedReader(FileIO(opened), BUFFER)
    os.close(opened)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegular(errno.EINVAL, "is a pipe or a device", str(path))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a file. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()
