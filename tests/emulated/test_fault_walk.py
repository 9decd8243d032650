"""Whatever call to AWS fails, and however: a run ends as if nothing had been, or clean-up takes it all away.

A proxy stands between engine and emulator. A clean run says which calls there are; then they fail, by their
names, so that a call that is added later is walked too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from aws_project import Cloud, fleet_file, left, work
from distributed_something import steps
from distributed_something.aws.session import AwsSession
from distributed_something.errors import FAILED, OK, DsError
from emulating import endpoint
from faulty import RESET, FaultyWay, faulty_way

JOBS = 3

Fault = Callable[[str, int, int], str | None]

CLIENTS: dict[str, AwsSession] = {}
"""Making a client takes longer than most phases."""


class Run:
    """A project whose calls pass the proxy, and the phases of its run. The worker has a way of its own."""

    def __init__(self, folder: Path, way: FaultyWay) -> None:
        self.cloud = Cloud(folder / "project", through=way.endpoint)
        self.phases: dict[str, Callable[[], object]] = {
            "setup": lambda: steps.setup(self.cloud.project),
            "submit": lambda: self.cloud.submit(self.cloud.jobs(JOBS)),
            "start": lambda: steps.start(self.cloud.project, fleet_file(self.cloud)),
            "start without a file": lambda: steps.start(self.cloud.project, None),
            "status": lambda: self.cloud.project.snapshot(),
            "monitor": lambda: steps.monitor(self.cloud.project, None, None),
            "cleanup": lambda: steps.cleanup(self.cloud.project),
        }

    def do(self, phase: str) -> object:
        """A phase, as a command of its own does it; before the monitor, the jobs are worked off."""
        if phase == "monitor":
            self._work()
        self.open()
        return self.phases[phase]()

    def until(self, last: str) -> None:
        """The phases before this one."""
        for phase in self.phases:
            if phase == last:
                return
            self.do(phase)

    def _work(self) -> None:
        through, self.cloud._endpoint = self.cloud._endpoint, endpoint()
        self.open()
        if self.cloud.engine.queue().counts().waiting:
            work(self.cloud, JOBS)
        self.cloud._endpoint = through

    def open(self) -> None:
        """Begin anew, as the next command does; connections of the old one end with it."""
        self.cloud.engine._forget()
        self.cloud.open()
        session = self.cloud.engine.session
        kept = CLIENTS.setdefault(str(session.endpoint), session)
        session._session, session._clients = kept._session, kept._clients

    def left(self) -> list[str]:
        """What the account itself still has."""
        self.open()
        return left(self.cloud)


@pytest.fixture(scope="module")
def way() -> Iterator[FaultyWay]:
    with faulty_way(endpoint()) as found:
        yield found


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore repeats as ever, without its pauses: it has no setting for them and takes no clock."""
    import botocore.retries.standard as standard

    CLIENTS.clear()  # a client repeats only so many calls in its life
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.0)


@pytest.fixture(scope="module")
def calls(way: FaultyWay, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """The calls of each phase of a clean run, and how often each is made."""
    run = Run(tmp_path_factory.mktemp("clean"), way)
    found: dict[str, Counter[str]] = {}
    for phase in run.phases:
        way.again()
        ended = run.do(phase)
        found[phase] = Counter(way.seen)
        assert phase != "monitor" or ended == OK
    assert run.left() == []
    way.again()
    return found


@pytest.mark.fault(10)
@pytest.mark.parametrize("kind", ["throttle", "error", "timeout", RESET])
def test_a_call_that_fails_once_changes_nothing(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, kind: str
) -> None:
    """In each phase, the first call of every name fails, and one from the middle."""
    run = Run(tmp_path, way)
    for phase, counts in calls.items():
        once = {(name, nth) for name, count in counts.items() for nth in (1, count // 2 + 2)}
        way.again(lambda name, nth, _, once=once: kind if (name, nth) in once else None)
        ended = run.do(phase)
        assert way.hit >= len(counts), f"{phase}: not every call was made"
        assert phase != "monitor" or ended == OK
        assert phase != "cleanup" or ended == []
    way.again()
    assert run.left() == []
    jobs = run.cloud.project.snapshot().jobs
    assert (jobs.total, jobs.succeeded, jobs.dead) == (JOBS, JOBS, 0)
    assert len(run.cloud.engine._looker.fleets.of_app(run.cloud.app)) <= 2


def denying(name: str) -> Fault:
    return lambda each, _nth, _number: "denied" if each == name else None


def expiring(since: int) -> Fault:
    return lambda _name, _nth, number: "expired" if number >= since else None


def refused(way: FaultyWay, does: Callable[[], object], fault: Fault) -> object:
    """Do something while calls fail for good: what it ended with, where that is not an error for a person."""
    way.again(fault)
    try:
        return does()
    except DsError as error:
        assert error.exit_code == FAILED, error
        assert error.what and "\n" not in error.what, error.what
        assert error.fix, f"no fix: {error.what}"
        return error
    finally:
        way.again()


OPTIONAL = frozenset(
    {"iam.GetRole", "iam.GetInstanceProfile", "logs.CreateLogGroup", "logs.PutRetentionPolicy"}
)
"""Who may not look whether roles are there may use them all the same; log groups outlast a clean-up."""

MAKING = ("setup", "submit", "start", "start without a file")


@pytest.mark.fault(10, 36)
@pytest.mark.parametrize("phase", MAKING)
def test_a_right_that_is_missing_is_named_and_what_was_made_can_be_removed(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, phase: str
) -> None:
    run = Run(tmp_path, way)
    run.until(phase)
    for name in calls[phase]:
        said = refused(way, partial(run.do, phase), denying(name))
        assert isinstance(said, DsError) or name in OPTIONAL, f"{phase} went on without {name}"
        looks = name.partition(".")[2].startswith(("Describe", "Get", "List", "Head"))
        if not (looks and isinstance(said, DsError)):
            run.open()
            assert steps.cleanup(run.cloud.project) == []
            assert run.left() == [], f"after {name}"
            run.until(phase)
    run.do(phase)
    run.open()
    assert steps.cleanup(run.cloud.project) == []
    assert run.left() == []


@pytest.mark.parametrize("phase", ["setup", "start", "start without a file"])
def test_credentials_that_expire_on_the_way(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, phase: str
) -> None:
    run = Run(tmp_path, way)
    total = sum(calls[phase].values())
    for since in (1, total // 2, total * 3 // 4):
        run.until(phase)
        said = refused(way, partial(run.do, phase), expiring(since))
        assert said not in (OK, []), f"{phase} from call {since} on"
        run.open()
        assert steps.cleanup(run.cloud.project) == []
        assert run.left() == []
