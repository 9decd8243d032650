"""The queue on a shared file system that is worse than any that we have met."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_something.clock import SystemClock
from distributed_something.cluster.pilot import HeadTime
from distributed_something.cluster.shared.files import Files
from distributed_something.cluster.shared.head import stand
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.replica import Replica, Terms
from distributed_something.errors import DsError, Unreachable
from distributed_something.job import RetryPolicy
from distributed_something.testing import FakeClock
from keepers import jobs
from shared_queue import Exact, Turning, served, table

TERMS = Terms(RetryPolicy(3), 120.0)


class Worse(Files):
    """One node's view: what others made is not to be seen yet, handles are stale, replies are lost."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def _happens(self, share: float = 0.1) -> bool:
        return self._chance.random() < share

    def names(self, folder: Path) -> list[str]:
        """A listing lacks the newest names."""
        found = super().names(folder)
        if self._happens() and len(found) > 1:
            newest = max(found, key=lambda name: (folder / name).stat().st_mtime_ns)
            found.remove(newest)
        return found

    def read(self, path: Path, start: int = 0, most: int | None = None) -> bytes:
        """A file has been replaced, is not to be seen yet, or has not all of its content."""
        if self._happens(0.03):
            raise OSError(errno.ESTALE, "stale file handle", str(path))
        if self._happens(0.03):
            raise FileNotFoundError(errno.ENOENT, "not to be seen yet", str(path))
        found = super().read(path, start, most)
        return found[: len(found) // 2] if self._happens(0.03) else found

    def link(self, temporary: Path, path: Path) -> bool:
        """The reply to link(2) is lost: the repeated call says that the name is there."""
        if self._happens(0.3) and not path.exists():
            path.hardlink_to(temporary)
        return super().link(temporary, path)


def persist(action: Callable[[], Any]) -> Any:
    """What a command's user, or a worker, does: try again."""
    for _ in range(200):
        try:
            return action()
        except (Unreachable, OSError):
            continue
    raise AssertionError("it never worked")


@pytest.mark.parametrize("seed", range(5))
def test_no_job_is_lost_or_runs_twice_whatever_the_nodes_see(seed: int, tmp_path: Path) -> None:
    chance, clock = random.Random(seed), FakeClock()
    Place(tmp_path / "run").make()
    nodes = [
        Exact(Place(tmp_path / "run", Worse(chance)), TERMS, clock, owner=f"w{number}") for number in range(3)
    ]
    sent = persist(lambda: nodes[0].put(jobs(60)))
    assert sent.sent + sent.known == 60
    ran: Counter[int] = Counter()
    for _ in range(400):
        node = chance.choice(nodes)
        leases = persist(lambda node=node: node.lease(chance.randrange(1, 5)))  # type: ignore[misc]
        ran.update(lease.job.index for lease in leases)
        if leases:
            persist(lambda node=node, leases=leases: node.done(leases))  # type: ignore[misc]
        elif len(ran) == 60:
            break
    assert ran == Counter(range(60)), "each job once"
    for node in nodes:
        assert persist(node.finished) == 60
        node.close()
    replicas = [Replica(Place(tmp_path / "run"), TERMS) for _ in range(2)]
    for replica in replicas:
        replica.catch_up(replica.place.look())
    assert table(replicas[0]) == table(replicas[1])
    for replica in replicas:
        replica.close()


def test_a_file_that_never_comes_to_be_seen_is_one_clear_line(tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    place.make()
    with Exact(place, TERMS, FakeClock(), owner="w1") as queue:
        queue.put(jobs(3))
    next((tmp_path / "run").glob("log-*")).unlink()
    other = Replica(place, TERMS)
    with pytest.raises(DsError, match="cannot be read here yet"):
        other.catch_up(place.look())
    other.close()


class Limited(Files):
    """A folder whose quota is spent."""

    spent = False

    def append(self, path: Path, data: bytes) -> None:
        self._check(path)
        super().append(path, data)

    def publish(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        self._check(path)
        super().publish(path, data, sync=sync)

    def _check(self, path: Path) -> None:
        if self.spent:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))


def test_a_quota_that_is_spent_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    files = Limited()
    place = Place(tmp_path / "run", files)
    place.make()
    with Exact(place, TERMS, FakeClock(), owner="w1") as queue:
        queue.put(jobs(10))
        files.spent = True
        with pytest.raises(Unreachable, match="Disk quota exceeded") as caught:
            queue.put(jobs(20))
        assert "your quota" in caught.value.fix
        files.spent = False
        report = queue.put(jobs(20))
        assert report.sent + report.known == 20
        assert len(queue.lease(100)) == 20


class Skewed:
    """A node whose clock is minutes off."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.monotonic, self.wait = clock.monotonic, clock.wait

    def now(self) -> float:
        return self._clock.now() + self._seconds


@pytest.mark.parametrize("seconds", [-300.0, 300.0])
def test_a_lease_has_its_term_where_the_next_heads_clock_is_minutes_off(
    seconds: float, tmp_path: Path
) -> None:
    place, clock = Place(tmp_path / "run"), FakeClock()
    place.make()
    with Exact(place, TERMS, clock, owner="w1") as queue:
        queue.put(jobs(1))
        assert len(queue.lease(1)) == 1
    replica = Replica(place, TERMS)
    head = stand(replica, place.look(), TERMS, Skewed(clock, seconds))
    assert head is not None
    head.answer("extend", [])  # as each head does first
    before = head.now()
    clock.advance(119.0)
    assert head.answer("lease", ["w2", "2", 1, 0.0, None, False]) == []
    clock.advance(2.0)
    assert head.now() - before == 121.0
    assert len(head.answer("lease", ["w2", "2", 1, 0.0, None, False])) == 1
    head.close()
    replica.close()


def test_the_ledger_of_a_node_whose_clock_is_minutes_off_has_the_heads_time(tmp_path: Path) -> None:
    clock = FakeClock()
    with served(tmp_path, RetryPolicy(3), 120.0, clock) as queue:
        queue._clock = Ours(clock, queue._clock.head)  # type: ignore[attr-defined]
        queue.counts()
        assert abs(HeadTime(queue).now() - clock.now()) < 5.0


class Ours(Turning):
    """The clock of a node that is years after the head's."""

    def now(self) -> float:
        return SystemClock().now()
