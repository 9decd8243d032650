"""The auto-monitor: watches a run as `ds monitor` does, from inside AWS, one look a call.

A schedule calls `handler` once a minute. The store has all that a call needs: config, run record and the
latest looks. Calls in one process share what they know of AWS, and decide the same without it. The code that
decides is that of `ds monitor`, and both may watch one run together. A failed call changes nothing for the
next.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, NamedTuple

from .aws.engine import AwsEngine
from .aws.watch.schedule import Order, delete_schedule, memory_key
from .clock import Clock, SystemClock
from .console import Console
from .engine import Store
from .errors import DsError, KeyMissing
from .inputs.config import Config
from .ledger import RunPaths
from .ledger.live import LiveFold
from .notify.notifier import Notifier
from .runs.record import record_key, record_path
from .runs.runfile import read_run_file
from .s3.plain_store import PlainStore
from .s3.session import AwsSession, QueueGone
from .scaling import Finish, GiveUp, Load, Look
from .steps.project import Project
from .steps.watch.collect import begin_collecting
from .steps.watch.finish import end
from .steps.watch.monitor import Memory, Watch

APART_SECONDS = 45.0  # shortest time between two looks that both count, in seconds
FRESH_SECONDS = 900.0  # age in seconds from which on a remembered look no longer counts

WATCHING, LOOKED = "watching", "looked already"


KEPT = 8  # most runs that a process keeps in memory


def handler(event: Mapping[str, Any], _context: object) -> str:
    """Looks once at the run that the event names. Returns the outcome in a word. The schedule calls it.

    Prints a DsError and raises it again, so that the account's metrics count the call as failed.
    """
    console = Console(yes=True, out=sys.stderr)
    try:
        order = Order.of(event)
        return _monitor(order.region).look(order, console)
    except DsError as error:
        console.error(error)
        raise


@cache
def _monitor(region: str) -> AutoMonitor:
    """Returns the auto-monitor of a region. Calls in one process share it: new clients take a second."""
    return AutoMonitor(AwsSession(region), SystemClock(), Path(mkdtemp()))


class _Kept(NamedTuple):
    """Engine and config of a run that was looked at before."""

    engine: AwsEngine
    config: Config


class AutoMonitor:
    """Looks at runs. Asks only once for facts of a run that cannot change, such as its queues.

    Those facts are kept until a look fails. A new AutoMonitor decides the same, with more calls. `folder` is
    for copies of the run records.
    """

    def __init__(self, session: AwsSession, clock: Clock, folder: Path) -> None:
        self._session = session
        self._clock = clock
        self._folder = folder
        self._kept: dict[Order, _Kept] = {}

    def look(self, order: Order, console: Console) -> str:
        """Look once, and act: "watching", "finished", "over", "given up" or "looked already".

        At the end it removes everything that the run made, and the schedule last. If something is left, the
        schedule stays, and the next call tries again. Raises DsError.
        """
        known = order in self._kept
        try:
            return self._once(order, console)
        except QueueGone:
            if not known:
                raise
            return self._once(order, console)  # someone else has ended the run

    def _once(self, order: Order, console: Console) -> str:
        stays = False
        try:
            project = self._project(order, console)
            run = project.engine.current_run()
            said = self._look(project, order) if run == order.run else self._over(project, order, run)
            stays = said in (WATCHING, LOOKED)
        finally:
            if not stays:
                self._forget(order)
        return said

    def _project(self, order: Order, console: Console) -> Project:
        """Returns the run's project from config and record in the store."""
        store, paths = PlainStore(order.bucket, session=self._session), RunPaths(order.app, order.run)
        config = read_run_file(store, order.app, order.run).config._replace(aws_profile="")
        folder = self._folder_of(order)
        kept = self._kept.get(order)
        if kept is None or kept.config != config:
            self._forget(order)
            if len(self._kept) >= KEPT:
                self._forget(next(iter(self._kept)))
            engine = AwsEngine(folder, config, self._clock, session=self._session, store=PlainStore)
            kept = self._kept[order] = _Kept(engine, config)
        with suppress(KeyMissing):  # fleets are then found by their tags
            record = store.read(record_key(paths))
            path = record_path(folder, order.app)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record)
        return Project(folder, config, console, self._clock, engine=kept.engine)

    def _folder_of(self, order: Order) -> Path:
        return self._folder / f"{order.app}-{order.run}"

    def _forget(self, order: Order) -> None:
        self._kept.pop(order, None)
        rmtree(self._folder_of(order), ignore_errors=True)

    def _over(self, project: Project, order: Order, run: str | None) -> str:
        """Ends the watching of a run whose queue is gone or now belongs to another run."""
        left = project.engine.remove() if run is None else ()
        for each in left:
            project.console.say(f"still there: {each}")
        if not left:
            delete_schedule(self._session, order.app, order.run)
        return "over"

    def _look(self, project: Project, order: Order) -> str:
        store, key = project.engine.store, memory_key(RunPaths(order.app, order.run))
        now = self._clock.now()
        memory, at, known = _remembered(store, key)
        if now - at < APART_SECONDS:
            return LOOKED
        fold = LiveFold(store, RunPaths(order.app, order.run), known)
        watch = Watch(project, memory=memory if now - at < FRESH_SECONDS else None, patience=1, fold=fold)
        with project.console.watch() as watcher:
            action = watch.look(watcher)
        notifier = Notifier(project.config, store, fold.paths, project.console.say, waits=True)
        notifier.look(watch.snapshot, watch.moved, now)
        store.write(key, _written(watch.memory, now, fold.memory))
        if action is not None or not watch.running:  # another run may have been set up meanwhile
            run = self._kept[order].engine.asked_run()
            if run != order.run:
                return self._over(project, order, run)
        if isinstance(action, Finish) and begin_collecting(project):
            watch.forget()
            store.write(key, _written(watch.memory, now, fold.memory))
            return WATCHING
        if isinstance(action, Finish):
            end(project, project.fold())
            notifier.end(watch.snapshot)
            return "finished"
        if isinstance(action, GiveUp):
            what = f"{watch.open_jobs:,} jobs are left, and the machines have ended: {action.why}"
            project.console.say(f"{what}; {action.fix}")
            notifier.end(watch.snapshot, what)
            delete_schedule(self._session, order.app, order.run)
            return "given up"
        return WATCHING


def _written(memory: Memory, at: float, ledger: Mapping[str, Any]) -> bytes:
    return json.dumps({"at": at, "looks": memory.looks, "loads": memory.loads, "ledger": ledger}).encode()


def _remembered(store: Store, key: str) -> tuple[Memory, float, object]:
    """Returns what the latest looks saw, when, and what they read of the ledger; nothing if unreadable."""
    try:
        found = json.loads(store.read(key))
        looks = tuple(Look(*each) for each in found["looks"])
        memory = Memory(looks, tuple(Load(*each) for each in found["loads"]))
        return memory, float(found["at"]), found.get("ledger")
    except (KeyMissing, ValueError, TypeError, KeyError):
        return Memory(), 0.0, None
