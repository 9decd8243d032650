"""A queue whose heads are killed, suspended and replaced, while workers go on: nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue
from distributed_something.cluster.shared.replica import Replica
from distributed_something.job import Cause
from keepers import TERMS, Pilots, jobs, submit, until


@pytest.fixture
def pilots(tmp_path: Path) -> Iterator[Pilots]:
    found = Pilots([Place(tmp_path / "run")] * 2, tmp_path)
    yield found
    found.end()


def test_heads_are_killed_and_no_job_is_lost_or_run_twice(pilots: Pilots) -> None:
    submit(pilots, 20_000)
    pilots.work(4, 20)
    for share in (4_000, 10_000):
        until(lambda: len(pilots.ran) > share and pilots.head)  # noqa: B023
        pilots.tell_head(signal.SIGKILL)
    until(lambda: pilots.place.told() and pilots.counts().open == 0)
    assert len(pilots.ran) == 20_000
    assert sum(pilots.ran.values()) == 20_000, "what was leased from a killed head is known to the next"
    assert pilots.place.look().epoch >= 4


def test_a_suspended_head_finds_another_one_and_what_it_said_too_late_runs_again(pilots: Pilots) -> None:
    submit(pilots, 10_000)
    pilots.work(2, 20)
    until(lambda: len(pilots.ran) > 1_000)
    epoch = pilots.place.look().epoch
    old = pilots.tell_head(signal.SIGSTOP)
    until(lambda: _other_head(pilots, epoch))
    os.kill(old, signal.SIGCONT)
    until(lambda: pilots.counts().open == 0)
    assert len(pilots.ran) == 10_000
    until(lambda: old not in {keeper.pid for keeper in pilots.keepers})


def _other_head(pilots: Pilots, epoch: int) -> bool:
    return pilots.place.look().epoch > epoch


def test_commands_find_the_queue_after_all_pilots_are_gone(pilots: Pilots) -> None:
    submit(pilots, 1_000)
    pilots.work(1, 10)
    until(lambda: len(pilots.ran) > 100)
    pilots.stop_working()
    pilots.tell_head(signal.SIGKILL)
    ran = len(pilots.ran)
    with CommandQueue(pilots.place, TERMS) as queue:
        assert queue.finished() == ran
        assert queue.put(jobs(1_001)).sent == 1
        assert queue.counts().open == 1_001 - ran


def test_a_replay_is_short_because_the_queue_was_copied(tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    place.make()
    with CommandQueue(place, TERMS) as queue:
        queue.put(jobs(5_000))
        queue.fail(queue.lease(1)[0], Cause.EXIT, final=True)
        look = place.look()
        head = queue._stand(look)
        assert head is not None
        head.copy().join()
        head.answer("lease", ["w", "1", 10, 0.0, None, False])
        head.close()
        expected = queue.finished(), [each.job.index for each in queue.dead()], queue.owners()
    for log in sorted(place.folder.glob("log-*"))[:2]:
        log.write_bytes(b"")  # what was before the copy is not read again
    replica = Replica(place, TERMS)
    replica.catch_up(place.look())
    queue_again = replica.queue
    assert (queue_again.finished(), [each.job.index for each in queue_again.dead()]) == expected[:2]
    replica.close()


def test_a_copy_by_a_head_that_was_displaced_is_not_believed(tmp_path: Path) -> None:
    """It was suspended, took requests after another head had been made, and copied them."""
    place = Place(tmp_path / "run")
    place.make()
    with CommandQueue(place, TERMS) as queue:
        queue.put(jobs(10))
        old = queue._stand(place.look())
        assert old is not None
        with CommandQueue(place, TERMS) as other:
            other.lease(1)
            new = other._stand(place.look())
            assert new is not None
            old.answer("purge", [])
            old.commit()
            old.copy().join()
            new.close()
            assert other.finished() == 0
            assert sum(other.counts()) == 10
    replica = Replica(place, TERMS)
    replica.catch_up(place.look())
    assert sum(replica.queue.counts()) == 10
    replica.close()
