"""What every engine promises of its verbs. One suite, every engine: another one is a row of ENGINES.

The engine `rehearsal` is not among them: it passes the verbs on to `aws`, and is run in processes of its own,
as it puts credentials out of reach of the one that it is in (tests/real/test_rehearsal.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from distributed_something.clock import SystemClock
from distributed_something.console import Console
from distributed_something.engine import Counts, Engine
from distributed_something.errors import OK, SOME_DEAD, DsError, UsageError
from distributed_something.inputs.config import load_config
from distributed_something.job import Cause, Job
from distributed_something.runs.record import read_record, write_record
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.project import Project
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.submit import check, submit
from distributed_something.steps.watch.monitor import monitor

FIRST, SECOND = "20261122T141500Z-0001", "20261122T151500Z-0002"
JOB = Job("0123456789abcdef", 0, b'{"group": {"n": 1}}')

Open = Callable[[], Project]
"""Opens the project as a new process does: it knows what lies in its folder, or in its account."""


def here(folder: Path, engine: str) -> Open:
    """A project of an engine whose machines are processes of this computer."""
    given = {"APP_NAME": "App", "ENGINE": engine, "DOCKER_CORES": 2, "OUTPUT": "out/{n}"}
    given["COMMAND"] = "echo {n} > {output_dir}/n"
    (folder / "config.py").write_text("".join(f"{name} = {value!r}\n" for name, value in given.items()))

    def open_project() -> Project:
        console = Console(yes=True, out=io.StringIO(), err=io.StringIO())
        return Project(folder, load_config(folder), console, SystemClock())

    return open_project


def local(folder: Path) -> Open:
    return here(folder, "local")


def slurm(folder: Path) -> Open:
    return here(folder, "slurm")


def ssh(folder: Path) -> Open:
    opened = here(folder, "ssh")
    with (folder / "config.py").open("a") as config:
        config.write("HOSTS = ['node1', 'node2']; CLUSTER_MACHINES = 1\n")
    return opened


def aws(folder: Path) -> Open:
    from aws_project import Cloud

    return Cloud(folder).open


class Kind(NamedTuple):
    """An engine: how a project with it is opened in a folder, and whether its machines work in this test.

    `needs` is the fixture that it works in.
    """

    project_in: Callable[[Path], Open]
    works: bool = False
    needs: str = "tmp_path"


ENGINES = {
    "local": Kind(local, works=True),
    "slurm": Kind(slurm, works=True, needs="cluster"),
    "ssh": Kind(ssh, works=True, needs="hosts"),
    "aws": Kind(aws),
}


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> Kind:
    return ENGINES[request.param]


@pytest.fixture
def open_project(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    request.getfixturevalue(kind.needs)
    found = kind.project_in(tmp_path)
    yield found
    assert [*found().engine.remove()] == []


@pytest.fixture
def engine(open_project: Open) -> Engine:
    return open_project().engine


def nobody(_resource: str) -> None:
    pass


class Interrupted(Exception):
    """The process that set up was killed."""


def holds_nothing(engine: Engine) -> None:
    assert engine.current_run() is None
    assert engine.machines().running == 0
    with pytest.raises(DsError):
        engine.queue()


def test_where_nothing_is_set_up_there_is_nothing_to_stop_or_remove(engine: Engine) -> None:
    holds_nothing(engine)
    engine.stop()
    engine.stop(now=True)
    assert [*engine.end()] == []
    assert [*engine.remove()] == []
    holds_nothing(engine)


def test_a_plan_is_told_and_makes_nothing(engine: Engine) -> None:
    assert [*engine.plan(FIRST)]
    holds_nothing(engine)


def test_what_is_set_up_is_told_and_found_by_others_and_is_not_made_twice(open_project: Open) -> None:
    made: list[str] = []
    open_project().engine.setup(FIRST, made.append)
    assert any(each.startswith("queue ") for each in made)
    assert len(made) == len({*made})
    other, again = open_project().engine, list[str]()
    assert other.current_run() == FIRST
    other.queue().put([JOB])
    other.setup(FIRST, again.append)
    assert again == []
    assert open_project().engine.queue().counts() == Counts(waiting=1), "the same run goes on"


def test_a_set_up_that_breaks_off_anywhere_is_finished_by_the_next_one(open_project: Open) -> None:
    told: list[str] = []

    def break_off(resource: str) -> None:
        told.append(resource)
        raise Interrupted

    for _ in range(50):
        try:
            open_project().engine.setup(FIRST, break_off)
        except Interrupted:
            continue
        break
    assert told
    assert open_project().engine.current_run() == FIRST
    assert open_project().engine.queue().counts() == Counts()


def test_the_next_run_begins_with_an_empty_queue(open_project: Open) -> None:
    open_project().engine.setup(FIRST, nobody)
    open_project().engine.queue().put([JOB])
    assert [*open_project().engine.plan(SECOND)]
    open_project().engine.setup(SECOND, nobody)
    engine = open_project().engine
    assert engine.current_run() == SECOND
    assert engine.queue().counts() == Counts()


def test_what_is_stored_is_found_by_others_and_stays_when_the_rest_is_removed(open_project: Open) -> None:
    engine = open_project().engine
    engine.setup(FIRST, nobody)
    engine.store.write("a/b", b"result")
    assert [*engine.remove()] == []
    holds_nothing(open_project().engine)
    assert open_project().engine.store.read("a/b") == b"result"


def test_dead_jobs_outlive_the_end_of_a_run_and_can_be_put_back(open_project: Open) -> None:
    engine = open_project().engine
    engine.setup(FIRST, nobody)
    queue = engine.queue()
    queue.put([JOB])
    queue.fail(queue.lease(1)[0], Cause.EXIT, "exit code 1", final=True)
    assert [*engine.end()] == []
    later = open_project().engine
    assert later.current_run() == FIRST
    assert [each.job.id for each in later.queue().dead()] == [JOB.id]
    assert later.queue().redrive() == [JOB.id]


def test_one_run_at_a_time_holds_the_app(open_project: Open) -> None:
    with ExitStack() as held:
        held.enter_context(open_project().engine.exclusive())
        with pytest.raises(DsError, match="is under way"), open_project().engine.exclusive():
            pass
    with open_project().engine.exclusive():
        pass


def test_jobs_that_wait_without_machines_are_explained(open_project: Open) -> None:
    engine = open_project().engine
    engine.setup(FIRST, nobody)
    engine.queue().put([JOB])
    assert engine.explain(engine.queue().counts())


def test_a_start_is_refused_where_the_record_is_of_another_run(open_project: Open) -> None:
    """Of another engine, say: its machines would work for a run whose jobs are not in the queue."""
    run = setup(open_project())
    project = open_project()
    mine = read_record(project.record_path)
    write_record(project.record_path, mine._replace(run=SECOND, engine="other"))
    with pytest.raises(DsError, match=f"run {SECOND} .other., and the queue is that of {run}"):
        start(project, None)
    assert open_project().engine.current_run() == run
    assert open_project().engine.machines().target == 0
    assert setup(open_project()) == run == read_record(project.record_path).run


def test_the_four_steps(kind: Kind, open_project: Open, tmp_path: Path) -> None:
    if not kind.works:
        pytest.skip("its machines do not work in this test")
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(f'{{"n": {n}}}\n' for n in range(5)))
    setup(open_project())
    submit(open_project(), check(open_project(), jobs, {}))
    for _ in range(2):  # the second changes nothing, or adds what is ended with the rest
        start(open_project(), None)
    assert monitor(open_project(), None, None) == OK
    project = open_project()
    assert project.snapshot().jobs.succeeded == 5
    assert project.engine.machines().running == 0
    assert [project.engine.store.read(f"out/{n}/n") for n in range(5)] == [b"%d\n" % n for n in range(5)]
    assert cleanup(open_project()) == []
    assert not project.record_path.exists()


def test_a_job_that_fits_no_machine_is_refused_before_anything_is_queued(
    open_project: Open, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"n": 0}\n{"n": 1, "_cpus": 999}\n')
    with pytest.raises(
        UsageError, match=r"job 2 needs 999 processors, and (this machine|a pilot|a task) has"
    ):
        check(open_project(), jobs, {}, unchecked=True)


def test_jobs_that_need_a_whole_machine_run_one_after_another(
    kind: Kind, open_project: Open, tmp_path: Path
) -> None:
    if not kind.works:
        pytest.skip("its machines do not work in this test")
    with (tmp_path / "config.py").open("a") as config:
        config.write("COMMAND = 'date +%s.%N > {output_dir}/n; sleep 0.2; date +%s.%N >> {output_dir}/n'\n")
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(f'{{"n": {n}, "_cpus": 2}}\n' for n in range(4)))
    setup(open_project())
    submit(open_project(), check(open_project(), jobs, {}))
    start(open_project(), None)
    assert monitor(open_project(), None, None) == OK
    store = open_project().engine.store
    times = sorted([*map(float, store.read(f"out/{n}/n").split())] for n in range(4))
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(times)), times


def test_jobs_share_inputs_and_have_time_limits_of_their_own(
    kind: Kind, open_project: Open, tmp_path: Path
) -> None:
    if not kind.works:
        pytest.skip("its machines do not work in this test")
    with (tmp_path / "config.py").open("a") as config:
        config.write("SHARED_INPUTS = ['genome/']; JOB_TIMEOUT = 60; JOB_RETRIES = 1\n")
        config.write("COMMAND = 'cp {shared_dir}/fa {output_dir}/n; sleep {n}'\n")
    open_project().engine.store.write("genome/fa", b"ACGT")
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"n": 0}\n{"n": 30, "_timeout": 0.2}\n')
    setup(open_project())
    submit(open_project(), check(open_project(), jobs, {}))
    start(open_project(), None)
    assert monitor(open_project(), None, None) == SOME_DEAD
    engine = open_project().engine
    (dead,) = engine.queue().dead()
    assert (dead.cause, dead.detail) == (Cause.TIMEOUT, "ran longer than its _timeout = 0.2 s")
    assert engine.store.read("out/0/n") == b"ACGT"
