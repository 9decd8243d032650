"""Looks at the run for all requests of the page, and returns its parts as JSON values. `server` calls it."""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..engine import Renting, StoredFile
from ..errors import DsError, KeyMissing
from ..inputs.checks.preview import Previewer
from ..job import Job
from ..ledger import Fold, JobRecord, RunPaths
from ..ledger.keyed import key_names, parsed
from ..ledger.selection import Wanted, indexes, records_at
from ..report.alike import telling_line
from ..report.build import REPORT
from ..report.failures import FailureGroup, group_failures
from ..runs.following import Follower
from ..runs.joblog import begin_of, read_log
from ..runs.jobtable import cells
from ..runs.snapshot import Alive, Snapshot
from ..steps.look.jobs import left_dead, line_of, made_in, with_bodies
from ..steps.project import Project
from ..steps.watch.limits import too_many_dead
from ..system.state import state_folder
from . import files, show
from .pictures import Thumbnails, latest
from .select import Asked, select
from .story import Around, Earlier, story
from .timeline import timeline

LOOK_SECONDS = (1.0, 15.0)
"""Shortest and longest pause between two looks, in seconds; longer if a look is slow."""

LOOKING_SHARE = 0.1  # largest share of its time that the server spends on looking
LOG_BYTES = 256 << 10  # largest piece of a log that a job's page shows at first, in bytes
GROUPS = 100  # most groups of failures on the page
READ_MOST = 2000  # most logs of failed jobs read for one request; the next request reads on
DRAW_SECONDS = 4.0  # least time between two drawings of the timeline, in seconds
EARLIER_SECONDS = 30.0  # time between two looks at the run before, in seconds
CSV_JOBS = 5000  # number of jobs in a piece of a CSV file


class _Selected(NamedTuple):
    """The latest selection, and until when it may be shown although jobs have ended since."""

    asked: tuple[Asked, Alive]
    version: tuple[int, int]
    until: float
    found: Sequence[int]


class NotFound(Exception):
    """The run has no such job, attempt or file."""


class Model:
    """The run as the page shows it. All requests share one look at a time. Thread-safe.

    `opened` opens the project again after a set-up or clean-up: removed files must not stay open. `past`: it
    looks at an earlier run.
    """

    def __init__(self, opened: Callable[[], Project], *, past: bool = False) -> None:
        self._opened = opened
        self._past = past
        self._lock = threading.RLock()
        self._project = opened()
        self._stamp = self._stamps()
        self._fold: Fold | None = None
        self._snapshot: Snapshot | None = None
        self._problem: DsError | None = None
        self._follower: Follower | None = None
        self._reported = False
        self._next_look = self._looked_at = 0.0
        self._said: dict[tuple[str, float | None], tuple[str, str]] = {}
        self._groups: tuple[tuple[int, int] | None, list[FailureGroup]] | None = None
        self._selected: _Selected | None = None
        self._drawn: tuple[float, dict[str, Any]] = (0.0, {})
        self._listed: dict[tuple[str, float | None], list[StoredFile]] = {}
        self._earlier: tuple[float, Earlier | None] = (0.0, None)

    def overview(self) -> dict[str, Any]:
        """Returns status, figures, plots and machines."""
        with self._lock:
            self._look()
            problem = self._problem
            found: dict[str, Any] = {"error": {"what": problem.what, "fix": problem.fix} if problem else None}
            if self._snapshot is None or self._fold is None:
                return {**found, "app": self._project.config.app_name, "run": None}
            snapshot, fold = self._snapshot, self._fold
            failed = snapshot.jobs.dead + snapshot.jobs.failed
            groups = self._grouped(fold) if failed else []
            return {
                **found,
                **show.overview(snapshot, fold, self._looked_at),
                "story": story(snapshot, self._around(snapshot, fold, groups)),
                "report": self._reported,
            }

    def _around(self, snapshot: Snapshot, fold: Fold, groups: list[FailureGroup]) -> Around:
        project, earlier = self._project, self._left_dead(fold)
        if self._past:
            return Around(groups, earlier, past=True)
        rents, over, canary = project.config.engine_kind.rents, None, 0
        if snapshot.state != "finished":
            over = too_many_dead(project, snapshot, fold, self._said)
            with suppress(DsError):  # the record may be gone at any time
                canary = (project.config.canary or 0) if rents and project.record().held else 0
        return Around(groups, earlier, over, canary, rents)

    def timeline(self) -> dict[str, Any]:
        """Returns the attempts of the run by slot, and its latest pictures."""
        with self._lock:
            fold, snapshot = self._looked(), self._snapshot
            now = time.monotonic()
            if snapshot is None or (self._drawn[1] and now < self._drawn[0]):
                return self._drawn[1]
            # in full seconds, so that an unchanged run gives an unchanged answer
            drawn = {
                "timeline": timeline(fold, snapshot.machines, float(int(self._looked_at))),
                "pictures": latest(fold, self._project.engine.store, self._listed),
            }
            cost = time.monotonic() - now
            self._drawn = (now + max(cost / LOOKING_SHARE, DRAW_SECONDS), drawn)
            return drawn

    def thumbnail(self, job_id: str, key: str) -> tuple[bytes, str]:
        """Returns a small picture of a job's file, and its content type. Raises NotFound."""
        file, _ = self.file(job_id, key)
        folder = state_folder(self._project.folder, f"{self._project.config.app_name}.thumbs")
        found = Thumbnails(folder).make(file, self._project.engine.store)
        if found is None:
            raise NotFound
        return found

    def _left_dead(self, fold: Fold) -> Earlier | None:
        """Returns the jobs that the run before has left dead; looked for once a while."""
        now = time.monotonic()
        if now >= self._earlier[0]:
            found = None
            with suppress(DsError):  # it is only a notice
                found = left_dead(self._project, fold)
            self._earlier = (now + EARLIER_SECONDS, Earlier(*found) if found else None)
        return self._earlier[1]

    def jobs(self, given: Asked, page: int) -> dict[str, Any]:
        """Returns one page of the selected jobs, with a column for each of their keys."""
        with self._lock:
            fold = self._looked()
            alive = self._alive()
            found = self._select(fold, given, alive=alive)
            shown, page, pages = show.page_of(found, page)
            rows = records_at(fold, shown)
            bodies = fold.bodies(rows)
            names = key_names(bodies.values())[: show.KEY_COLUMNS]
            return {
                "total": len(found),
                "page": page,
                "pages": pages,
                "keys": names,
                "machines": sorted(filter(None, fold.done_by()))[: show.MACHINES],
                "rows": [show.row(each, parsed(bodies.get(each.id)), names, alive=alive) for each in rows],
            }

    def csv(self, given: Asked, ids: Collection[str]) -> Iterator[bytes]:
        """Yields the selected jobs (or those with these ids) as CSV, piece by piece."""
        with self._lock:
            fold, alive = self._looked(), self._alive()
            among = {*ids} or None
            found = indexes(fold, Wanted(), among) if among else self._select(fold, given, alive=alive)
            names = key_names(fold.bodies(records_at(fold, found[: show.PAGE_ROWS])).values())
        columns = [*show.CSV_COLUMNS, *(name for name in names if name not in show.CSV_COLUMNS)]
        yield show.csv_rows([columns])
        for start in range(0, len(found), CSV_JOBS):
            with self._lock:
                rows = records_at(fold, found[start : start + CSV_JOBS])
                bodies = fold.bodies(rows)
            yield show.csv_rows(
                cells(each, parsed(bodies.get(each.id)), columns, alive=alive) for each in rows
            )

    def ids(self, given: Asked) -> list[str]:
        """Returns the ids of all selected jobs."""
        with self._lock:
            fold = self._looked()
            found = self._select(fold, given, alive=self._alive())
            pages = (found[start : start + CSV_JOBS] for start in range(0, len(found), CSV_JOBS))
            return [each.id for page in pages for each in records_at(fold, page)]

    def failures(self) -> dict[str, Any]:
        """Returns the failures in groups, the largest first."""
        with self._lock:
            groups = self._grouped(self._looked())
            return {
                "groups": [show.group(found) for found in groups[:GROUPS]],
                "more": max(len(groups) - GROUPS, 0),
            }

    def job(self, job_id: str) -> dict[str, Any]:
        """Returns everything about one job."""
        with self._lock:
            fold = self._looked()
            record = self._record(fold, job_id)
            alive = self._alive()
            (_, body), *_ = with_bodies(fold, iter([record]))
            given, made = self._files(fold, record)
            return {
                "job": line_of(record, body or {}, alive=alive),
                "failed": record.failed,
                "attempts": show.attempts(fold, record, alive=alive),
                "inputs": [show.file(found) for found in given],
                "outputs": [show.file(found) for found in made],
                "output_at": self._project.engine.store.locate(record.output) if record.output else None,
                "command": self._command(fold, record),
                "made_in": made_in(self._project, record),
            }

    def _command(self, fold: Fold, record: JobRecord) -> str | None:
        """Returns the command of a job by the present config; None: the job does not fit it."""
        body = fold.bodies([record]).get(record.id)
        try:
            config = self._project.config
            return Previewer(config).show(Job(record.id, record.index, body)).command if body else None
        except (DsError, ValueError):
            return None

    def log(self, job_id: str, place: str, start: int) -> dict[str, Any]:
        """Returns the log of an attempt from byte `start` on; at first only its last LOG_BYTES.

        `next` is the byte to continue at; it never lies inside a character.
        """
        with self._lock:
            fold = self._looked()
            record = self._record(fold, job_id)
            places = [record.log, *(event.get("log") for event in fold.past(record))]
            full = next((known for known in places if known and begin_of(known) == begin_of(place)), None)
            if full is None:
                raise NotFound
            store, ended = self._project.engine.store, "+" in full.rpartition("@")[2]
            if not ended and isinstance(self._project.engine, Renting):
                self._follow(fold.paths, job_id)
        text = read_log(store, fold.paths, full, skip=start)
        skipped = 0 if start else max(len(text) - LOG_BYTES, 0)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        shown = decoder.decode(text[skipped:], final=ended)
        left = 0 if ended else len(decoder.getstate()[0])
        error = telling_line(shown) if ended and record.cause and full == record.log else ""
        read = {"text": shown, "next": start + len(text) - left, "skipped": skipped}
        return {**read, "ended": ended, "error": error}

    def _follow(self, paths: RunPaths, job_id: str) -> None:
        """Has the worker store the job's log as it is printed, while the page shows it."""
        if self._follower is None or self._follower.paths != paths:
            self._follower = Follower(self._project.engine.store, paths, self._project.clock)
        self._follower.ask(job_id)

    def file(self, job_id: str, key: str) -> tuple[StoredFile, Callable[[int, int], bytes]]:
        """Returns a file of a job, and a function that reads a piece of it. Raises NotFound."""
        with self._lock:
            fold = self._looked()
            record = self._record(fold, job_id)
            given, made = self._files(fold, record)
            store = self._project.engine.store
        found = next((file for file in (*given, *made) if file.key == key), None)
        if found is None:
            raise NotFound
        return found, lambda start, length: store.read(key, start, length)

    def report(self) -> bytes:
        """Returns the run's report. Raises NotFound until the run has ended."""
        with self._lock:
            fold, store = self._looked(), self._project.engine.store
        try:
            return store.read(fold.paths.root + REPORT)
        except KeyMissing as error:
            raise NotFound from error

    def group_ids(self, cause: str, example: str) -> frozenset[str]:
        """Returns the ids of a group of failures. Raises NotFound if there is no such group."""
        with self._lock:
            for group in self._grouped(self._looked()):
                if (group.cause, group.example) == (cause, example) and group.ids:
                    return frozenset(group.ids)
        raise NotFound

    def known(self, ids: Sequence[str]) -> list[str]:
        """Returns these ids. Raises NotFound if one of them is no job of the run."""
        with self._lock:
            fold = self._looked()
            return [self._record(fold, each).id for each in dict.fromkeys(ids)]

    def look_again(self) -> None:
        """Make the next request look at the run, however recent the last look is."""
        with self._lock:
            self._next_look = 0.0

    def _alive(self) -> Alive:
        return Alive(any=False) if self._snapshot is None else Alive.of(self._snapshot.machines)

    def _record(self, fold: Fold, job_id: str) -> JobRecord:
        record = fold.jobs.get(job_id)
        if record is None:
            raise NotFound
        return record

    def _files(self, fold: Fold, record: JobRecord) -> tuple[list[StoredFile], list[StoredFile]]:
        store, config = self._project.engine.store, self._project.config
        keys = parsed(fold.bodies([record]).get(record.id))
        return files.inputs(store, config, keys, record), [*chain(*files.outputs(store, record))]

    def _select(self, fold: Fold, given: Asked, *, alive: Alive) -> Sequence[int]:
        """Returns the indexes of the selected jobs. A costly selection is kept a while, though jobs end."""
        now, kept = time.monotonic(), self._selected
        if (
            kept is None
            or kept.asked != (given, alive)
            or (kept.version != fold.version and now >= kept.until)
        ):
            among = self.group_ids(given.wanted.cause, given.said) if given.said else None
            found = select(fold, given, among, alive=alive)
            until = now + (time.monotonic() - now) / LOOKING_SHARE
            self._selected = kept = _Selected((given, alive), fold.version, until, found)
        return kept.found

    def _grouped(self, fold: Fold) -> list[FailureGroup]:
        if self._groups is None or self._groups[0] != fold.version:
            store, known = self._project.engine.store, len(self._said)
            groups = group_failures(store, fold.paths, fold.failing(), self._said, READ_MOST)
            more = len(self._said) - known == READ_MOST
            self._groups = (None if more else fold.version, groups)
        return self._groups[1]

    def _looked(self) -> Fold:
        self._look()
        if self._fold is None:
            raise self._problem or DsError("there is no run yet", "ds run files/exampleJob.json")
        return self._fold

    def _look(self) -> None:
        """Look at the run, unless the last look is recent enough."""
        began = time.monotonic()
        if began < self._next_look:
            return
        try:
            fold = None if self._reopened() else self._fold
            run = self._project.paths()
            if fold is None or fold.paths != run:
                fold = self._project.fold()
            self._snapshot = self._project.snapshot(fold)
            if fold is not self._fold:
                self._fold = fold
                self._said, self._groups, self._selected = {}, None, None
                self._drawn, self._listed, self._earlier = (0.0, {}), {}, (0.0, None)
            self._looked_at = self._project.clock.now()
            self._reported = self._snapshot.state == "finished" and self._has_report(run)
            self._problem = None
        except DsError as error:
            self._problem = error
        cost = time.monotonic() - began
        least, most = LOOK_SECONDS
        pause = min(max(self._project.engine.poll_interval, cost / LOOKING_SHARE, least), most)
        self._next_look = time.monotonic() + pause * 0.9  # a request every second must not wait for each look

    def _has_report(self, run: RunPaths) -> bool:
        key = run.root + REPORT
        return any(file.key == key for file in islice(self._project.engine.store.list(key), 1))

    def _reopened(self) -> bool:
        """Open the project again if its files changed or the last look failed: open files may be gone."""
        stamp = self._stamps()
        if stamp == self._stamp and self._problem is None:
            return False
        self._project = self._opened()
        self._stamp = stamp
        return True

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        """Returns a value that changes with every set-up and clean-up."""
        folder = self._project.folder
        return tuple(map(_stamp, (self._project.record_path, folder / "config.py", folder / "config.toml")))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
