"""The auto-monitor: `ds monitor` without a laptop, one look each time a schedule calls it.

A call keeps nothing in its process. What it needs of the run lies in the store: the config, the run record,
and what the latest looks saw. It decides as `ds monitor` does, by the same code, and the two may watch one
run together. A call that fails changes nothing for the next, a minute later.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..clock import Clock, SystemClock
from ..console import Console
from ..engine import Store
from ..errors import DsError, KeyMissing
from ..ledger import RunPaths
from ..monitoring import Memory, Watch
from ..project import Project
from ..record import record_key, record_path
from ..runfile import read_run_file
from ..scaling import Finish, GiveUp, Load, Look
from ..steps import end
from .engine import AwsEngine
from .plain_store import PlainStore
from .schedule import Order, delete_schedule, memory_key
from .session import AwsSession

APART_SECONDS = 45.0
"""Looks that follow each other faster say the same thing twice: only one of them counts."""

FRESH_SECONDS = 900.0
"""Looks that were so long ago do not agree with those of now."""


def handler(event: Mapping[str, Any], _context: object) -> str:
    """What the schedule calls: one look at the run that the event names; what came of it, in a word.

    Raises DsError, after it was printed, so that the account's figures count the call as failed.
    """
    console = Console(yes=True, out=sys.stderr)
    try:
        order = Order.of(event)
        return look(order, SystemClock(), console, _session(order.region))
    except DsError as error:
        console.error(error)
        raise


@cache
def _session(region: str) -> AwsSession:
    """Clients take a second to make: calls that share a process share them, and nothing else."""
    return AwsSession(region)


def look(order: Order, clock: Clock, console: Console, session: AwsSession) -> str:
    """Look once, and do what is to be done: "watching", "finished", "over", "given up" or "looked already".

    At the end everything that the run made is removed, and at last the schedule; where something is left,
    the schedule stays, and the next call tries again. Raises DsError.
    """
    with TemporaryDirectory() as folder:
        project = _project(order, Path(folder), clock, console, session)
        run = project.engine.current_run()
        if run == order.run:
            return _look(project, order, session)
        left = project.engine.remove() if run is None else ()
        for each in left:
            console.say(f"still there: {each}")
        if not left:
            delete_schedule(session, order.app, order.run)
        return "over"


def _project(order: Order, folder: Path, clock: Clock, console: Console, session: AwsSession) -> Project:
    """The run's project as the store has it: config and record, and nothing else of the folder."""
    store, paths = PlainStore(order.bucket, session=session), RunPaths(order.app, order.run)
    config = read_run_file(store, order.app, order.run).config._replace(aws_profile="")
    project = Project(folder, config, console, clock)
    project.engine = AwsEngine(folder, config, clock, session=session, store=PlainStore)
    try:
        record = store.read(record_key(paths))
    except KeyMissing:
        return project  # fleets are found by their tags
    path = record_path(folder, order.app)
    path.parent.mkdir()
    path.write_bytes(record)
    return project


def _look(project: Project, order: Order, session: AwsSession) -> str:
    store, key = project.engine.store, memory_key(RunPaths(order.app, order.run))
    now = project.clock.now()
    memory, at = _remembered(store, key)
    if now - at < APART_SECONDS:
        return "looked already"
    watch = Watch(project, memory=memory if now - at < FRESH_SECONDS else None, patience=1)
    with project.console.watch() as watcher:
        action = watch.look(watcher)
    store.write(key, _written(watch.memory, now))
    if isinstance(action, Finish):
        end(project, watch.fold)
        return "finished"
    if isinstance(action, GiveUp):
        project.console.say(f"{watch.open_jobs:,} jobs are left, and the machines have ended: {action.why}")
        delete_schedule(session, order.app, order.run)
        return "given up"
    return "watching"


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
