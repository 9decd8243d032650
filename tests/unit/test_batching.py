"""Which jobs of a submission to SQS are new, and their numbers."""

from __future__ import annotations

from distributed_something.aws.sqs.batching import Submitted


def ids(*numbers: int) -> list[str]:
    return [f"{number:016x}" for number in numbers]


def test_new_jobs_have_the_next_numbers_and_known_ones_none() -> None:
    submitted = Submitted(lambda: ids(1, 2))
    submitted.begin()
    assert [submitted.take(each) for each in ids(1, 7, 2, 8)] == [None, 2, None, 3]


def test_jobs_that_were_not_stored_are_sent_again_each_with_a_number_of_its_own() -> None:
    submitted = Submitted(tuple)
    submitted.begin()
    assert [submitted.take(each) for each in ids(1, 2, 3)] == [0, 1, 2]
    submitted.confirm(ids(1))
    submitted.begin()
    assert [submitted.take(each) for each in ids(1, 2, 3, 4, 2)] == [None, 3, 4, 5, None]
