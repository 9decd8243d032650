"""The engine of pilots, with any scheduler: its queue lies in the project's folder, which nodes share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from ..budget import Quote
from ..clock import Clock
from ..engine import (
    DAMAGED,
    Counts,
    Diagnosis,
    Engine,
    KnownJob,
    Machines,
    RentedMachine,
    Renting,
    Repairing,
)
from ..errors import DsError, QueueDamaged, Unreachable
from ..inputs.config import Config
from ..inputs.secrets import read_secrets
from ..job import LEASE_SECONDS, Needs
from ..ledger import LedgerWriter, RunPaths
from ..local.place import check_server, end_uploads, need_image, open_store
from ..packing import Capacity
from ..runs.record import excluded_of, record_path
from ..system.mounts import file_system
from ..system.state import one_run
from ..words import many
from . import pilots
from .explain import details, why_pending
from .folder import TWO_WINNERS, AppFolder, two_winners
from .lives import Life, hours, lives
from .lost import give_back, pilot_of
from .pilots import Pilot
from .scheduler import Scheduler, await_end
from .shared.head import rebuild
from .shared.queue import CommandQueue
from .shared.replica import Replica, Terms

END_SECONDS = 90.0
"""Pilots have this long to end: SIGTERM, the cluster's KillWait (30 s as a rule), SIGKILL."""

LAST_LINES = 3


class PilotEngine:
    """Implements engine.Engine and engine.Renting with pilots. Between commands nothing of it runs here."""

    poll_interval = 2.0
    final_poll_interval = 0.2
    job_bytes = None
    tasks_per_machine = 1

    def __init__(
        self,
        project: Path,
        config: Config,
        clock: Clock,
        say: Callable[[str], None],
        scheduler: Scheduler,
    ) -> None:
        self.name = scheduler.name
        self._project = project
        self._config = config
        self._clock = clock
        self._say = say
        self._app = AppFolder(project, config.app_name, scheduler.name)
        self._scheduler = scheduler
        self._terms = Terms(config.retry_policy, LEASE_SECONDS)
        self._queue: CommandQueue | None = None
        self.store = open_store(project, config, durable=True, say=say)

    # the queue

    def capacity(self) -> Capacity:
        """Returns what a pilot has for jobs."""
        return pilots.capacity_of(self._config)

    def current_run(self) -> str | None:
        """The run that was set up last."""
        return self._app.current_run()

    def plan(self, run: str) -> Sequence[str]:
        """The one step."""
        folder = self._app.place(run).folder
        return [f"keep queue {folder}" if self.current_run() == run else f"create queue {folder}"]

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """Make the run's folder. Pilots of an earlier run are ended, and its folder is removed."""
        if (kind := file_system(self._project)) in TWO_WINNERS:
            raise DsError(*two_winners(kind))
        self._config.shell(self._project).make(self._say)
        need_image(self._config, self._project, self._say)
        earlier = self.current_run()
        if earlier == run:
            return
        check_server(self._config)
        self._app.make()
        if earlier is not None:
            self.end()
        place = self._app.place(run)
        new = not place.look().there
        place.make()
        if new:
            on_created(f"queue {place.folder}")
        self._app.set_current(run)
        if earlier is not None:
            shutil.rmtree(self._app.place(earlier).folder, ignore_errors=True)

    def queue(self) -> CommandQueue:
        """The queue of the current run."""
        run = self.current_run()
        if run is None:
            raise DsError(f"{self._config.app_name} has no queue: it is not set up", "ds setup")
        if self._queue is None:
            self._queue = CommandQueue(self._app.place(run), self._terms, self._clock)
        return self._queue

    # pilots

    def check_fleet(self, _fleet_file: Path) -> None:
        """Nothing of it is used here."""

    def quote(self, _fleet_file: Path | None) -> Quote:
        """What `start` asks for. A cluster's time has no price here."""
        return Quote(self._config.machines_wanted, pilots.slots_of(self._config), priced=False)

    def start(
        self,
        run: str,
        _fleet_file: Path | None,
        _on_created: Callable[[str], None],
        most: int | None = None,
    ) -> str:
        """Submit the pilots that the config wants; their ids. Raises DsError where the scheduler refuses."""
        self._config.shell(self._project).make(self._say)
        need_image(self._config, self._project, self._say)
        read_secrets(self._config, os.environ)
        self._app.make()
        self._app.place(run).withdraw_orders()
        self._app.note_start(self._clock.now())
        wanted = self._config.machines_wanted
        submitted = self._submit(run, wanted if most is None else min(most, wanted))
        return f"{self.name}-{'+'.join(submitted)}"

    def grow(self, target: int) -> None:
        """Submit as many pilots as are missing."""
        missing = target - len(self._pilots(fresh=True))
        if missing > 0 and (run := self.current_run()) is not None:
            self._submit(run, missing)

    def tried(self) -> Sequence[str]:
        """Pilots are of one kind."""
        return ()

    def exclude(self, hosts: Collection[str]) -> None:
        """Cancel the pilots on these nodes, and submit as many others."""
        there = [pilot.id for pilot in self._pilots(fresh=True) if pilot.running and pilot.node in hosts]
        if there and (run := self.current_run()) is not None:
            self._scheduler.cancel(there)
            self._submit(run, len(there))

    def _submit(self, run: str, count: int) -> Sequence[str]:
        bad = excluded_of(record_path(self._project, self._config.app_name), run)
        submitted = self._scheduler.submit(count, run, self._app.logs, bad)
        self._app.forget_pilots()
        return submitted

    def cancel(self, fleet: str) -> None:
        """Cancel the pilots of one start."""
        self._scheduler.cancel(fleet.removeprefix(f"{self.name}-").split("+"))
        self._app.forget_pilots()

    def shrink(self, target: int, spare: int, busy: Collection[str]) -> Sequence[str]:
        """Cancel pilots beyond `target` that have not started, then as many as `spare` that are idle."""
        known = self._pilots(fresh=True)
        working = {name.partition(" ")[0] for name in busy}
        pending = [pilot.id for pilot in known if not pilot.running][: max(len(known) - target, 0)]
        idle = [pilot.id for pilot in known if pilot.running and pilot.id not in working][:spare]
        if pending or idle:
            self._scheduler.cancel([*pending, *idle])
            self._app.forget_pilots()
        return idle

    def _pilots(self, *, fresh: bool = False) -> Sequence[Pilot]:
        """The pilots that have not ended, as squeue said a while ago (see AppFolder.pilots), or says now."""
        now, run = self._clock.now(), self.current_run()
        lived = self._lives(run) if run else []
        known: Sequence[Pilot] | None = None if fresh else self._app.pilots(now, lived)
        if known is None:
            try:
                known = self._scheduler.list()
            except Unreachable as silent:
                known = None if fresh else self._app.pilots_without_squeue(now, lived, silent.what)
                if known is None:
                    raise
            else:
                if self._app.folder.exists():
                    self._app.note_pilots(known, now, lived)
        return known

    def machines(self) -> Machines:
        """Pilots as machines: those that run, and those that wait."""
        run = self.current_run()
        if run is None or self._app.started() is None:
            return Machines()
        known, now = self._pilots(), self._clock.now()
        running = [pilot for pilot in known if pilot.running]
        waiting, lived = why_pending(known, now, self._scheduler.waiting), self._lives(run)
        stuck = all(pilot.silent for pilot in running)
        return Machines(
            target=len(known),
            running=len(running),
            slots=len(running) * pilots.slots_of(self._config),
            draining=bool(running) and bool(self._app.place(run).look().orders),
            ended=None if known else self._why_ended(run),
            diagnosis=Diagnosis(waiting.why, waiting.fix, waiting.for_ever) if waiting and stuck else None,
            replaces_lost=True,
            details=(*details(known, now, waiting), *self._silence()),
            hours=hours(lived, now),
            rented=tuple(_machines(running, lived)),
            needs=tuple((Needs(*each), count) for each, count in (self._status() or {}).get("needs", ())),
        )

    def _status(self) -> dict[str, Any] | None:
        return self._app.place(self.current_run() or "").told()

    def _silence(self) -> Iterator[tuple[str, str]]:
        if silent := self._app.silent():
            yield self._scheduler.title, silent

    def _lives(self, run: str) -> list[Life]:
        place = self._app.place(run)
        return lives(place.folder, place.files)

    def _why_ended(self, run: str) -> str:
        """Why no pilot is left."""
        place = self._app.place(run)
        look = place.look()
        if look.orders:
            return DAMAGED if "damaged" in look.orders else "stopped"
        if self._app.is_over(self._config.max_run_hours, self._clock.now()):
            return f"MAX_RUN_HOURS = {self._config.max_run_hours:g} are over"
        status = place.told(look)
        if status is not None and not sum(status["counts"][:3]):
            return "drained"
        return f"all pilots have ended{self._last_words()}"

    def _last_words(self) -> str:
        """What the latest pilot printed last, and where the rest is."""
        logs = sorted(self._app.logs.glob("*.log"), key=lambda log: log.stat().st_mtime)
        if not logs:
            return f", and none has printed anything: do the nodes have {self._project}, and Python there?"
        lines = [line for line in logs[-1].read_text(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1][:200]} (see {logs[-1]})" if lines else f" (see {logs[-1]})"

    def explain(self, counts: Counts) -> str | None:
        """Why no job runs although some wait."""
        machines = self.machines()
        if machines.diagnosis:
            return ": ".join(filter(None, machines.diagnosis[:2]))
        if not machines.running:
            return f"no pilots are there{f' ({machines.ended})' if machines.ended else ''}: ds start"
        whole, status = self.capacity().whole, self._status()
        if counts.waiting and machines.needs and not any(each.fit(whole) for each, _ in machines.needs):
            return f"no waiting job fits a pilot: it has {whole}"
        return counts.explain_delay(status["next"] if status else None, self._clock.now())

    def guard(self) -> Sequence[str]:
        """Give back what workers of pilots hold that have ended; how many jobs, in words."""
        run = self.current_run()
        status = self._app.place(run).told() if run else None
        if run is None or not status or not status["owners"]:
            return ()
        there = {pilot.id for pilot in self._pilots()}
        if not there:
            return ()
        gone = [
            owner for owner in status["owners"] if (pilot_of(owner) or next(iter(there), "")) not in there
        ]
        if not gone:
            return ()
        name = f"{RunPaths(self._config.app_name, run).events}guard-{os.urandom(4).hex()}.jsonl"
        count = give_back(gone, self.queue(), LedgerWriter(self.store, name), self._clock.now())
        return [f"{many(count, 'job', 'was', 'were')} given back: their pilots have ended"] if count else ()

    # a damaged queue

    def damage(self) -> str:
        """Reads the whole log, and returns what is wrong with it."""
        try:
            with self._replica(self.current_run()) as replica:
                replica.catch_up(replica.place.look())
        except (QueueDamaged, Unreachable) as error:
            return error.what
        return ""

    def unlike(self, jobs: Iterable[KnownJob]) -> int:
        """Returns how many jobs are not in the queue as they are known; states count while no pilot runs."""
        alive = self._app.started() is not None and bool(self._pilots(fresh=True))
        with self._replica(self.current_run()) as replica:
            replica.catch_up(replica.place.look())
            return replica.queue.unlike(jobs, states=not alive)

    def rebuild(self, run: str, jobs: Iterable[KnownJob]) -> None:
        """Ends the pilots and makes the queue anew; the damaged log stays beside it until clean-up."""
        if left := self.end():
            raise DsError(f"pilots did not end within {END_SECONDS:.0f} s: {', '.join(left)}", "ds repair")
        with self._replica(run) as replica:
            rebuild(replica, jobs, self._terms, self._clock)

    def _replica(self, run: str | None) -> closing[Replica]:
        return closing(Replica(self._app.place(run or ""), self._terms))

    # the end

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the app for one `ds run` at a time. Raises DsError where another one is under way."""
        self._app.make()
        lock = self._app.folder / "lock"
        return one_run(lock, self._config.app_name, lambda: bool(self._pilots(fresh=True)), self.current_run)

    def stop(self, *, now: bool = False) -> None:
        """Leave an order in the folder, which pilots see within a second or two; cancel those that wait."""
        run = self.current_run()
        if run is None:
            return
        self._app.place(run).order("stop-now" if now else "stop")
        if self._app.started() is not None:
            self._scheduler.cancel(pending=True)
            self._app.forget_pilots()

    def end(self) -> Sequence[str]:
        """End all pilots and wait for it; those that are there still."""
        if self._app.started() is None:
            return ()
        left = self._scheduler.list()
        if left:
            self._scheduler.cancel()
            left = list(await_end(self._try_again, END_SECONDS, self._clock.wait))
        self._app.forget_pilots()
        return [f"pilot {pilot.id} ({pilot.state.lower()})" for pilot in left]

    def _try_again(self) -> Sequence[Pilot]:
        """The pilots that are there still; one that was just being requeued needs to be cancelled again."""
        left = self._scheduler.list()
        if any(pilot.state == "PENDING" for pilot in left):
            self._scheduler.cancel()
        return left

    def remove(self) -> Sequence[str]:
        """End the pilots and remove the app's folder; outputs, logs and ledger stay in the store."""
        left = [*self.end()]
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        if left:
            return left
        end_uploads(self._config, self._clock, self._say)
        shutil.rmtree(self._app.folder, ignore_errors=True)
        return [str(self._app.folder)] if self._app.folder.exists() else []


def _machines(running: Sequence[Pilot], lived: Sequence[Life]) -> Iterator[RentedMachine]:
    """Each pilot once, by its latest life: those that have ended, then those that run."""
    here, nodes = {pilot.id for pilot in running}, dict[str, tuple[tuple[float, str], ...]]()
    for life in sorted(lived):
        nodes[life.pilot] = (*nodes.get(life.pilot, ()), (life.start, life.node))
    for life in {life.pilot: life for life in sorted(lived)}.values():
        if life.pilot not in here:
            why = "ended" if life.over else "was killed"
            yield RentedMachine(
                life.pilot,
                False,
                life.node,
                life.start,
                life.latest,
                why,
                lost=not life.over,
                hosts=nodes[life.pilot],
            )
    for pilot in running:
        own = nodes.get(pilot.id) or ((pilot.start or 0.0, pilot.node),)
        yield RentedMachine(pilot.id, running=True, kind=pilot.node, since=pilot.start, hosts=own)


_KEEPS: tuple[type[Engine], type[Renting], type[Repairing]] = (PilotEngine, PilotEngine, PilotEngine)
"""For the type checker, as engines are loaded by name."""
