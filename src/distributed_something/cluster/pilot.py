"""The process of a pilot, on a node: it keeps workers running, and a head for the queue.

It ends when the queue has been empty for a while, when it is ordered to, or when its time is over. Then its
workers settle and give back what they hold, and its head hands over. Where its time was over and jobs are
left, it puts itself back into the scheduler's queue. A scheduler says how a pilot ends, and never how a job
did: leases and tokens do.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..background import complain
from ..budget import Budget, Over, Spent, judge
from ..clock import SystemClock
from ..engine import DAMAGED
from ..errors import DsError, SickMachine
from ..inputs.config import Config, load_config
from ..inputs.files import project_files
from ..inputs.secrets import read_secrets
from ..job import LEASE_SECONDS, Cause, Lease, Outcome, State
from ..ledger import LedgerWriter, RunPaths
from ..local.gathering import gathering
from ..local.place import container_engine, forking_store, need_image, open_store
from ..runs.record import budget_of, record_path
from ..runs.runfile import lends_gpus, read_run_file, run_file_key
from ..system.containers.docker import WORKER_LABEL, sweep
from ..system.hardware import Gpus, Lender, Share, find_gpus, share_variables
from ..system.state import STATE_VARIABLE, mark_of
from ..words import many
from ..worker.attempt.container import Containers, containers_of
from ..worker.attempt.process import adopt_orphans, kill_marked
from ..worker.attempt.scratch import remove_folder
from ..worker.attempt.slot import Slot
from ..worker.attempt.task import compile_task
from ..worker.crew import Crew, Signals
from ..worker.files.done import recipe_of
from ..worker.files.project import Carried, keep
from ..worker.gather import GatheringSlot
from ..worker.health import Health
from ..worker.loop import Identity, Stop, Worker
from .folder import AppFolder
from .lives import OwnLife, hours, lives
from .lost import give_back, prefix_of
from .own_folder import OwnFolder
from .pilots import capacity_of, gpus_of, slots_of
from .scheduler import Scheduler
from .shared.keeper import Keeper
from .shared.place import Look
from .shared.queue import SharedQueue
from .shared.replica import Room, Terms

LOOK_SECONDS = 1.0
IDLE_END_SECONDS = 30.0
"""With nothing left to do for this long, a pilot ends by itself."""

UNSURE_SECONDS = 1.5
"""After the notice, a job of which nothing says that it ends in time has this long."""

RESERVE_SECONDS = 15.0
"""Time that is left, after the last job has ended, to settle, to hand over and to be requeued."""

POLL_SECONDS = 1.0
"""How long an idle worker waits at the queue for a job. It takes no order meanwhile."""

TERMINATED_SECONDS = 1.5
"""A job has this long to finish after SIGTERM: a few clusters kill after 5 s."""

SIGNALS_APART_SECONDS = 0.5
"""A worker's signal may come this long after that of its job's process."""

OWN_STOP, NOW, NOTICE, ENDED = signal.SIGUSR2, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM


class Seat(NamedTuple):
    """Where a pilot runs, as its scheduler says: its id, the node, a folder for scratch folders."""

    pilot: str
    node: str
    scratch: Path
    notice: int
    """How long before the end of the pilot's time the scheduler says so, in seconds."""


class Pilot:
    """One pilot of a run."""

    def __init__(
        self, project: Path, config: Config, run: str, seat: Seat, scheduler: Scheduler, scratch: Path
    ) -> None:
        self.id = seat.pilot
        self._node = seat.node
        self._project = project
        self._config = config
        self._app = AppFolder(project, config.app_name, scheduler.name)
        self._place = self._app.place(run)
        self._folder = config.store_folder(project)
        self._store = forking_store(project, config, durable=True)
        self._paths = RunPaths(config.app_name, run)
        self._scratch = scratch
        self._root = config.scratch_root() or scratch / "work"
        self._clock = SystemClock()
        self._signals = Signals([OWN_STOP, NOW, NOTICE, ENDED])
        self._scheduler = scheduler
        terms = Terms(config.retry_policy, LEASE_SECONDS)
        self._keeper = Keeper(self._place, terms, self._clock, scratch)
        self._crew = Crew(
            self._make_worker,
            {order: partial(self._stop_of, order, seat.notice) for order in (OWN_STOP, NOW, NOTICE, ENDED)},
            self._root,
            self._clock,
            on_death=self._bury,
            strangers=lambda: [self._keeper.pid] if self._keeper.pid else [],
            prefix=prefix_of(self.id),
        )
        self._order: signal.Signals | None = None
        self._why = "drained"
        self._again = False
        self._owed: list[str] = []
        """Workers that have ended, and whose leases are to be given back."""
        self._empty_since: float | None = None
        self._carried = Carried()
        self._containers: Containers | None = None
        self._slots = slots_of(config)
        self._life: OwnLife | None = None

    def run(self) -> str:
        """Work until it is time to end; why it ended."""
        look = self._place.look()
        if not look.there or look.orders or self._has_nothing_left(look):
            return "there is nothing to do"
        self._life = OwnLife(self._place.folder, self.id, self._node, self._clock.now())
        self._owed.append(f"{prefix_of(self.id)}-")  # what an earlier life of this pilot left
        self._look()
        here = Path.cwd()
        self._carried = keep(self._store, self._paths, project_files(self._config, here), here)
        if self._config.shared_inputs:
            shared = read_run_file(self._store, *self._paths).shared
            self._carried = self._carried._replace(shared=shared)
        complain(f"pilot {self.id}: {many(self._slots, 'slot')}")
        self._prepare()
        if self._order is None:
            self._crew.start(self._slots)
        looked = self._clock.monotonic()
        while self._crew.runs:
            self._take_orders(LOOK_SECONDS)
            self._crew.tend()
            if self._crew.dying:
                self._give(NOW, "its workers end as soon as they start: see above")
            if (now := self._clock.monotonic()) - looked >= LOOK_SECONDS * 0.9:
                looked = now
                self._look()
        self._keeper.end()
        with suppress(OSError):  # the run may have been removed
            self._life.beat(self._clock.now(), over=True)
        if self._again:
            self._requeue()
        return self._why

    def _prepare(self) -> None:
        """Gives jobs their environment, and their image. While that fails, it pauses."""
        config, note = self._config, self._paths.paused + prefix_of(self.id)
        health = Health(self._store, note, run_file_key(*self._paths), self._folder, self.id)
        while self._order is None:
            try:
                config.shell(self._project).adopt(config.worker_environment())
                need_image(config, self._project, complain, prepared=True)
                engine = container_engine(config, self._project)
                bucket = self._folder if config.mount_bucket else None
                if engine is not None:
                    made = containers_of(config, engine, self._scratch, bucket)
                    self._containers = made._replace(limits=made.limits.of_slot(self._slots))
                break
            except DsError as failed:
                complain(f"pilot {self.id}: paused: {failed.what}")
                health.pause(SickMachine(failed.what), self._goes_on)
        health.close()

    def _goes_on(self) -> bool:
        """In a pause: takes orders and looks. Returns whether there is still something to wait for."""
        self._take_orders(LOOK_SECONDS)
        self._look()
        return self._order is None

    # orders

    def _take_orders(self, seconds: float) -> None:
        for number in self._signals.wait(seconds):
            self._hear(signal.Signals(number))

    def _hear(self, number: signal.Signals) -> None:
        if number == NOTICE:
            self._again = True
            self._give(NOTICE, "its time is over")
        elif number == ENDED:
            self._give(ENDED, "terminated")

    def _give(self, order: signal.Signals, why: str) -> None:
        """Pass an order on, unless a stricter one was given."""
        strictness = [OWN_STOP, NOTICE, ENDED, NOW]
        if self._order is None or strictness.index(order) > strictness.index(self._order):
            self._order, self._why = order, why
            complain(f"pilot {self.id}: {why}")
            self._crew.order(order)

    def _look(self) -> None:
        """See to the head, to orders in the folder, and to whether there is anything left to do."""
        try:
            look = self._place.look()
            if not look.there:
                self._give(NOW, "the run was removed")
            elif "damaged" in look.orders:
                self._give(NOW, DAMAGED)
            elif "stop-now" in look.orders:
                self._give(NOW, "stopped now")
            elif "stop" in look.orders:
                self._give(OWN_STOP, "stopped")
            elif self._app.is_over(self._config.max_run_hours, self._clock.now()):
                self._give(ENDED, f"MAX_RUN_HOURS = {self._config.max_run_hours:g} are over")
            if look.there and not self._is_drained(look):
                self._keeper.tend(look)
                self._give_back_owed(look)
            if look.there:
                self._hold_budget()
        except (DsError, OSError, ValueError) as error:  # the shared folder is away: the next look is better
            complain(f"pilot {self.id}: {error}")

    def _hold_budget(self) -> None:
        """Note that this pilot lives; where the run's pilots have spent BUDGET_HOURS, order all to drain."""
        if self._life is None or not self._life.beat(self._clock.now()):
            return
        limit = budget_of(self._config, record_path(self._project, self._config.app_name), self._paths.run)
        spent = Spent(hours=hours(lives(self._place.folder, self._place.files), self._clock.now()))
        if isinstance(verdict := judge(Budget(hours=limit.hours), spent), Over):
            complain(f"pilot {self.id}: {verdict.text}")
            self._place.order("stop")

    def _is_drained(self, look: Look) -> bool:
        """Whether no job is left; where that has been so for a while, the pilots end."""
        drained, now = self._has_nothing_left(look), self._clock.monotonic()
        if not drained:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        elif now - self._empty_since > IDLE_END_SECONDS and self._order is None:
            self._give(ENDED, "drained")
            self._scheduler.cancel(pending=True)
        return drained

    def _has_nothing_left(self, look: Look) -> bool:
        status = self._place.told(look)
        return status is not None and not sum(status["counts"][:3])

    # workers

    def _stop_of(self, order: signal.Signals, notice: int) -> Stop:
        """What a worker does about an order, in its own process."""
        self._order = order
        if order == NOTICE:
            grace = max(notice - RESERVE_SECONDS, notice / 3)
            return Stop(grace, "the pilot's time is over", UNSURE_SECONDS)
        grace_of = {OWN_STOP: None, NOW: 0.0, ENDED: TERMINATED_SECONDS}
        return Stop(grace_of[order], "stopped" if order == OWN_STOP else "terminated")

    def _make_worker(self, name: str, number: int) -> Worker:
        """Make a worker, in its own process."""
        config, paths = self._config, self._paths
        store = open_store(self._project, config, durable=True, say=complain)
        room = Room(f"{prefix_of(self.id)}-", capacity_of(config))
        queue = SharedQueue(self._place, name, is_ending=lambda: self._order is not None, room=room)
        own, slots = config.worker_environment(), self._slots
        share = Share(number, slots, config.gpus, config.gpus_shared)
        limits = share_variables(share, slots, find_gpus() if config.gpus else Gpus(), {**os.environ, **own})
        environment = {**limits, **own, STATE_VARIABLE: str(self._scratch)}
        image = self._containers.engine.digest(self._containers.image) if self._containers else None
        recipe = recipe_of(config, Path.cwd(), image or "", self._carried.files, shared=self._carried.shared)
        secrets = read_secrets(config, os.environ)
        python = config.shell(Path.cwd()).python()
        task = compile_task(config, environment, secrets, recipe=recipe, carried=self._carried, python=python)
        if gpus_of(config):
            packed = partial(lends_gpus, store, paths.app, paths.run, config.gpus)
            task = task._replace(gpus=Lender(share, self._scratch, packed))
        log, ledger = gathering(store, paths, name)
        marker = run_file_key(paths.app, paths.run)
        health = Health(store, paths.paused + name, marker, self._folder, self.id)
        slot = PilotSlot(
            task, store, self._root / f"slot-{number}", log, paths.run, name, health, self._containers
        )
        slot.is_ordered = lambda: self._order is not None
        return Worker(
            queue,
            [slot],
            ledger,
            Identity(name, self.id),
            config.retry_policy,
            HeadTime(queue),
            term=LEASE_SECONDS,
            delays=[number * config.seconds_to_start],
            poll=POLL_SECONDS,
            health=health,
        )

    def _bury(self, name: str) -> None:
        """Note that a worker has ended: its leases are given back at the next look."""
        if self._containers is not None:
            sweep(WORKER_LABEL, name)
        self._owed.append(name)

    def _give_back_owed(self, look: Look) -> None:
        """Give back at once what workers of this pilot held that have ended. Only while there is a head."""
        if not self._owed or look.headless:
            return
        queue = SharedQueue(self._place, f"keeper-{self.id}", patience=2.0)
        owned = [owner for owner in queue.owners() if any(owner.startswith(name) for name in self._owed)]
        lost = [owner for owner in owned if owner not in self._crew.pids]
        segment = f"{self._paths.events}{prefix_of(self.id)}-{os.urandom(4).hex()}.jsonl"
        give_back(lost, queue, LedgerWriter(self._store, segment), self._clock.now())
        self._owed.clear()

    # the end

    def _requeue(self) -> None:
        """Go on later, with the same id, while jobs are left; the scheduler ends this process then."""
        look = self._place.look()
        if not look.there or look.orders or self._has_nothing_left(look):
            return
        if self._app.is_over(self._config.max_run_hours, self._clock.now()):
            return
        try:
            self._scheduler.requeue(self.id)
        except DsError as error:
            complain(f"pilot {self.id}: not requeued: {error.what}")
            return
        complain(f"pilot {self.id}: requeued")
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:  # it sends SIGTERM, and starts us again later
            if ENDED in self._signals.wait(1.0):
                return


class PilotSlot(GatheringSlot):
    """A slot in a pilot. Slurm ends a pilot by a signal to all of its processes, the jobs' own among them."""

    is_ordered: Callable[[], bool] = staticmethod(lambda: False)
    """Whether this worker has an order to stop."""

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """One attempt; one that was ended together with its worker is interrupted, and did not fail."""
        outcome = super().run(lease, takes_long)
        by_signal = outcome.cause is Cause.SIGNAL or outcome.exit_code == 128 + signal.SIGTERM
        if outcome.state is State.WAITING and by_signal and self._is_ordered_soon():
            return outcome._replace(cause=Cause.INTERRUPTED, detail="the pilot was ended")
        return outcome

    def _is_ordered_soon(self) -> bool:
        deadline = time.monotonic() + SIGNALS_APART_SECONDS
        while not self.is_ordered() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.is_ordered()


class HeadTime(SystemClock):
    """This node's clock, corrected by the head's where the two are minutes apart: the ledger is in order."""

    def __init__(self, queue: SharedQueue) -> None:
        self._queue = queue

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return super().now() + self._queue.shift


def work(project: Path, run: str, seat: Seat, scheduler_of: Callable[[Path, Config], Scheduler]) -> int:
    """Runs a pilot in this process. Returns the exit code."""
    os.chdir(project)
    adopt_orphans()
    try:
        config = load_config(project)
        scheduler = scheduler_of(project, config)
        config = config._replace(engine=scheduler.name)  # the command may have named another one
        scratch = OwnFolder(f"ds-{config.app_name}-", seat.scratch)
        pilot = Pilot(project, config, run, seat, scheduler, scratch.path)
        complain(f"pilot {pilot.id} on {os.uname().nodename} for run {run}")
        complain(f"pilot {pilot.id} ended: {pilot.run()}")
        kill_marked(mark_of(scratch.path))
        remove_folder(scratch.path)
    except (DsError, OSError) as error:
        complain(f"pilot: {error}")
        return 1
    return 0
