"""How GPUs and processors are divided among slots."""

from __future__ import annotations

import pytest

from distributed_something.aws.shape import MachineShape, misfit, task_size
from distributed_something.inputs.config import Config, config_of
from distributed_something.system.hardware import (
    THREADS,
    Gpus,
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


def config(**keys: object) -> Config:
    return config_of({"APP_NAME": "App", **keys}, "run.json")


def test_a_task_on_aws_has_slots_for_its_gpus() -> None:
    shape = MachineShape(32, 128_000, 4)
    assert task_size(config(), shape).slots == 32
    assert task_size(config(GPUS=1), shape).slots == 4
    assert task_size(config(GPUS=1, TASKS_PER_MACHINE=2), shape).slots == 2
    assert misfit(config(GPUS=8), shape) == "a task has 4 GPUs, and a job needs GPUS = 8"
