"""What every queue promises. One suite, every queue: another one is a row of QUEUES.

A queue needs no verb but those of `engine.Queue`. Where it has others too (`finished`, `next_visible`,
`release_owner`), its row says so, or it simply has them, and the suite looks at what they say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distributed_something.engine import Counts, PutReport
from distributed_something.job import LARGE_BODY, MAX_DELIVERIES, Cause, Earlier, Job, RetryPolicy
from distributed_something.local.queue import SqliteQueue
from distributed_something.testing import FakeClock, MemoryQueue

TERM = 120.0
POLICY = RetryPolicy(attempts=3, backoff=10.0, limit=15.0)


def memory(folder: Path, clock: FakeClock) -> Any:
    return nullcontext(MemoryQueue(policy=POLICY, term=TERM, owner="w1", clock=clock))


def sqlite(folder: Path, clock: FakeClock) -> Any:
    return closing(SqliteQueue(folder / "queue.db", policy=POLICY, term=TERM, owner="w1", clock=clock))


def sqs(folder: Path, clock: Any) -> Any:
    from emulating import new_queues, session

    return sqs_queue(session(), new_queues(), clock)


def ministack(folder: Path, clock: Any) -> Any:
    """SQS as somebody else understood it."""
    from emulating import new_queues, second_session

    return sqs_queue(second_session(), new_queues(second_session()), clock)


def sqs_queue(session: Any, urls: Any, clock: Any) -> Any:
    """The queue of the aws engine. It has one connection, so that batches arrive in their order."""
    from distributed_something.aws.sqs.queue import SqsQueue

    return SqsQueue(session, urls, policy=POLICY, term=TERM, clock=clock, connections=1)


def shared(folder: Path, clock: FakeClock) -> Any:
    """The queue of the slurm engine while no pilot runs: each verb is a moment as head."""
    from shared_queue import command_queue

    return closing(command_queue(folder, POLICY, TERM, clock))


def head(folder: Path, clock: FakeClock) -> Any:
    """The same as a worker asks for it, by way of files; at the end the log leads another one there, too."""
    from shared_queue import served

    return served(folder, POLICY, TERM, clock)


class Kind(NamedTuple):
    """A queue: how one is opened in a folder (a context manager), and what it can beyond engine.Queue."""

    open: Callable[[Path, Any], Any]
    order: bool = False
    """Jobs come in the order of submission."""
    foresight: bool = False
    """It knows when the next job comes free (`next_visible`), and tells a delay from a lease."""
    owners: bool = False
    """It knows who holds which job (`release_owner`)."""
    late: bool = False
    """It renews a lease that has run out, as long as nobody has taken the job since."""
    waits: bool = True
    """`lease` waits for a job."""
    many: int = 250
    """As many jobs as show what a batch does, in a second or so."""


QUEUES = {
    "memory": Kind(memory, order=True, foresight=True, owners=True, late=True, many=60_000),
    "sqlite": Kind(sqlite, order=True, foresight=True, owners=True, late=True, many=60_000),
    "shared": Kind(shared, order=True, foresight=True, owners=True, late=True, waits=False, many=60_000),
    "head": Kind(head, order=True, foresight=True, owners=True, late=True, many=60_000),
    "sqs": Kind(sqs),
    "ministack": Kind(ministack),
}


class Counted:
    """A queue that does not say how many jobs are finished: whoever has submitted all of them can tell."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def put(self, jobs: Iterable[Job]) -> PutReport:
        report: PutReport = self._queue.put(jobs)
        self._sent += report.sent
        return report

    def purge(self) -> None:
        self._queue.purge()
        self._sent = 0

    def finished(self) -> int:
        counts = self._queue.counts()
        return self._sent - int(counts.open) - int(counts.dead)

    def next_visible(self) -> None:
        """It does not tell."""


@pytest.fixture(params=QUEUES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kind(engine: str) -> Kind:
    return QUEUES[engine]


# A test that needs one of these names it


@pytest.fixture
def order(kind: Kind) -> None:
    if not kind.order:
        pytest.skip("this queue keeps no order")


@pytest.fixture
def foresight(kind: Kind) -> None:
    if not kind.foresight:
        pytest.skip("this queue does not tell when a job comes free")


@pytest.fixture
def waits(kind: Kind) -> None:
    if not kind.waits:
        pytest.skip("this queue is that of commands, which lease nothing")


@pytest.fixture
def owners(kind: Kind) -> None:
    if not kind.owners:
        pytest.skip("this queue does not know who holds a job")


@pytest.fixture
def late(kind: Kind) -> None:
    if not kind.late:
        pytest.skip("this queue does not renew what has run out")


@pytest.fixture
def clock(engine: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    if engine == "sqs":
        from emulating import stopped_clock

        with stopped_clock() as clock:
            yield clock
        return
    if engine == "ministack" and "clock" in signature(request.function).parameters:
        pytest.skip("ministack's time cannot be moved")
    yield FakeClock()  # for ministack a wait is none: it does not know of it


@pytest.fixture
def queue(kind: Kind, tmp_path: Path, clock: Any) -> Iterator[Any]:
    with kind.open(tmp_path, clock) as queue:
        yield queue if hasattr(queue, "finished") else Counted(queue)


@pytest.fixture
def many(kind: Kind) -> int:
    return kind.many


def job(number: int) -> Job:
    body = b'{"group": {"n": %d}}' % number
    return Job(hashlib.sha256(body).hexdigest()[:16], number, body)


def jobs(count: int, start: int = 0) -> Iterator[Job]:
    return map(job, range(start, start + count))


def numbers(leases: Any) -> list[int]:
    return [each.job.keys["n"] for each in leases]


# Submitting


def test_a_new_queue_is_empty(queue: Any) -> None:
    assert queue.counts() == Counts()
    assert queue.lease(1) == []
    assert list(queue.dead()) == []
    assert queue.finished() == 0
    assert queue.next_visible() is None


def test_what_is_put_can_be_leased_as_it_was(queue: Any) -> None:
    assert queue.put([job(7)]) == PutReport(sent=1)
    (lease,) = queue.lease(1)
    assert (lease.job.id, lease.job.body) == (job(7).id, job(7).body)
    assert (lease.attempt, lease.deliveries) == (1, 1)


def test_a_large_job_is_leased_as_it_was_put(queue: Any, order: None) -> None:
    body = b'{"group": {"n": 9, "v": "%s"}}' % (b"x" * LARGE_BODY)
    given = [job(1), Job("f" * 16, 1, body), job(2)]
    assert queue.put(given) == PutReport(sent=3)
    assert queue.put(given) == PutReport(known=3)
    leases = queue.lease(9)
    assert [lease.job.body for lease in leases] == [each.body for each in given]
    queue.fail(leases[1], Cause.EXIT, final=True)
    assert [dead.job.body for dead in queue.dead()] == [body]
    queue.purge()
    assert queue.put(given) == PutReport(sent=3)


def test_the_index_counts_on_over_submissions(queue: Any) -> None:
    queue.put(jobs(3))
    queue.put([job(1), *jobs(2, start=10)])
    assert [lease.job.index for lease in queue.lease(9)] == [0, 1, 2, 3, 4]


def test_the_same_job_twice_in_a_submission_is_one_job(queue: Any) -> None:
    assert queue.put([job(1), job(2), job(1)]) == PutReport(sent=2, known=1)
    assert queue.counts() == Counts(waiting=2)


def test_a_job_submitted_again_is_known_whatever_became_of_it(queue: Any) -> None:
    queue.put(jobs(4))
    finished, broken, running = queue.lease(3)
    queue.done([finished])
    queue.fail(broken, Cause.EXIT, final=True)
    assert queue.put(jobs(4)) == PutReport(sent=0, known=4)
    assert queue.counts() == Counts(waiting=1, leased=1, dead=1)
    assert queue.renew([running])[1] == []


def test_nothing_put_is_nothing_sent(queue: Any) -> None:
    assert queue.put([]) == PutReport()


def test_a_submission_that_breaks_off_keeps_what_was_stored_and_can_be_repeated(
    queue: Any, many: int
) -> None:
    def breaks_off() -> Iterator[Job]:
        yield from jobs(many)
        raise RuntimeError("the job file ends here")

    with pytest.raises(RuntimeError, match="ends here"):
        queue.put(breaks_off())
    stored = queue.counts().waiting
    assert stored >= many * 0.4
    assert queue.put(jobs(many)) == PutReport(sent=many - stored, known=stored)
    leases = queue.lease(many + 10)
    assert numbers(leases) == [lease.job.index for lease in leases] == list(range(many))


# Leasing


@pytest.mark.parametrize("limit", [0, -1])
def test_no_more_than_the_limit_is_leased(queue: Any, limit: int) -> None:
    queue.put(jobs(5))
    assert queue.lease(limit) == []
    assert len(queue.lease(2)) == 2
    assert queue.counts() == Counts(waiting=3, leased=2)


def test_a_leased_job_is_hidden_until_its_deadline(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    (lease,) = queue.lease(1)
    assert lease.deadline == clock.now() + TERM
    clock.advance(TERM - 1)
    assert queue.lease(1) == []
    clock.advance(1)
    assert queue.counts() == Counts(waiting=1)
    (again,) = queue.lease(1)
    assert again.token != lease.token


@pytest.mark.fault(17)
def test_a_lost_worker_costs_its_job_a_delivery_but_no_attempt(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    for delivery in range(1, 30):
        (lease,) = queue.lease(1)
        assert (lease.attempt, lease.deliveries) == (1, delivery)
        clock.advance(TERM)
    assert queue.counts() == Counts(waiting=1)


@pytest.mark.usefixtures("waits")
def test_leasing_from_an_empty_queue_gives_up_after_the_wait(queue: Any, clock: FakeClock) -> None:
    start = clock.now()
    assert queue.lease(1, wait=20.0) == []
    assert clock.now() - start == pytest.approx(20.0, abs=0.05)


@pytest.mark.usefixtures("waits")
def test_waiting_ends_when_a_job_becomes_free(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    queue.lease(1)
    start = clock.now()
    assert numbers(queue.lease(5, wait=TERM * 2)) == [1]
    assert clock.now() - start == pytest.approx(TERM, abs=1.0)


@pytest.mark.fault(15)
def test_a_renewed_lease_outlives_its_first_term(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    leases = queue.lease(1)
    for _ in range(10):
        clock.advance(TERM * 0.9)
        leases, lost = queue.renew(leases)
        assert lost == []
        assert leases[0].deadline == clock.now() + TERM
        assert queue.lease(1) == []
    queue.done(leases)
    assert queue.finished() == 1


def test_a_lease_from_before_a_renewal_still_settles(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    first = queue.lease(1)
    clock.advance(TERM / 2)
    queue.renew(first)
    clock.advance(TERM / 2)
    queue.done(first)
    assert queue.finished() == 1


@pytest.mark.usefixtures("foresight")
def test_the_next_change_is_the_earliest_deadline(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(3))
    (lease,) = queue.lease(1)
    clock.advance(5)
    (other,) = queue.lease(1)
    assert queue.next_visible() == lease.deadline
    queue.done([lease])
    assert queue.next_visible() == other.deadline
    clock.advance(TERM)
    assert queue.next_visible() is None


# Order: for engines that keep one


@pytest.mark.usefixtures("order")
def test_jobs_come_in_the_order_of_submission(queue: Any) -> None:
    queue.put(jobs(25))
    assert numbers(queue.lease(10) + queue.lease(100)) == list(range(25))


@pytest.mark.usefixtures("order")
def test_expired_leases_come_before_jobs_never_tried(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(5))
    queue.lease(2)
    clock.advance(TERM)
    assert numbers(queue.lease(3)) == [0, 1, 2]


@pytest.mark.usefixtures("order")
def test_of_jobs_that_came_free_again_the_first_comes_first(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(4))
    first, second = queue.lease(1) + queue.lease(1)
    queue.release([second], delay=10.0)
    queue.release([first], delay=20.0)
    clock.advance(30)
    assert numbers(queue.lease(4)) == [1, 0, 2, 3]


@pytest.mark.usefixtures("order")
def test_jobs_released_at_once_take_their_old_places(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(4))
    first, second = queue.lease(2)
    queue.release([second])
    clock.advance(1)
    queue.release([first])
    assert numbers(queue.lease(4)) == [0, 1, 2, 3]


# Settling


def test_a_finished_job_never_comes_back(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(3))
    queue.done(queue.lease(2))
    clock.advance(TERM * 10)
    assert (queue.counts(), queue.finished()) == (Counts(waiting=1), 2)
    assert numbers(queue.lease(9)) == [2]


def test_settling_nothing_or_twice_is_no_error(queue: Any) -> None:
    queue.put(jobs(2))
    leases = queue.lease(2)
    queue.done([])
    queue.release([])
    assert queue.renew([]) == ([], [])
    queue.done([*leases, *leases])
    queue.done(leases)
    assert queue.finished() == 2


def test_a_released_job_is_there_at_once_and_no_attempt_counts(queue: Any) -> None:
    queue.put(jobs(3))
    queue.release(queue.lease(1))
    (lease, _) = queue.lease(2)
    assert lease.job.id == job(0).id
    assert lease.attempt == 1


def test_a_released_job_waits_out_its_delay(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    queue.release(queue.lease(1), delay=30.0)
    assert (queue.counts().waiting, queue.counts().open) == (0, 1)
    clock.advance(29)
    assert queue.lease(1) == []
    clock.advance(1)
    assert len(queue.lease(1)) == 1


@pytest.mark.usefixtures("foresight")
def test_a_delay_is_told_from_a_lease_and_its_end_is_known(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    queue.release(queue.lease(1), delay=30.0)
    assert queue.counts() == Counts(delayed=1)
    assert queue.next_visible() == clock.now() + 30.0


def test_a_failed_job_waits_longer_each_time(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    for attempt, delay in ((1, 10.0), (2, 15.0)):  # 20 s would be over the policy's limit
        (lease,) = queue.lease(1)
        assert (lease.attempt, lease.deliveries) == (attempt, 1)
        assert queue.fail(lease, Cause.EXIT, "exit code 1") is None
        assert queue.counts() == Counts(delayed=1)
        clock.advance(delay - 1)
        assert queue.lease(1) == []
        clock.advance(1)


@pytest.mark.fault(16)
def test_a_job_out_of_attempts_is_dead_with_its_reason_and_stays(queue: Any, clock: FakeClock) -> None:
    queue.put([job(0)])
    for _ in range(2):
        queue.fail(queue.lease(1)[0], Cause.EXIT)
        clock.advance(60)
    dead = queue.fail(queue.lease(1)[0], Cause.TIMEOUT, "3600 s were over")
    queue.put([job(1)])
    clock.advance(13 * 24 * 3600)  # SQS keeps nothing longer than 14 days
    assert queue.counts() == Counts(waiting=1, dead=1)
    assert list(queue.dead()) == [dead]
    assert (dead.job.id, dead.job.index, dead.job.body) == (job(0).id, 0, job(0).body)
    assert (dead.attempt, dead.cause, dead.detail) == (3, Cause.TIMEOUT, "3600 s were over")


def test_the_next_attempt_knows_what_earlier_ones_ran_short_of(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    assert queue.lease(1)[0].earlier == Earlier()
    clock.advance(10_000)
    for cause, earlier in ((Cause.TIMEOUT, Earlier(1, 0)), (Cause.OUT_OF_MEMORY, Earlier(1, 1))):
        queue.fail(queue.lease(1)[0], cause)
        clock.advance(60)
        (lease,) = queue.lease(1)
        assert lease.earlier == earlier
        queue.release([lease])
    dead = queue.fail(queue.lease(1)[0], Cause.EXIT)
    assert dead is not None and queue.redrive([dead.job.id]) == [dead.job.id]
    assert queue.lease(1)[0].earlier == Earlier()  # back as new


def test_a_final_failure_is_dead_at_once(queue: Any) -> None:
    queue.put([job(1)])
    dead = queue.fail(queue.lease(1)[0], Cause.INPUT_MISSING, "no such file", final=True)
    assert (dead.attempt, dead.cause) == (1, Cause.INPUT_MISSING)
    assert queue.counts() == Counts(dead=1)


def test_the_dead_are_listed_in_the_order_of_submission(queue: Any, many: int) -> None:
    count = min(many // 10, 1_200)
    queue.put(jobs(count))
    for lease in reversed(queue.lease(count)):
        queue.fail(lease, Cause.EXIT, final=True)
    assert numbers(queue.dead()) == list(range(count))


def test_every_state_is_counted(queue: Any) -> None:
    queue.put(jobs(20))
    queue.done(queue.lease(2))
    for lease in queue.lease(3):
        queue.fail(lease, Cause.EXIT, final=True)
    for lease in queue.lease(4):
        queue.fail(lease, Cause.EXIT)
    queue.lease(5)
    assert queue.counts() == Counts(waiting=6, leased=5, delayed=4, dead=3)
    assert queue.counts().open == 15
    assert queue.finished() == 2


# Stale leases


def expired(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    clock.advance(TERM)
    return lease


def taken_over(queue: Any, clock: FakeClock) -> Any:
    lease = expired(queue, clock)
    queue.lease(1)
    return lease


def released(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    queue.release([lease])
    return lease


def finished(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    queue.done([lease])
    return lease


def failed(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    queue.fail(lease, Cause.EXIT)
    return lease


def dead(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    queue.fail(lease, Cause.EXIT, final=True)
    return lease


def purged(queue: Any, clock: FakeClock) -> Any:
    (lease,) = queue.lease(1)
    queue.purge()
    queue.put([job(1)])
    queue.lease(1)
    return lease


VERBS: dict[str, Callable[[Any, Any], object]] = {
    "done": lambda queue, lease: queue.done([lease]),
    "release": lambda queue, lease: queue.release([lease]),
    "release later": lambda queue, lease: queue.release([lease], delay=7.0),
    "renew": lambda queue, lease: queue.renew([lease]),
    "fail": lambda queue, lease: queue.fail(lease, Cause.EXIT),
    "fail for good": lambda queue, lease: queue.fail(lease, Cause.EXIT, final=True),
}


@pytest.mark.fault(15)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("stale", [expired, taken_over, released, finished, failed, dead, purged])
def test_a_stale_lease_changes_nothing(
    queue: Any, clock: FakeClock, stale: Any, verb: str, kind: Kind
) -> None:
    if (stale, verb) == (expired, "renew") and kind.late:
        pytest.skip("a lease that nobody has taken over can still be renewed: see below")
    queue.put([job(1)])
    lease = stale(queue, clock)
    before = queue.counts(), queue.finished(), queue.next_visible(), list(queue.dead())
    answer = VERBS[verb](queue, lease)
    assert (queue.counts(), queue.finished(), queue.next_visible(), list(queue.dead())) == before
    assert answer == (([], [lease]) if verb == "renew" else None)


@pytest.mark.usefixtures("late")
def test_a_lease_that_ran_out_can_be_renewed_while_nobody_has_taken_the_job(
    queue: Any, clock: FakeClock
) -> None:
    """A laptop that was closed for an hour goes on with the jobs it had."""
    queue.put([job(1)])
    lease = expired(queue, clock)
    renewed, lost = queue.renew([lease])
    assert (len(renewed), lost) == (1, [])
    assert queue.lease(1) == []
    queue.done(renewed)
    assert queue.finished() == 1


@pytest.mark.usefixtures("owners")
def test_a_job_given_back_did_not_take_its_worker_down(queue: Any) -> None:
    queue.put([job(1)])
    for _ in range(3):
        (lease,) = queue.lease(1)
        assert lease.deliveries == 1
        queue.release([lease])


@pytest.mark.fault(17)
def test_however_often_a_job_is_given_back_it_is_not_taken_for_one_that_loses_its_workers(queue: Any) -> None:
    queue.put(jobs(2))
    for _ in range(3 * MAX_DELIVERIES):
        leases = queue.lease(2)
        assert [(lease.attempt, lease.deliveries <= MAX_DELIVERIES) for lease in leases] == [(1, True)] * 2
        queue.release(leases)
    assert queue.counts() == Counts(waiting=2)
    assert sorted(numbers(queue.lease(9))) == [0, 1]


def test_the_live_leases_of_a_batch_count_though_others_are_stale(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(3))
    old = queue.lease(1)
    clock.advance(TERM)
    new = queue.lease(2)
    renewed, lost = queue.renew([*old, *new])
    assert (len(renewed), lost) == (2, old)
    queue.done([*old, new[1]])
    assert (queue.finished(), queue.counts()) == (1, Counts(waiting=1, leased=1))


# Lost workers


@pytest.mark.fault(17)
@pytest.mark.usefixtures("owners")
def test_a_lost_workers_jobs_are_given_back_at_once(queue: Any, clock: FakeClock) -> None:
    queue.put(jobs(5))
    settled, *held = queue.lease(3)
    queue.done([settled])
    assert queue.release_owner("w2") == []
    assert queue.release_owner("w1") == held
    assert queue.counts() == Counts(waiting=4)
    again = queue.lease(2)
    assert numbers(again) == numbers(held)
    assert {(lease.attempt, lease.deliveries) for lease in again} == {(1, 2)}
    assert queue.renew(held) == ([], held)


@pytest.mark.usefixtures("owners")
def test_jobs_in_back_off_belong_to_no_worker(queue: Any) -> None:
    queue.put([job(1)])
    queue.fail(queue.lease(1)[0], Cause.EXIT)
    assert queue.release_owner("w1") == []
    assert queue.counts() == Counts(delayed=1)


# Redrive and purge


def kill(queue: Any, count: int) -> None:
    for lease in queue.lease(count):
        queue.fail(lease, Cause.EXIT, final=True)


def test_a_dead_job_that_is_dropped_is_out_for_good(queue: Any) -> None:
    queue.put(jobs(3))
    for lease in queue.lease(2):
        queue.fail(lease, Cause.EXIT, final=True)
    first, second = (each.job.id for each in queue.dead())
    assert queue.drop([first, job(9).id]) == [first]
    assert queue.counts() == Counts(waiting=1, dead=1)
    assert [each.job.id for each in queue.dead()] == [second]
    assert queue.redrive([first]) == []
    assert queue.put(jobs(1)) == PutReport(known=1)


def test_a_leased_job_is_not_dropped(queue: Any) -> None:
    queue.put([job(1)])
    (lease,) = queue.lease(1)
    assert queue.drop([job(1).id]) == []
    queue.done([lease])
    assert queue.drop([job(1).id]) == []


def test_a_waiting_job_is_dropped_where_it_can_be_found(queue: Any) -> None:
    queue.put(jobs(2))
    if dropped := queue.drop([job(0).id]):
        assert dropped == queue.drop([job(0).id]) == [job(0).id]
    assert queue.counts().open == 2 - len(dropped)
    assert numbers(queue.lease(2)) == list(range(len(dropped), 2))


def test_redriven_jobs_start_again_from_the_first_attempt(queue: Any, clock: FakeClock) -> None:
    queue.put([job(1)])
    queue.fail(queue.lease(1)[0], Cause.EXIT)
    clock.advance(60)
    kill(queue, 1)
    assert queue.redrive() == [job(1).id]
    (lease,) = queue.lease(1)
    assert (lease.attempt, lease.deliveries) == (1, 1)
    assert queue.redrive() == []


def test_only_the_named_dead_jobs_are_redriven(queue: Any) -> None:
    queue.put(jobs(6))
    kill(queue, 4)
    wanted = [job(2).id, job(0).id, job(2).id, job(5).id, "f" * 16, "no id at all"]
    assert queue.redrive(iter(wanted)) == [job(2).id, job(0).id]
    assert numbers(queue.dead()) == [1, 3]
    assert queue.redrive([]) == []
    assert queue.redrive() == [job(1).id, job(3).id]
    assert queue.counts() == Counts(waiting=6)


def test_a_purged_queue_knows_no_job(queue: Any) -> None:
    queue.put(jobs(6))
    kill(queue, 2)
    queue.done(queue.lease(2))
    queue.lease(1)
    queue.purge()
    assert (queue.counts(), queue.finished(), list(queue.dead())) == (Counts(), 0, [])
    assert queue.put(jobs(6)) == PutReport(sent=6)
    assert [lease.job.index for lease in queue.lease(9)] == list(range(6))
