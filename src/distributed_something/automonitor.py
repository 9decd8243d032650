"""The auto-monitor: `ds monitor` without a laptop, one look each time a schedule calls it.

What it needs of the run lies in the store: the config, the run record, and what the latest looks saw. Calls
that share a process share what they have learnt of AWS, and decide the same without it. It decides as `ds
monitor` does, by the same code, and the two may watch one run together. A call that fails changes nothing
for the next, a minute later.
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
from .aws.s3.plain_store import PlainStore
from .aws.session import AwsSession, QueueGone
from .aws.watch.schedule import Order, delete_schedule, memory_key
from .clock import Clock, SystemClock
from .console import Console
from .engine import Store
from .errors import DsError, KeyMissing
from .inputs.config import Config
from .ledger import RunPaths
from .runs.record import record_key, record_path
from .runs.runfile import read_run_file
from .scaling import Finish, GiveUp, Load, Look
from .steps.finish import end
from .steps.monitor import Memory, Watch
from .steps.project import Project

APART_SECONDS = 45.0
"""Looks that follow each other faster say the same thing twice: only one of them counts."""

FRESH_SECONDS = 900.0
"""Looks that were so long ago do not agree with those of now."""

WATCHING, LOOKED = "watching", "looked already"


KEPT = 8
"""Runs of which a process keeps what it knows."""


def handler(event: Mapping[str, Any], _context: object) -> str:
    """What the schedule calls: one look at the run that the event names; what came of it, in a word.

    Raises DsError, after it was printed, so that the account's figures count the call as failed.
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
    """Clients take a second to make: calls that share a process share them."""
    return AutoMonitor(AwsSession(region), SystemClock(), Path(mkdtemp()))


class _Kept(NamedTuple):
    """What is known of a run."""

    engine: AwsEngine
    config: Config


class AutoMonitor:
    """Looks at runs. What cannot change of a run, such as where its queues are, it asks for once.

    It is kept by order, for as long as looks succeed: a new AutoMonitor decides the same, with more calls.
    `folder` is for the run records, all that there is of the runs' projects here.
    """

    def __init__(self, session: AwsSession, clock: Clock, folder: Path) -> None:
        self._session = session
        self._clock = clock
        self._folder = folder
        self._kept: dict[Order, _Kept] = {}

    def look(self, order: Order, console: Console) -> str:
        """Look once, and act: "watching", "finished", "over", "given up" or "looked already".

        At the end everything that the run made is removed, and at last the schedule; where something is left,
        the schedule stays, and the next call tries again. Raises DsError.
        """
        known = order in self._kept
        try:
            return self._once(order, console)
        except QueueGone:
            if not known:
                raise
            return self._once(order, console)  # somebody else has ended the run

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
        """The run's project as the store has it: config and record, and nothing else of its folder."""
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
        """The queue is gone, or of another run: nobody looks at this one any more."""
        left = project.engine.remove() if run is None else ()
        for each in left:
            project.console.say(f"still there: {each}")
        if not left:
            delete_schedule(self._session, order.app, order.run)
        return "over"

    def _look(self, project: Project, order: Order) -> str:
        store, key = project.engine.store, memory_key(RunPaths(order.app, order.run))
        now = self._clock.now()
        memory, at = _remembered(store, key)
        if now - at < APART_SECONDS:
            return LOOKED
        watch = Watch(project, memory=memory if now - at < FRESH_SECONDS else None, patience=1)
        with project.console.watch() as watcher:
            action = watch.look(watcher)
        store.write(key, _written(watch.memory, now))
        if action is not None or not watch.running:  # another may have been set up since we asked
            run = self._kept[order].engine.asked_run()
            if run != order.run:
                return self._over(project, order, run)
        if isinstance(action, Finish):
            end(project, watch.fold)
            return "finished"
        if isinstance(action, GiveUp):
            project.console.say(
                f"{watch.open_jobs:,} jobs are left, and the machines have ended: {action.why}"
            )
            delete_schedule(self._session, order.app, order.run)
            return "given up"
        return WATCHING


def _written(memory: Memory, at: float) -> bytes:
    return json.dumps({"at": at, "looks": memory.looks, "loads": memory.loads}).encode()


def _remembered(store: Store, key: str) -> tuple[Memory, float]:
    """What the latest looks saw, and when the last one was; nothing where that cannot be read."""
    try:
        found = json.loads(store.read(key))
        looks = tuple(Look(*each) for each in found["looks"])
        return Memory(looks, tuple(Load(*each) for each in found["loads"])), float(found["at"])
    except (KeyMissing, ValueError, TypeError, KeyError):
        return Memory(), 0.0
