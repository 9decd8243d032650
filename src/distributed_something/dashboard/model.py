"""What the page shows: looks at the run, shared by all requests, and their parts as JSON values."""

from __future__ import annotations

import codecs
import json
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from ..engine import StoredFile
from ..errors import DsError, KeyMissing
from ..ledger import JobRecord, RunPaths
from ..report.build import REPORT
from ..report.failures import FailureGroup, group_failures
from ..runs.joblog import begin_of, read_log
from ..runs.snapshot import Alive, Snapshot, job_line
from ..steps.project import Project
from ..words import many
from . import files, show
from .history import History
from .select import Wanted, select

LOOK_SECONDS = (1.0, 15.0)
"""Between two looks, at least and at most, whatever the engine says; less often where a look takes long."""

LOOKING_SHARE = 0.1
LOG_BYTES = 256 << 10
GROUPS = 100
READ_MOST = 2000
"""Logs of failed jobs read at a time: the rest is read when the page asks again."""


class NotFound(Exception):
    """No such job, attempt or file in this run."""


class Model:
    """One look at the run at a time, however many pages ask. Thread-safe.

    `opened` opens the project anew: what a clean-up has removed must not be held open.
    """

    def __init__(self, opened: Callable[[], Project]) -> None:
        self._opened = opened
        self._lock = threading.RLock()
        self._project = opened()
        self._stamp = self._stamps()
        self._history: History | None = None
        self._snapshot: Snapshot | None = None
        self._trouble: DsError | None = None
        self._reported = False
        self._next_look = self._looked_at = 0.0
        self._said: dict[tuple[str, float | None], tuple[str, str]] = {}
        self._groups: tuple[int, list[FailureGroup]] | None = None
        self._selected: tuple[tuple[int, Alive, Wanted], list[JobRecord]] | None = None

    def overview(self) -> dict[str, Any]:
        """Status, figures, plots and machines."""
        with self._lock:
            self._look()
            trouble = self._trouble
            found: dict[str, Any] = {"error": {"what": trouble.what, "fix": trouble.fix} if trouble else None}
            if self._snapshot is None or self._history is None:
                return {**found, "app": self._project.config.app_name, "run": None}
            shown = show.overview(self._snapshot, self._history, self._looked_at)
            return {**found, **shown, "report": self._reported}

    def jobs(self, wanted: Wanted, page: int) -> dict[str, Any]:
        """A page of the jobs that are wanted."""
        with self._lock:
            history = self._looked()
            alive = self._alive()
            records = self._select(history, wanted, alive=alive)
            rows, page, pages = show.page_of(records, page)
            return {
                "total": len(records),
                "page": page,
                "pages": pages,
                "rows": [show.row(record, history.bodies.get(record.id), alive=alive) for record in rows],
            }

    def failures(self) -> dict[str, Any]:
        """The failures in groups, the largest first."""
        with self._lock:
            groups = self._grouped(self._looked())
            return {
                "groups": [show.group(found) for found in groups[:GROUPS]],
                "more": max(len(groups) - GROUPS, 0),
            }

    def job(self, job_id: str) -> dict[str, Any]:
        """Everything about one job."""
        with self._lock:
            history = self._looked()
            record = self._record(history, job_id)
            alive = self._alive()
            body = _keys(history, record)
            line = {**job_line(record, body), "state": alive.state(record).value}
            given, made = self._files(history, record)
            return {
                "job": line,
                "failed": record.failed,
                "attempts": show.attempts(history, record, alive=alive),
                "inputs": [show.file(found) for found in given],
                "outputs": [show.file(found) for found in made],
                "output_at": self._project.engine.store.locate(record.output) if record.output else None,
            }

    def log(self, job_id: str, place: str, start: int) -> dict[str, Any]:
        """What an attempt printed, from byte `start` on; at first no more than its last LOG_BYTES.

        `next` is where to go on; characters are never cut in two.
        """
        with self._lock:
            history = self._looked()
            record = self._record(history, job_id)
            places = [record.log, *(event.get("log") for event in history.past.get(record.id, ()))]
            full = next((known for known in places if known and begin_of(known) == begin_of(place)), None)
            if full is None:
                raise NotFound
            store, ended = self._project.engine.store, "+" in full.rpartition("@")[2]
        text = read_log(store, history.paths, full, skip=start)
        skipped = 0 if start else max(len(text) - LOG_BYTES, 0)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        shown = decoder.decode(text[skipped:], final=ended)
        left = 0 if ended else len(decoder.getstate()[0])
        return {"text": shown, "next": start + len(text) - left, "skipped": skipped, "ended": ended}

    def file(self, job_id: str, key: str) -> tuple[StoredFile, Callable[[int, int], bytes]]:
        """A file of a job, and the function that reads a piece of it. Raises NotFound for any other file."""
        with self._lock:
            history = self._looked()
            record = self._record(history, job_id)
            given, made = self._files(history, record)
            store = self._project.engine.store
        found = next((file for file in (*given, *made) if file.key == key), None)
        if found is None:
            raise NotFound
        return found, lambda start, length: store.read(key, start, length)

    def report(self) -> bytes:
        """The run's report, which is there once it has ended. Raises NotFound before that."""
        with self._lock:
            history, store = self._looked(), self._project.engine.store
        try:
            return store.read(history.paths.root + REPORT)
        except KeyMissing as error:
            raise NotFound from error

    def stop(self, *, now: bool) -> str:
        """Tell the workers to stop. Returns at once, as they do."""
        self._opened().engine.stop(now=now)
        self.look_again()
        return "running jobs go back to the queue" if now else "no new jobs start; running ones finish"

    def retry(self, cause: str, example: str) -> str:
        """Put the dead jobs of a group of failures back. Raises NotFound where there is no such group."""
        with self._lock:
            ids = self._group_ids(self._looked(), cause, example)
        return self._put_back(ids)

    def retry_job(self, job_id: str) -> str:
        """Put one dead job back. Raises NotFound where there is no such job."""
        with self._lock:
            record = self._record(self._looked(), job_id)
        return self._put_back(frozenset([record.id]))

    def _put_back(self, ids: frozenset[str]) -> str:
        from ..steps.retry import retry

        back = retry(self._opened(), (), ids)
        self.look_again()
        with self._lock:
            runs = self._alive().any
        after = "" if runs or not back else "; no worker is running: ds start, then ds monitor"
        return f"{many(len(back), 'job')} put back{after}"

    def _group_ids(self, history: History, cause: str, example: str) -> frozenset[str]:
        for group in self._grouped(history):
            if (group.cause, group.example) == (cause, example) and group.ids:
                return frozenset(group.ids)
        raise NotFound

    def look_again(self) -> None:
        """Have the next request look at the run, however short ago the last look was."""
        with self._lock:
            self._next_look = 0.0

    def _alive(self) -> Alive:
        return Alive(any=False) if self._snapshot is None else Alive.of(self._snapshot.machines)

    def _record(self, history: History, job_id: str) -> JobRecord:
        record = history.jobs.get(job_id)
        if record is None:
            raise NotFound
        return record

    def _files(self, history: History, record: JobRecord) -> tuple[list[StoredFile], list[StoredFile]]:
        store, config = self._project.engine.store, self._project.config
        body = _keys(history, record)
        group = body.get("group")
        keys = {**body, **group} if isinstance(group, dict) else body
        return files.inputs(store, config, keys, record), files.outputs(store, record)

    def _select(self, history: History, wanted: Wanted, *, alive: Alive) -> list[JobRecord]:
        key = (history.version, alive, wanted)
        if self._selected is None or self._selected[0] != key:
            among = self._group_ids(history, wanted.cause, wanted.said) if wanted.said else None
            self._selected = (key, select(history, wanted, among, alive=alive))
        return self._selected[1]

    def _grouped(self, history: History) -> list[FailureGroup]:
        if self._groups is None or self._groups[0] != history.version:
            store, known = self._project.engine.store, len(self._said)
            groups = group_failures(store, history.paths, history.jobs.values(), self._said, READ_MOST)
            more = len(self._said) - known == READ_MOST
            self._groups = (-1 if more else history.version, groups)
        return self._groups[1]

    def _looked(self) -> History:
        self._look()
        if self._history is None:
            raise self._trouble or DsError("there is no run yet", "ds run files/exampleJob.json")
        return self._history

    def _look(self) -> None:
        """Bring everything up to date, unless that was done a moment ago."""
        began = time.monotonic()
        if began < self._next_look:
            return
        try:
            history = None if self._reopened() else self._history
            run = self._project.paths()
            if history is None or history.paths != run:
                history = History(self._project.engine.store, run)
            self._snapshot = self._project.snapshot(history)
            if history is not self._history:
                self._history = history
                self._said, self._groups, self._selected = {}, None, None
            self._looked_at = self._project.clock.now()
            self._reported = self._snapshot.state == "finished" and self._has_report(run)
            self._trouble = None
        except DsError as error:
            self._trouble = error
        cost = time.monotonic() - began
        least, most = LOOK_SECONDS
        pause = min(max(self._project.engine.poll_interval, cost / LOOKING_SHARE, least), most)
        self._next_look = time.monotonic() + pause * 0.9  # a page that asks every second is not kept waiting

    def _has_report(self, run: RunPaths) -> bool:
        key = run.root + REPORT
        return any(file.key == key for file in islice(self._project.engine.store.list(key), 1))

    def _reopened(self) -> bool:
        """Open the project anew where it has changed, or the last look failed: what was open may be gone."""
        stamp = self._stamps()
        if stamp == self._stamp and self._trouble is None:
            return False
        self._project = self._opened()
        self._stamp = stamp
        return True

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        """What tells that the project was set up or cleaned up since."""
        folder = self._project.folder
        return tuple(map(_stamp, (self._project.record_path, folder / "config.py", folder / "config.toml")))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _keys(history: History, record: JobRecord) -> dict[str, Any]:
    """A job's body; empty where it is not listed."""
    try:
        found = json.loads(history.bodies.get(record.id, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
