"""Two tasks of sixteen slots, and one is killed: no job is lost, and none runs twice without need."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from conftest import until
from distributed_something.worker.attempt.process import kill_marked
from tasks import ends, new_run, until_done, worker

pytestmark = pytest.mark.real

JOBS = 300


@pytest.mark.fault(15, 17)
def test_a_killed_task_costs_only_what_it_had_in_hand(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = f"echo {{n}} $DS_WORKER $DS_ATTEMPT >> {trace}; sleep 0.1; echo did {{n}} > {{output_dir}}/x"
    run = new_run(
        [{"n": n} for n in range(JOBS)],
        COMMAND=command,
        OUTPUT="out/{n}",
        SQS_MESSAGE_VISIBILITY=4,
        JOB_RETRIES=1,
    )
    first, second = tmp_path / "first", tmp_path / "second"
    with worker(run, first, DOCKER_CORES="16"), worker(run, second, DOCKER_CORES="16") as survivor:
        until(lambda: len(run.events("succeeded")) > JOBS // 4, "a quarter of the jobs", 60)
        kill_marked(f"DS_SCRATCH={first}\0".encode())
        until_done(run, JOBS, 90)
        until(lambda: run.queue.counts().open == 0, "the queue to be empty", 20)
        survivor.terminate()
        code, said = ends(survivor)
    assert code == 0, said
    assert {record.state.value for record in run.fold().jobs.values()} == {"succeeded"}
    assert len(run.fold().jobs) == JOBS and run.queue.counts().dead == 0
    outputs = {file.key for file in run.store.list("out/") if file.key.endswith("/x")}
    assert outputs == {f"out/{n}/x" for n in range(JOBS)}
    runs_of = defaultdict(list)
    for line in trace.read_text().splitlines():
        number, name, attempt = line.split()
        assert attempt == "1"
        runs_of[number].append(name)
    (dead,) = {name for names in runs_of.values() for name in names} - {
        _survivor(run.events("succeeded"), said)
    }
    twice = [names for names in runs_of.values() if len(names) > 1]
    assert len(runs_of) == JOBS
    assert all(names.count(dead) == 1 and len(names) == 2 for names in twice), Counter(map(tuple, twice))
    assert len(twice) <= 64  # sixteen that ran, and those whose end had not been told to the queue


def _survivor(events: list[dict[str, object]], said: str) -> str:
    """The worker that told its own end."""
    (name,) = {str(event["worker"]) for event in events if str(event["worker"]) in said}
    return name
