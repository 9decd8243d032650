"""Whatever call to AWS fails, and however: a run ends as if nothing had been, or clean-up takes it all away.

A proxy stands between engine and emulator. A clean run says which calls there are; then they fail, by their
names, so that a call that is added later is walked too.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from aws_project import Cloud, fleet_file, left, work
from distributed_something.errors import FAILED, OK, DsError
from distributed_something.s3.session import AwsSession
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.retry import retry
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.stop import stop
from distributed_something.steps.watch.monitor import monitor
from distributed_something.testing import FakeClock
from emulating import endpoint
from faulty import RESET, FaultyWay, faulty_way

JOBS = 3

Fault = Callable[[str, int, int], str | None]

CLIENTS: dict[str, AwsSession] = {}
"""Making a client takes longer than most phases."""

MAKING = ("setup", "submit", "start", "start without a file")
WALKS = ((*MAKING, "status", "retry", "monitor"), (*MAKING, "stop"), (*MAKING, "cleanup"))
"""The phases of three runs: one ends by itself, one is stopped, one is cleaned up under way."""


class Run:
    """A project whose calls pass the proxy, and the phases of its run. The worker has a way of its own.

    Hours pass before each phase, so that the machines, whose worker gives no signs, get alarms.
    """

    def __init__(self, folder: Path, way: FaultyWay) -> None:
        self._folder, self._way, self._count = folder, way.endpoint, 0
        self.new()
        self.phases: dict[str, Callable[[], object]] = {
            "setup": lambda: setup(self.cloud.project),
            "submit": lambda: self.cloud.submit(self.cloud.jobs(JOBS)),
            "start": lambda: start(self.cloud.project, fleet_file(self.cloud)),
            "start without a file": lambda: start(self.cloud.project, None),
            "status": lambda: self.cloud.project.snapshot(),
            "retry": lambda: retry(self.cloud.project, (), ()),
            "stop": lambda: stop(self.cloud.project, now=False),
            "monitor": lambda: monitor(self.cloud.project, None, None),
            "cleanup": lambda: cleanup(self.cloud.project),
        }
        self._workers = {"retry": partial(self._work, 1, dead=1), "monitor": partial(self._work, JOBS)}

    def new(self) -> None:
        """Another project: the emulator goes on listing machines of the one before, which takes it long."""
        self._count += 1
        self.cloud = Cloud(self._folder / f"project-{self._count}", through=self._way)
        self.cloud.clock = FakeClock(time.time() + 7200)

    def do(self, phase: str) -> object:
        """A phase, as a command of its own does it."""
        self.open()
        return self.phases[phase]()

    def ready(self, phase: str) -> None:
        """What workers do before a phase."""
        with self._direct():
            self._workers.get(phase, lambda: None)()

    def until(self, phase: str) -> None:
        """A new project with all that comes before a phase, past the proxy."""
        self.new()
        with self._direct():
            for each in MAKING[: MAKING.index(phase) if phase in MAKING else None]:
                self.do(each)
        self.ready(phase)
        self.open()

    @contextmanager
    def _direct(self) -> Iterator[None]:
        with self.through(endpoint()):
            yield

    @contextmanager
    def through(self, there: str) -> Iterator[None]:
        """Within, calls go there."""
        before, self.cloud._endpoint = self.cloud._endpoint, there
        self.open()
        yield
        self.cloud._endpoint = before

    def _work(self, count: int, dead: int = 0) -> None:
        if self.cloud.engine.queue().counts().waiting >= count:
            work(self.cloud, count, dead=dead)

    def open(self) -> None:
        """Begin anew, as the next command does; connections of the old one end with it."""
        self.cloud.engine._forget()
        self.cloud.open()
        session = self.cloud.engine.session
        kept = CLIENTS.setdefault(str(session.endpoint), session)
        session._session, session._clients = kept._session, kept._clients

    def over(self) -> None:
        """Nothing is left once it has been cleaned up."""
        with self._direct():
            assert cleanup(self.cloud.project) == []
        assert self.left() == []

    def left(self) -> list[str]:
        """What the account itself still has."""
        with self._direct():
            return left(self.cloud)


@pytest.fixture(scope="module")
def way() -> Iterator[FaultyWay]:
    with faulty_way(endpoint()) as found:
        yield found


def went_on(phase: str, said: object) -> bool:
    """Whether a phase ended as if nothing had been."""
    expected: dict[str, object] = {"monitor": OK, "cleanup": []}
    return said == expected.get(phase, said) and not isinstance(said, DsError)


@pytest.fixture(scope="module")
def calls(way: FaultyWay, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """The calls of each phase of clean runs, and how often each is made."""
    found: dict[str, Counter[str]] = {}
    for walk in WALKS:
        run = Run(tmp_path_factory.mktemp("clean"), way)
        for phase in walk:
            run.ready(phase)
            way.again()
            assert went_on(phase, run.do(phase))
            found[phase] = Counter(way.seen)
        way.again()
        assert walk[-1] == "stop" or run.left() == []
        run.over()
    return found


@pytest.mark.fault(10)
@pytest.mark.parametrize("kind", ["throttle", "error", "timeout", RESET])
def test_a_call_that_fails_once_changes_nothing(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, kind: str
) -> None:
    """In each phase, the first call of every name fails, and one from the middle."""
    ended, *others = WALKS
    run = Run(tmp_path, way)
    for phase in ended:
        run.ready(phase)
        stumble(way, run, phase, calls, kind)
    assert run.left() == []
    jobs = run.cloud.project.snapshot().jobs
    assert (jobs.total, jobs.succeeded, jobs.dead) == (JOBS, JOBS, 0)
    assert len(run.cloud.engine._looker.fleets.of_app(run.cloud.app)) <= 2
    for walk in others:
        run.until(walk[-1])
        stumble(way, run, walk[-1], calls, kind)
        run.over()


def stumble(way: FaultyWay, run: Run, phase: str, calls: dict[str, Counter[str]], kind: str) -> None:
    """A phase in which calls fail once ends as if nothing had been."""
    once = {(name, nth) for name, count in calls[phase].items() for nth in (1, count // 2 + 2)}
    way.again(lambda name, nth, _: kind if (name, nth) in once else None)
    assert went_on(phase, run.do(phase)), phase
    assert way.hit >= len(set(way.seen)), f"{phase}: not every call has failed"
    assert phase == "cleanup" or calls[phase].keys() <= set(way.seen), f"{phase}: not every call was made"
    way.again()


def denying(name: str) -> Fault:
    return lambda each, _nth, _number: "denied" if each == name else None


def from_then_on(kind: str, since: int) -> Fault:
    return lambda _name, _nth, number: kind if number >= since else None


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
    {
        *("iam.GetRole", "iam.GetInstanceProfile", "logs.CreateLogGroup", "logs.PutRetentionPolicy"),
        *("s3.HeadObject", "s3.PutObject", "ec2.DescribeSpotPriceHistory", "monitoring.PutMetricAlarm"),
        *("ec2.ModifySpotFleetRequest", "ec2.ModifyFleet", "s3.ListObjectsV2"),
    }
)
"""Who may not look whether roles are there may use them all the same; log groups outlast a clean-up. Cost is
not shown where it cannot be known, no alarm is made, and the fleet stays as large as it is. The report does
without the configs that it cannot list. A start without a file leaves out no types if it cannot read which
were taken back."""


_LOOKS = ("Describe", "Get", "List", "Head")


@pytest.mark.fault(10, 36)
@pytest.mark.parametrize("phase", ["monitor", "cleanup", "stop", "retry", "status", *reversed(MAKING)])
def test_a_right_that_is_missing_is_named_and_what_was_made_can_be_removed(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, phase: str
) -> None:
    run = Run(tmp_path, way)
    run.until(phase)
    for name in calls[phase]:
        said = refused(way, partial(run.do, phase), denying(name))
        if phase == "cleanup":
            assert isinstance(said, list)
            tells_what_is_left(run, name, said)
        else:
            optional = OPTIONAL | ({"s3.GetObject"} if phase == "start without a file" else set())
            assert not went_on(phase, said) or name in optional, f"{phase} went on without {name}"
        looks = name.partition(".")[2].startswith(_LOOKS)
        if phase != "status" and not (looks and isinstance(said, DsError)):
            run.over()
            run.until(phase)
    run.do(phase)
    run.over()


def tells_what_is_left(run: Run, name: str, lines: list[str]) -> None:
    """A clean-up without a right says so, and names what it could not remove, in a line each."""
    assert all(line and "\n" not in line for line in lines) and len(lines) == len(set(lines)), lines
    there = run.left()
    assert lines or not there, f"cleanup without {name} is silent about {there}"
    if name.partition(".")[2].startswith(_LOOKS):
        return  # what may not be looked at has no name
    untold = [each for each in there if not any(each.rpartition(" ")[2] in line for line in lines)]
    assert untold == [], f"cleanup without {name} says only {lines}"


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        *(
            ("expired", phase)
            for phase in ("setup", "start", "start without a file", "stop", "monitor", "cleanup")
        ),
        *((RESET, phase) for phase in ("start", "monitor")),
    ],
)
def test_credentials_that_expire_and_a_network_that_goes_on_the_way(
    way: FaultyWay, calls: dict[str, Counter[str]], tmp_path: Path, kind: str, phase: str
) -> None:
    run = Run(tmp_path, way)
    total = sum(calls[phase].values())
    for since in (1, total * 2 // 3):
        run.until(phase)
        said = refused(way, partial(run.do, phase), from_then_on(kind, since))
        assert not went_on(phase, said), f"{phase} from call {since} on"
        run.over()


@pytest.mark.fault(10)
@pytest.mark.parametrize("phase", ["start", "monitor", "cleanup"])
def test_where_nothing_listens_a_command_says_so_and_can_be_repeated(
    way: FaultyWay, tmp_path: Path, phase: str
) -> None:
    run = Run(tmp_path, way)
    run.until(phase)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"
    with run.through(nobody):
        said = refused(way, partial(run.do, phase), lambda *_: None)
    assert not went_on(phase, said) and nobody in str(said)
    run.open()
    assert went_on(phase, run.do(phase))
    run.over()
