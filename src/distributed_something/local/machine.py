"""Runs this computer as a machine of the fleet: a process that keeps the workers running.

`ds start` leaves it in the background. It forks one worker a slot, replaces a worker that dies, and removes
what that one left (processes, leases, folders). It ends the workers on an order, when the queue has been
empty for a while, and when MAX_RUN_HOURS are over. It holds a lock on `machine.lock` while it lives, and
writes its state to `machine.json`.

If this process itself is killed, the kernel signals its workers to stop. The next machine process removes
what they leave behind.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..background import READY, complain, log_to, refuse
from ..clock import SystemClock
from ..engine import DAMAGED, Store
from ..errors import DsError, QueueDamaged
from ..inputs.config import Config, load_config
from ..inputs.secrets import read_secrets
from ..job import LEASE_SECONDS, Cause, Outcome, State
from ..ledger import LedgerWriter, RunPaths
from ..runs.runfile import lends_gpus, read_run_file, run_file_key
from ..system.containers.docker import STATE_LABEL, WORKER_LABEL, sweep
from ..system.hardware import Lender, Share, variables_here
from ..system.state import STATE_VARIABLE, open_private
from ..worker.attempt.container import Containers, containers_of
from ..worker.attempt.logs import SlotLog
from ..worker.attempt.process import adopt_orphans, kill_marked
from ..worker.attempt.scratch import remove_folder
from ..worker.attempt.slot import Slot
from ..worker.attempt.task import compile_task
from ..worker.attempt.workplace import clear_remains
from ..worker.crew import Crew, Signals
from ..worker.files.done import recipe_of
from ..worker.files.project import Carried, prefix_of
from ..worker.health import Health
from ..worker.loop import Identity, Stop, Worker
from .place import Place, container_engine, forking_store, open_store, slots_of

IDLE_END_SECONDS = 30.0
"""Time without an open job, in seconds, after which the workers end by themselves."""

ORDERS = {
    signal.SIGUSR1: Stop(None, "stopped"),
    signal.SIGTERM: Stop(25.0, "terminated"),
    signal.SIGINT: Stop(0.0, "stopped now"),
}


class Machine:
    """The machine process of one run.

    It opens the queue only briefly: SQLite's locks do not survive a fork.
    """

    def __init__(self, place: Place, config: Config, store: Store, run: str, lock: int) -> None:
        self._signals = Signals(ORDERS)
        self._place = place
        self._config = config
        self._store = store
        self._paths = RunPaths(config.app_name, run)
        self._root = place.root(config)
        self._name = f"machine-{os.urandom(3).hex()}"
        self._owed: list[str] = []
        """Ended workers whose leases are not given back yet."""
        self._containers: Containers | None = None
        self._carried = Carried()
        self._stop: Stop | None = None
        self._clock = SystemClock()
        self._crew = Crew(
            self._make_worker,
            {order: partial(ORDERS.__getitem__, order) for order in ORDERS},
            self._root,
            self._clock,
            on_death=self._bury,
            in_child=partial(os.close, lock),
        )
        self._began = self._clock.now()
        self._up_since = self._clock.monotonic()
        self._empty_since: float | None = None
        self._ledger = LedgerWriter(store, f"{self._paths.events}{self._name}.jsonl")

    def start(self) -> None:
        """Removes what an earlier machine process left, and starts the workers."""
        self._write_status(None)  # from now on orders reach us
        self._clear_remains()
        self._config.shell(Path.cwd()).adopt(self._config.worker_environment())
        self._containers = _containers(self._place, Path.cwd(), self._config)  # the same for all workers
        if self._config.files or self._config.shared_inputs:
            facts = read_run_file(self._store, *self._paths)
            self._carried = Carried(facts.files, prefix_of(self._paths), facts.shared)
        self._crew.start(slots_of(self._config))
        if not self._crew.pids:
            raise DsError("the system has no room for one process more", "see `ulimit -u`, and `free -m`")
        self._tell()

    def run(self) -> str:
        """Keeps workers running until the end; returns why it ended."""
        while self._crew.runs:
            for order in self._signals.wait(1.0):
                self._order(order)
            if self._crew.tend():
                self._tell()
            if self._crew.damaged:
                self._give_up()
            self._check_hours()
            try:
                self._give_back_owed()
                self._check_idle()
            except QueueDamaged as error:
                complain(f"{self._name}: {error}")
                self._give_up()
            except (DsError, OSError) as error:  # disk full, say: what is left to do is done at a later turn
                complain(f"{self._name}: {error}")
        return self._stop.why if self._stop else "drained"

    def _clear_remains(self) -> None:
        """Removes what killed workers of an earlier machine process left."""
        kill_marked(self._place.mark)
        self._sweep(STATE_LABEL, str(self._place.folder))
        with self._place.open_queue(self._config) as queue:
            owners = queue.owners()
        for owner in owners:
            self._give_back(owner)
        clear_remains(self._root)
        remove_folder(self._place.work)

    def _sweep(self, label: str, value: str) -> None:
        if self._config.in_containers:
            sweep(label, value)

    def _give_back_owed(self) -> None:
        while self._owed:
            self._give_back(self._owed[0])
            del self._owed[0]

    def _give_back(self, owner: str) -> None:
        outcome = Outcome(State.WAITING, Cause.WORKER_LOST, f"its worker {owner} was killed")
        now = self._clock.now()  # before the next worker can have the job: the ledger's order is that of time
        with self._place.open_queue(self._config) as queue:
            leases = queue.release_owner(owner)
        for lease in leases:
            who = {"worker": owner, "machine": os.uname().nodename}
            self._ledger.ended("interrupted", now, lease, outcome, **who)
        with suppress(OSError):  # disk full: the next flush brings it
            self._ledger.flush()

    def _make_worker(self, name: str, number: int) -> Worker:
        """Make a worker, in its own process."""
        place, config, paths = self._place, self._config, self._paths
        store = open_store(Path.cwd(), config, say=complain)
        own = config.worker_environment()
        share = Share(number, slots_of(config), config.gpus, config.gpus_shared)
        environment = {**variables_here(share, own), **own, STATE_VARIABLE: str(place.folder)}
        image = ""
        if self._containers and config.output:
            image = self._containers.engine.digest(self._containers.image) or ""
        recipe = recipe_of(config, Path.cwd(), image, self._carried.files, shared=self._carried.shared)
        secrets = read_secrets(config, os.environ)
        python = config.shell(Path.cwd()).python()
        queue = place.open_queue(config, owner=name)
        packed = lambda: queue.packs and lends_gpus(store, paths.app, paths.run, config.gpus)  # noqa: E731
        gpus = Lender(share, place.folder, packed)
        task = compile_task(config, environment, secrets, recipe=recipe, carried=self._carried, python=python)
        task = task._replace(gpus=gpus)
        marker, kept = run_file_key(paths.app, paths.run), config.store_folder(Path.cwd())
        health = Health(store, paths.paused + name, marker, kept and kept / paths.root)
        folder = self._root / f"slot-{number}"
        if kept is None:
            from ..worker.gather import GatheringSlot
            from .gathering import gathering

            text, ledger = gathering(store, paths, name)
            slot: Slot = GatheringSlot(task, store, folder, text, paths.run, name, health, self._containers)
        else:
            ledger = LedgerWriter(store, f"{paths.events}{name}.jsonl")
            log = SlotLog(store, paths.logs, f"{name}.log")
            slot = Slot(task, store, folder, log, paths.run, name, self._containers, health=health)
        return Worker(
            queue,
            [slot],
            ledger,
            Identity(name, os.uname().nodename),
            config.retry_policy,
            SystemClock(),
            term=LEASE_SECONDS,
            delays=[number % (config.docker_cores or 1) * config.seconds_to_start],
            health=health,
        )

    def _bury(self, name: str) -> None:
        """Take away what a worker that has ended left: its containers, and its leases."""
        self._sweep(WORKER_LABEL, name)
        self._owed.append(name)
        try:
            self._give_back_owed()
        except (DsError, OSError) as error:
            complain(f"{self._name}: {error}")

    def _check_hours(self) -> None:
        """Ends the workers after MAX_RUN_HOURS. It does not ask the queue, which may be damaged."""
        hours = self._config.max_run_hours
        if self._stop is None and self._clock.monotonic() - self._up_since > hours * 3600:
            self._give_order(signal.SIGTERM, Stop(25.0, f"MAX_RUN_HOURS = {hours:g} are over"))

    def _check_idle(self) -> None:
        if self._stop is not None:
            return
        now = self._clock.monotonic()
        with self._place.open_queue(self._config) as queue:
            open_jobs = queue.counts().open
        if open_jobs:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        elif now - self._empty_since > IDLE_END_SECONDS:
            self._give_order(signal.SIGTERM, Stop(25.0, "drained"))

    def _give_up(self) -> None:
        """Has the workers end with their jobs, which only the ledger will know: the queue is damaged."""
        if self._stop is None:
            self._give_order(signal.SIGUSR1, Stop(None, DAMAGED))

    def _order(self, number: int) -> None:
        with suppress(ValueError):
            order = signal.Signals(number)
            if order in ORDERS:
                self._give_order(order, ORDERS[order])

    def _give_order(self, order: signal.Signals, stop: Stop) -> None:
        if self._stop is not None and _patience(stop) > _patience(self._stop):
            return  # an order to stop now stands
        self._stop = stop
        self._tell()
        self._crew.order(order)

    def _tell(self, ended: str | None = None) -> None:
        """Writes the state file if possible: the workers go on when the disk is full."""
        try:
            self._write_status(ended)
        except OSError as error:
            complain(f"{self._name}: {error}")

    def _write_status(self, ended: str | None) -> None:
        facts = {
            "pid": os.getpid(),
            "run": self._paths.run,
            "started": self._began,
            "slots": slots_of(self._config),
            "workers": self._crew.pids,
            "workers_lost": self._crew.lost,
            "dying": self._crew.dying,
            "stopping": self._stop.why if self._stop else None,
            "ended": ended,
        }
        temporary = self._place.status.with_suffix(".tmp")
        with open(temporary, "w", opener=open_private) as file:
            json.dump(facts, file)
        temporary.replace(self._place.status)

    def tell_end(self, why: str) -> None:
        """Writes why the process ended."""
        self._tell(ended=why)


def _patience(stop: Stop) -> float:
    return math.inf if stop.grace_seconds is None else stop.grace_seconds


def _containers(place: Place, project: Path, config: Config) -> Containers | None:
    """Returns how jobs run in containers here; None: as plain processes. Raises DsError."""
    engine = container_engine(config, project)
    if engine is None:
        return None
    bucket = config.store_folder(project) if config.mount_bucket else None
    return containers_of(config, engine, place.folder, bucket)


def main(project: str, folder: str, run: str, held: str) -> int:
    """The process that `ds start` leaves behind. Says "ready" or what is wrong on stdout, once.

    `held` is the descriptor of the lock, which `ds start` took: so no two machine processes ever meet.
    """
    place = Place(Path(folder))
    os.chdir(project)
    adopt_orphans()
    lock = int(held)
    os.set_inheritable(lock, False)
    caller = log_to(place.log)
    try:
        config = load_config(Path(project))
        machine = Machine(place, config, forking_store(Path(project), config), run, lock)
        machine.start()
    except (DsError, OSError) as error:
        return refuse(caller, error)
    os.write(caller, READY)
    os.close(caller)
    machine.tell_end(machine.run())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
