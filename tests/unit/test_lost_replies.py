"""The queue in a shared folder: a request whose reply was lost with its head is asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distributed_something.cluster.shared.head import Head, stand
from distributed_something.cluster.shared.replica import Replica, Terms
from distributed_something.job import Cause, Job, RetryPolicy
from distributed_something.testing import FakeClock
from shared_queue import new_place

JOBS = [Job(f"{n:016x}", n, b'{"n":%d}' % n) for n in (1, 2)]
TOKENS = [f"{n:016x}" for n in (1, 2)]


class Heads:
    """Heads of one queue, each after the other; each has read what the one before it wrote."""

    def __init__(self, folder: Path, attempts: int) -> None:
        self._place, self._terms = new_place(folder), Terms(RetryPolicy(attempts, backoff=1.0), 120.0)
        self._clock = FakeClock()
        self._head: Head | None = None

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Asks a new head."""
        self._clock.advance(100.0)
        replica = Replica(self._place, self._terms)
        head = stand(replica, self._place.look(), self._terms, self._clock)
        assert head is not None
        result = head.answer(verb, [*arguments])
        head.close()
        replica.close()
        return result

    def put(self, *jobs: Job) -> None:
        submitted = self._place.put([(job.id, job.body.decode()) for job in jobs], self._clock.now())
        self.ask("load", submitted)

    def lease(self, token: str, *, again: bool = False) -> list[Any]:
        return list(self.ask("lease", "w1", token, 1, 0.0, None, again))


def said(found: list[Any]) -> list[Any]:
    return [found[1], found[3], found[5], found[7]]


@pytest.mark.fault(19)
def test_a_lease_asked_again_knows_the_attempts_before_it(tmp_path: Path) -> None:
    heads = Heads(tmp_path, attempts=3)
    heads.put(JOBS[0])
    (found,) = heads.lease(TOKENS[0])
    heads.ask("fail", said(found), Cause.TIMEOUT, "", False)
    (found,) = heads.lease(TOKENS[1])
    (again,) = heads.lease(TOKENS[1], again=True)
    assert found[7] != ""
    assert again == found


@pytest.mark.fault(19)
def test_what_a_request_put_back_is_said_again_and_once_only(tmp_path: Path) -> None:
    heads = Heads(tmp_path, attempts=1)
    heads.put(*JOBS)
    (found,) = heads.lease(TOKENS[0])
    heads.ask("fail", said(found), Cause.EXIT, "", False)
    heads.lease(TOKENS[1])
    for request, dead in (("1", [JOBS[0].id]), ("1", [JOBS[0].id]), ("2", [])):
        assert heads.ask("redrive", "command", request, [JOBS[0].id]) == dead
    for request, owned in (("3", [JOBS[1].id]), ("3", [JOBS[1].id]), ("4", [])):
        assert [each[0] for each in heads.ask("release_owner", "keeper", request, "w1")] == owned
