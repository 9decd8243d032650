"""Reads fleets, machines and tasks of a run (`Looker`), and says what they mean (pure functions).

It changes nothing. Called by the engine for `machines`, `explain` and `shrink`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..engine import Counts, Diagnosis, Machines, RentedMachine
from ..s3.session import AwsSession, aws_errors
from ..words import many
from .ec2.diagnosis import of_history, of_tasks
from .ec2.fleets import MACHINES_A_PAGE, Fleet, Fleets, Machine
from .ec2.shrinking import instances, located
from .ecs.current_state import describe_service

HISTORY_SECONDS = 1800  # age in seconds from which errors in a fleet's history are ignored

SILENT_SECONDS = 600.0
"""Age in seconds at which a machine should have a task. Joining the cluster takes about 3 minutes."""

_EVENTS = 10
_STOPPED = 10
_A_CALL = 100


class Facts(NamedTuple):
    """The result of one look. `service` is as ECS describes it; `stopped` has the reasons of ended tasks.

    `pages` counts the calls that listed the machines; 0: the list is of an earlier look.
    """

    fleets: Sequence[Fleet] = ()
    machines: Sequence[Machine] = ()
    service: Mapping[str, Any] | None = None
    diagnosis: Diagnosis | None = None
    stopped: Sequence[str] = ()
    pages: int = 0

    @property
    def target(self) -> int:
        """Machines that the fleets want."""
        return sum(fleet.target for fleet in self.fleets if fleet.alive)

    @property
    def running(self) -> int:
        """Machines that run or are starting."""
        return sum(machine.running for machine in self.machines)

    def tasks(self, what: str = "runningCount") -> int:
        """The service's running tasks, or another of its counts."""
        return int((self.service or {}).get(what, 0))


class Looker:
    """Reads a run's fleets and tasks: three calls a look if all is well, six at most.

    The machines of a large fleet fill several pages. A list of N pages serves N looks, and the look that
    reads it makes no other call: so calls a minute stay few, whatever the fleet's size.
    """

    def __init__(self, session: AwsSession, app: str, cluster: str) -> None:
        self._session = session
        self._app = app
        self._cluster = cluster
        self.fleets = Fleets(session)
        self._hosts: dict[str, str] = {}
        self._located: set[str] = set()
        self._last: Facts | None = None
        self._serves = 0

    def forget(self) -> None:
        """Reads the machines anew at the next look: they have been changed."""
        self._serves = 0

    def look(self, run: str, fleets: Collection[str], now: float) -> Facts:
        """Reads what exists now. Parts of a large fleet may be a few looks old."""
        known, last = self.fleets.recorded(fleets, self._app) if fleets else (), self._last
        if self._serves > 0 and last is not None:
            self._serves -= 1
            facts = self._rest(Facts(known, last.machines), now)
        else:
            machines = self.fleets.machines(self._app, run)
            pages = -(-len(machines) // MACHINES_A_PAGE)
            self._serves = pages - 1
            facts = Facts(known, machines, pages=pages)
            if pages <= 1 or last is None:
                facts = self._rest(facts, now)
            else:
                facts = facts._replace(service=last.service, diagnosis=last.diagnosis, stopped=last.stopped)
        self._last = facts
        return facts

    def _rest(self, facts: Facts, now: float) -> Facts:
        """Adds the service, and the diagnosis if machines or tasks are missing."""
        with aws_errors(f"looking at the service {self._app}Service"):
            service = describe_service(self._session, f"{self._app}Service", self._cluster)
        if service is not None and service["status"] == "ACTIVE":
            facts = facts._replace(service=service)
        if facts.running < facts.target:
            facts = facts._replace(diagnosis=self._diagnose(facts.fleets, now))
        if facts.running and facts.tasks("desiredCount") and not facts.tasks():
            facts = facts._replace(stopped=self._stopped())
        return facts

    def _diagnose(self, fleets: Sequence[Fleet], now: float) -> Diagnosis | None:
        """Reads in the newest fleet's history why it gets no machines."""
        alive = [fleet for fleet in fleets if fleet.alive and fleet.target]
        if not alive:
            return None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - HISTORY_SECONDS))
        return of_history(self.fleets.history(alive[-1], since))

    def place(self, names: Collection[str]) -> set[str]:
        """Adds its machine to each name of a worker, if that can be found.

        A task stays on its machine, so each is looked up once.
        """
        found = located(names, self._hosts)
        if all(instances([name]) for name in found):
            return found
        self._find_tasks()
        return located(names, self._hosts)

    def _find_tasks(self) -> None:
        """Maps task ids and container host names to machines."""
        ecs = self._session.client("ecs")
        with aws_errors("looking at the tasks"):
            pages = ecs.get_paginator("list_tasks").paginate(
                cluster=self._cluster, family=f"{self._app}Task", desiredStatus="RUNNING"
            )
            running = (arn for page in pages for arn in page["taskArns"])
            arns = [arn for arn in running if arn not in self._located]
            for start in range(0, len(arns), _A_CALL):
                tasks = ecs.describe_tasks(cluster=self._cluster, tasks=arns[start : start + _A_CALL])[
                    "tasks"
                ]
                places = {each["containerInstanceArn"] for each in tasks if "containerInstanceArn" in each}
                machines = self._machines_at(sorted(places))
                for task in tasks:
                    self._note(task, machines.get(task.get("containerInstanceArn", "")))

    def _note(self, task: Mapping[str, Any], machine: str | None) -> None:
        if machine is None:
            return
        self._hosts |= dict.fromkeys(_names(task), machine)
        if all(each.get("runtimeId") for each in task.get("containers", ())):
            self._located.add(str(task["taskArn"]))

    def _machines_at(self, places: Sequence[str]) -> dict[str, str]:
        """The EC2 instances behind container instances, at most 100 of them."""
        if not places:
            return {}
        answer = self._session.client("ecs").describe_container_instances(
            cluster=self._cluster, containerInstances=list(places)
        )
        return {each["containerInstanceArn"]: each["ec2InstanceId"] for each in answer["containerInstances"]}

    def _stopped(self) -> list[str]:
        """The reasons of the latest ended tasks, in ECS's words."""
        ecs = self._session.client("ecs")
        with aws_errors("looking at the tasks"):
            arns = ecs.list_tasks(
                cluster=self._cluster, family=f"{self._app}Task", desiredStatus="STOPPED", maxResults=_STOPPED
            )["taskArns"]
            if not arns:
                return []
            tasks = ecs.describe_tasks(cluster=self._cluster, tasks=arns)["tasks"]
        return [
            " ".join([task.get("stoppedReason", ""), *(c.get("reason", "") for c in task["containers"])])
            for task in tasks
        ]


def _names(task: Mapping[str, Any]) -> list[str]:
    """Parts of a worker's name that identify its task. Docker names hosts by container ids."""
    runtimes = (str(each.get("runtimeId", ""))[:12] for each in task.get("containers", ()))
    return [str(task["taskArn"]).rpartition("/")[2], *filter(None, runtimes)]


# -- What it means ------------------------------------------------------------------------------------------


def machines_of(facts: Facts, *, slots: int, now: float, tasks: int = 1) -> Machines:
    """Converts a look to the core's value. `slots` and `tasks` are per machine."""
    wants = facts.tasks("desiredCount")
    return Machines(
        target=facts.target,
        running=facts.running,
        lost=sum(machine.interrupted for machine in facts.machines),
        slots=facts.running * slots,
        draining=bool(facts.fleets) and facts.running > 0 and not wants,
        ended=None if facts.running else _ended(facts, now),
        replaces_lost=True,
        diagnosis=facts.diagnosis or _silent(facts, tasks, now),
        tasks=facts.tasks(),
        rented=tuple(map(_rented, facts.machines)),
    )


def _rented(machine: Machine) -> RentedMachine:
    return RentedMachine(
        machine.id,
        machine.running,
        kind=machine.kind,
        since=machine.since,
        ended=machine.ended,
        why="" if machine.running else _why_ended(machine),
        lost=machine.interrupted,
    )


def _why_ended(machine: Machine) -> str:
    """Translates EC2's reason, which says who ended the machine and how."""
    if "SpotInstance" in machine.reason:
        return "taken back by AWS"
    if machine.interrupted:
        return f"lost: {machine.reason.partition(' (')[0]}"
    return "ended"


def _silent(facts: Facts, tasks: int, now: float) -> Diagnosis | None:
    """Diagnoses machines that should have joined the cluster long ago, and run no task."""
    old = [each for each in facts.machines if each.running and (each.since or now) < now - SILENT_SECONDS]
    wanted = min(len(old) * tasks, facts.tasks("desiredCount"))
    missing = -(-(wanted - facts.tasks() - facts.tasks("pendingCount")) // tasks)
    if missing <= 0:
        return None
    events = _events(facts, old)
    what = f"{missing:,} of {facts.running:,} machines have run for 10 minutes, and have no task"
    known = of_tasks(events)
    return Diagnosis(f"{what}: {known.what}", known.fix) if known else Diagnosis(what, _DEAD)


def _events(facts: Facts, machines: Iterable[Machine]) -> list[str]:
    """Returns the service's latest messages since the youngest of these machines runs, the newest first.

    Older ones are about machines that are gone: a task did not fit beside others, or on a lost machine.
    """
    since = max((each.since for each in machines if each.running and each.since is not None), default=0.0)
    found = (facts.service or {}).get("events", ())[:_EVENTS]
    return [
        each.get("message", "")
        for each in found
        if (when := each.get("createdAt")) is None or when.timestamp() >= since
    ]


_DEAD = "see them in the EC2 console (status checks, system log); ending one lets the fleet replace it"


def _ended(facts: Facts, now: float) -> str | None:
    """Why no machine will come; None: some may."""
    if not facts.fleets or any(fleet.alive and fleet.target for fleet in facts.fleets):
        return None
    over = [fleet for fleet in facts.fleets if fleet.valid_until is not None and fleet.valid_until <= now]
    return "out of time (MAX_RUN_HOURS)" if over else "stopped"


def why_idle(facts: Facts, counts: Counts, *, visibility: float, now: float, task_logs: str) -> str | None:
    """Explains why no job runs although some wait; None: nothing is known to be wrong.

    `task_logs` is the place of the tasks' logs, or the command that shows them.
    """
    if not facts.running:
        return _no_machines(facts, now)
    if not facts.tasks():
        return _no_tasks(facts)
    if facts.diagnosis:
        return _line(facts.diagnosis)
    if counts.waiting:
        return None if counts.leased else _no_leases(facts, task_logs)
    hidden = counts.leased + counts.delayed
    until = time.strftime("%H:%M", time.localtime(_last_renewal(facts, visibility, now) + visibility))
    jobs = many(hidden, "job", "is leased or waits", "are leased or wait")
    return f"{jobs} for another attempt, hidden until {until} at the latest"


def _no_leases(facts: Facts, task_logs: str) -> str:
    tasks = f"{many(facts.tasks(), 'task', 'runs', 'run')}, and no job is under way yet"
    return f"{tasks}; if that lasts, see what they print: {task_logs}"


def _last_renewal(facts: Facts, visibility: float, now: float) -> float:
    """Latest possible renewal of the leases that hide jobs: a machine that is gone renews none."""
    gone = [each.ended for each in facts.machines if not each.running and each.ended is not None]
    return max((when for when in gone if now - visibility < when <= now), default=now)


def _no_machines(facts: Facts, now: float) -> str:
    if facts.diagnosis:
        return _line(facts.diagnosis)
    if ended := _ended(facts, now):
        return f"no machines: {ended}; ds start"
    if not facts.fleets:
        return "no machines were asked for: ds start"
    asked = min((fleet.made for fleet in facts.fleets if fleet.made), default=now)
    return f"no machine has come yet of the {facts.target:,} asked for {max(now - asked, 0) / 60:.0f} min ago"


def _no_tasks(facts: Facts) -> str:
    machines = f"{many(facts.running, 'machine', 'runs', 'run')}, and no task: "
    if facts.service is None:
        return machines + "its service is gone; ds start makes it"
    if not facts.tasks("desiredCount"):
        return machines + "stopped; ds start"
    events = _events(facts, facts.machines)
    if found := of_tasks([*facts.stopped, *events]):
        return machines + _line(found)
    if facts.tasks("pendingCount"):
        return machines + f"{facts.tasks('pendingCount'):,} are starting"
    return machines + (f"ECS says: {events[0]}" if events else "machines need about 3 minutes to join")


def _line(diagnosis: Diagnosis) -> str:
    return f"{diagnosis.what}; {diagnosis.fix}" if diagnosis.fix else diagnosis.what
