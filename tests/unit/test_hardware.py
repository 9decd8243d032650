"""How GPUs and processors are divided among slots."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.aws.shape import MachineShape, misfit, task_size
from distributed_something.errors import SickMachine, UsageError
from distributed_something.inputs.config import Config, config_of
from distributed_something.system.hardware import (
    THREADS,
    Gpus,
    Lender,
    Share,
    own_gpus,
    share_variables,
    slots_with_gpus,
)

FOUR = Gpus("nvidia", ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("slots", "wanted", "gpus", "shared", "found"),
    [
        (8, 0, 0, False, 8),
        (8, 1, 4, False, 4),
        (8, 2, 4, False, 2),
        (2, 1, 4, False, 2),
        (8, 1, 0, False, 0),
        (8, 1, 1, True, 8),
        (8, 2, 1, True, 0),
    ],
)
def test_there_are_no_more_slots_than_gpus_for_them(
    slots: int, wanted: int, gpus: int, shared: bool, found: int
) -> None:
    assert slots_with_gpus(slots, wanted, gpus, shared=shared) == found


def test_each_slot_has_gpus_of_its_own_unless_they_are_shared() -> None:
    assert [own_gpus(n, 2, FOUR.ids, shared=False) for n in (0, 1)] == [["a", "b"], ["c", "d"]]
    assert [own_gpus(n, 1, ("a", "b"), shared=True) for n in range(4)] == [["a"], ["b"], ["a"], ["b"]]
    assert own_gpus(3, 3, FOUR.ids, shared=True) == ["b", "c", "d"]


def test_threads_are_kept_to_the_slot_unless_they_are_set() -> None:
    found = share_variables(Share(1, 3, gpus=1), 16, FOUR, {"MKL_NUM_THREADS": "7"})
    assert found["OMP_NUM_THREADS"] == "5" and found["CUDA_VISIBLE_DEVICES"] == "b"
    assert found.keys() == {*THREADS, "CUDA_VISIBLE_DEVICES"} - {"MKL_NUM_THREADS"}
    assert share_variables(Share(0, 8), 4, Gpus(), {})["OMP_NUM_THREADS"] == "1"
    amd = share_variables(Share(0, 1, gpus=1), 4, Gpus("amd", ("0", "1")), {})
    assert amd["ROCR_VISIBLE_DEVICES"] == "0"


class Waiting(Exception):
    pass


def waits() -> None:
    raise Waiting


def lender(
    folder: Path | None, number: int = 0, usual: int = 0, *, packed: bool = True, **more: bool
) -> Lender:
    return Lender(Share(number, 4, usual, **more), folder, lambda: packed, lambda: FOUR)


def seen(found: dict[str, str] | None) -> str | None:
    return found and found["CUDA_VISIBLE_DEVICES"]


def test_two_jobs_never_have_the_same_gpu_and_one_waits_for_room(tmp_path: Path) -> None:
    first, second, third = (lender(tmp_path, number) for number in range(3))
    assert seen(first.lend(3, waits)) == "a,b,c"
    assert seen(second.lend(1, waits)) == "d"
    with pytest.raises(Waiting):
        third.lend(2, waits)
    second.take_back()
    assert seen(third.lend(1, waits)) == "d", "it holds nothing while it waits"
    first.take_back()
    assert seen(second.lend(2, waits)) == "a,b"


def test_a_job_that_says_nothing_sees_no_gpu_once_others_say_it(tmp_path: Path) -> None:
    assert seen(lender(tmp_path).lend(None, waits)) == ""
    assert lender(tmp_path, packed=False).lend(None, waits) is None
    assert seen(lender(tmp_path, packed=False).lend(0, waits)) == ""


def test_a_job_that_says_nothing_holds_the_gpus_of_its_slot(tmp_path: Path) -> None:
    usual = lender(tmp_path, 1, usual=1, packed=False)
    assert usual.lend(None, waits) is None, "its slot sees b already"
    assert seen(lender(tmp_path, 0).lend(2, waits)) == "a,c"


def test_gpus_that_are_shared_are_not_held(tmp_path: Path) -> None:
    assert [seen(lender(tmp_path, n, shared=True).lend(3, waits)) for n in (0, 1)] == ["a,b,c", "d,a,b"]


def test_a_slot_of_a_task_lends_its_own_share() -> None:
    slot = lender(None, 1, usual=2)
    assert [slot.lend(said, waits) for said in (None, 2)] == [None, None]
    assert [seen(slot.lend(said, waits)) for said in (1, 0)] == ["c", ""]


def test_a_machine_without_gpus_is_at_fault_and_a_job_that_needs_too_many_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the job needs 5 GPUs, and the machine has 4"):
        lender(tmp_path).lend(5, waits)
    with pytest.raises(SickMachine, match="no GPU is found"):
        Lender(Share(0, 1), tmp_path, find=Gpus).lend(1, waits)


def config(**keys: object) -> Config:
    return config_of({"APP_NAME": "App", **keys}, "run.json")


def test_a_task_on_aws_has_slots_for_its_gpus() -> None:
    shape = MachineShape(32, 128_000, 4)
    assert task_size(config(), shape).slots == 32
    assert task_size(config(GPUS=1), shape).slots == 4
    assert task_size(config(GPUS=1, TASKS_PER_MACHINE=2), shape).slots == 2
    assert misfit(config(GPUS=8), shape) == "a task has 4 GPUs, and a job needs GPUS = 8"
