"""Opens the index of a run: a SQLite file beside the project, made from the ledger and never the truth.

`fold` keeps the states of a run's jobs in it, so that a look reads what has changed. A file that is missing,
damaged, or of another version is made anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..system.mounts import NETWORK_FILE_SYSTEMS, file_system
from ..system.state import make_private
from .records import FACTS

VERSION = 4
"""Version of the schema; an index of another one is made anew."""

KEPT = 4
"""Number of runs of an app whose indexes are kept."""

BUSY_SECONDS = 60.0
"""Time to wait for another command that builds the index, in seconds."""

CACHE_KIB = 65_536

MORE = ("bytes_in", "bytes_out", "phases", "start", "job")
"""What a row has beside a record's facts. `start` and `job` are the latest start and the id of a job that
has not succeeded."""

_RECORD = f"number, state, job, {', '.join(FACTS)}"
"""The columns of an index of few jobs: their records are read from it alone."""

# Job numbers count from 1. state: 0 waiting, 1 running, 2 succeeded, 3 dead, 4 skipped, 5 dropped.
# A job that only waits has no row in `states`. `past` has the ends that brought no result.
# `keyed` has the values of the job keys in `keys`, of the jobs up to a number; `keyed.py` fills it.
# `ended` counts final ends by parts of several lengths, `done_by` successes by machine.
_SCHEMA = f"""
    CREATE TABLE segments (key TEXT PRIMARY KEY, number INTEGER, read INTEGER) WITHOUT ROWID;
    CREATE TABLE counters (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, list INTEGER, place INTEGER, length INTEGER
    );
    CREATE TABLE states (number INTEGER PRIMARY KEY, state INTEGER NOT NULL, {", ".join((*FACTS, *MORE))});
    CREATE INDEX waiting ON states({_RECORD}) WHERE state = 0;
    CREATE INDEX running ON states({_RECORD}) WHERE state = 1;
    CREATE INDEX dead ON states({_RECORD}) WHERE state = 3;
    CREATE TABLE past (number INTEGER NOT NULL, t REAL NOT NULL, facts TEXT NOT NULL);
    CREATE INDEX past_of ON past(number);
    CREATE TABLE ended (scale REAL, at INTEGER, jobs INTEGER, PRIMARY KEY (scale, at)) WITHOUT ROWID;
    CREATE TABLE done_by (machine TEXT PRIMARY KEY, jobs INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE keyed (name TEXT, value, number INTEGER, PRIMARY KEY (name, value, number)) WITHOUT ROWID;
    CREATE TABLE keys (name TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID;
"""


def open_index(path: Path | None) -> sqlite3.Connection:
    """Opens an index, an empty one if there is none; in memory if `path` is None or cannot be used."""
    if path is not None:
        with suppress(OSError, sqlite3.Error):
            return _open_file(_placed(path))
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _prepare(db)
    return db


def _open_file(path: Path) -> sqlite3.Connection:
    make_private(path.parent)
    new = not path.exists()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # the log beside it gets its mode
    try:
        return _connect(path)
    except sqlite3.DatabaseError:
        remove_index(path)
        return _connect(path)
    finally:
        if new:
            _forget_older(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = OFF")  # what a power cut leaves of a new file is made anew
        db.execute("PRAGMA journal_mode = WAL")
        _prepare(db)
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:  # closed, and raised again
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    """Gives the database its tables. Raises sqlite3.DatabaseError if it is of another version."""
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if db.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    with writing(db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"version {version}")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction, all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:  # rolled back, and raised again
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def remove_index(path: Path) -> None:
    """Removes an index; commands that have it open go on with it."""
    path = _placed(path)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with suppress(OSError):
            path.with_name(name).unlink()


def _placed(path: Path) -> Path:
    """Returns the path, or one in a local temporary folder if SQLite's locks are not safe there."""
    if file_system(path) not in NETWORK_FILE_SYSTEMS:
        return path
    import hashlib
    import tempfile

    folder = Path(tempfile.gettempdir(), f"distributed-something-{os.getuid()}")
    make_private(folder)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not ours alone")
    mark = hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:16]
    return folder / mark / path.name


def _forget_older(path: Path) -> None:
    """Removes the indexes of all but the latest runs."""
    with suppress(OSError):
        found = sorted(path.parent.glob("*.db"), key=lambda each: -each.stat().st_mtime)
        for each in found[KEPT:]:
            remove_index(each)
