"""Opens the file of the local engine's queue, locks it, and explains its errors.

It knows the file's format and where such a file may lie; `queue` adds the verbs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import DsError, QueueDamaged, UsageError
from ..system.files import FEWER_FILES, few_files_left
from ..system.mounts import NETWORK_FILE_SYSTEMS, file_system
from ..system.state import make_private, open_private

VERSION = 3
"""Of the file's format; kept in its header (PRAGMA user_version)."""

CHECKPOINT_PAGES = 4000
"""Length of the write-ahead log (16 MB) at which the next writer folds it into the file."""

# state: 0 open, 1 done, 2 dead, 3 dropped. seq: the job's index, from 1. failed: attempts used up.
# need: what the job needs of a machine, as `packed` has it; 0: it says nothing.
# cause: of an open job, what `job.Earlier` says of its failed attempts.
# Ids and tokens are numbers: sqlite3 binds those a third faster than bytes, and rows stay small.
# large: the bodies that are not in their rows, which are written anew with each lease and end.
# Small columns first and the body last: what is read and changed most lies at the start of a row.
_LARGE = "CREATE TABLE large (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);"
_SCHEMA = f"""
    {_LARGE}
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        id INTEGER NOT NULL UNIQUE,
        state INTEGER NOT NULL DEFAULT 0,
        visible_at REAL NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        need INTEGER NOT NULL DEFAULT 0,
        token INTEGER,
        owner TEXT,
        cause TEXT,
        detail TEXT,
        body BLOB NOT NULL
    );
    CREATE INDEX jobs_open ON jobs(visible_at) WHERE state = 0;
    CREATE INDEX jobs_dead ON jobs(seq) WHERE state = 2;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


BODY = """CASE WHEN length(body) > 0 THEN body
    ELSE ifnull((SELECT large.body FROM large WHERE large.seq = jobs.seq), body) END"""
"""A job's body, wherever it lies; for reading rows of `jobs`."""


class QueueFile:
    """A queue's file, open: readings, and transactions that all processes make one after another.

    Threads may share one object. A process that forks must open its own after the fork.
    """

    def __init__(self, path: Path, *, volatile: bool) -> None:
        self.path = path.absolute()
        self._mutex = threading.Lock()
        self._volatile = volatile
        self._durable: bool | None = None
        refuse_network(self.path)
        with explained(self.path):
            make_private(self.path.parent)
            refuse_newer(self.path, version_in_header(self.path))
            self._lock_file = open_lock(self.path)
            try:
                self._db = connect(self.path, self._lock_file)
                if volatile:
                    self._db.execute("PRAGMA synchronous = OFF")
            except BaseException:  # the lock is let go, and the error raised again
                os.close(self._lock_file)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Leases stay as they are. Closing twice is no error."""
        with self._mutex:
            if self._lock_file < 0:
                return
            # The last one to close folds the write-ahead log into the file: no other process may write then.
            with locked(self._lock_file), suppress(sqlite3.Error):
                self._db.close()
            os.close(self._lock_file)
            self._lock_file = -1

    def get_meta(self, key: str) -> str | None:
        """Returns the text kept under `key`, or None."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a short text beside the jobs; it survives a power cut once this returns."""
        with self._writing(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def _read(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Rows of one consistent reading, taken without the lock: writers do not wait for it."""
        with self._mutex, explained(self.path):
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Yields one transaction, all or nothing; `durable` makes it survive a power cut."""
        with self._mutex, explained(self.path), locked(self._lock_file):
            if not self._volatile and durable is not self._durable:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:  # rolled back, and raised again
                with suppress(sqlite3.Error):  # the first error says more, and SQLite may have rolled back
                    self._db.execute("ROLLBACK")
                raise


def refuse_network(path: Path) -> None:
    """Raises DsError if the path is on a network file system."""
    if (kind := file_system(path)) in NETWORK_FILE_SYSTEMS:
        raise DsError(
            f"the queue cannot lie in {path.parent}: it is on a network file system ({kind}),"
            " where file locks are not safe",
            "set DS_STATE_DIR to a folder on a local disk; on a cluster ENGINE = 'slurm'",
        )


def refuse_newer(path: Path, version: int) -> None:
    """Raises DsError if a newer version of the project made the file."""
    if version > VERSION:
        raise DsError(
            f"the queue {path} was made by a newer version of distributed-something"
            f" (format {version}, this one knows {VERSION})",
            "upgrade: pip install --upgrade distributed-something",
        )


def version_in_header(path: Path) -> int:
    """Returns the format's version as the file's header has it (0: none), read without touching anything.

    By SQLite, which alone knows when the file may be closed again: with any other close of it, the system
    takes the locks of all connections that this process has. Others then remove a log that is in use.
    """
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db,
    ):
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    return 0


def lock_of(path: Path) -> Path:
    """Returns the path of the file that writers lock."""
    return path.with_name(path.name + ".lock")


def open_lock(path: Path) -> int:
    """Opens the file that writers lock, beside the queue; returns its descriptor.

    It holds a word once the queue has been made: an emptied queue is then not taken for a new one.
    """
    return os.open(lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def connect(path: Path, lock_file: int) -> sqlite3.Connection:
    """Open the file, and give it its tables if it is new. Waits for the lock in that case only."""
    _refuse_emptied(path, lock_file)
    with suppress(FileExistsError):
        os.close(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))  # the log beside it gets its mode
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        version, mode = (db.execute(f"PRAGMA {each}").fetchone()[0] for each in _HEADER)
        refuse_newer(path, version)
        if (version, mode) != (VERSION, "wal"):
            with locked(lock_file):
                _make(db, path, lock_file)
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except BaseException:  # closed, and raised again
        db.close()
        raise
    return db


_HEADER = ("user_version", "journal_mode")
_MADE = b"made\n"


def _make(db: sqlite3.Connection, path: Path, lock_file: int) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version in (1, 2):
        need = "ALTER TABLE jobs ADD COLUMN need INTEGER NOT NULL DEFAULT 0;" if version == 1 else ""
        db.executescript(f"BEGIN; {need} {_LARGE} PRAGMA user_version = {VERSION}; COMMIT;")
    if version == 0:
        _refuse_emptied(path, lock_file)
        # Not yet in WAL mode, so that the header has the version from the first moment on.
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    db.execute("PRAGMA journal_mode = WAL")
    os.pwrite(lock_file, _MADE, 0)


def _refuse_emptied(path: Path, lock_file: int) -> None:
    """Raises QueueDamaged for a queue that was made, and is gone or has no bytes now."""
    log = path.with_name(path.name + "-wal")
    if not _size(path) and (os.pread(lock_file, 1, 0) or _size(log)):
        raise damaged(path, "it is empty" if path.exists() else "it is gone")


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


@contextmanager
def locked(lock_file: int) -> Iterator[None]:
    """Holds the lock, waiting for it."""
    fcntl.flock(lock_file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(lock_file, fcntl.LOCK_UN)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what SQLite's errors, and those of the file system, mean for the user."""
    try:
        yield
    except sqlite3.Error as error:
        if (ours := _explanation(path, error)) is None:
            raise
        raise ours from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(path) from error
        raise _not_writable(path, error.strerror or str(error)) from error


def _explanation(path: Path, error: sqlite3.Error) -> DsError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or re.match(_NOT_OURS, str(error)):
        return damaged(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return _disk_full(path)
    if code == sqlite3.SQLITE_TOOBIG:
        fix = "put what is long into a file of the store, and name that file in the job"
        return UsageError("a job is larger than the queue takes (1 GB)", fix)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return _not_writable(path, str(error))
    if isinstance(error, sqlite3.OperationalError):
        return DsError(
            f"the queue {path} cannot be used: {error}", "try again; if it comes back, check the disk"
        )
    return None


_NOT_OURS = "no such (table|column|index)|.*decode to UTF-8"


def damaged(path: Path, why: str) -> QueueDamaged:
    """Returns the error for a queue that is not what was written."""
    fix = "ds repair rebuilds it from the ledger, and so does ds start; jobs that have ended stay ended"
    return QueueDamaged(f"the queue {path} is damaged: {why}", fix)


def _disk_full(path: Path) -> DsError:
    return DsError(
        f"the disk is full: the queue {path} could not be written; nothing is lost",
        f"make room on the disk of {path.parent} and run the command again",
    )


def _not_writable(path: Path, why: str) -> DsError:
    if few_files_left():
        return DsError(f"the queue {path} cannot be opened: {os.strerror(errno.EMFILE)}", FEWER_FILES)
    return DsError(
        f"the queue {path} cannot be written: {why}",
        f"check the rights on {path.parent}, or set DS_STATE_DIR to a folder that you can write",
    )
