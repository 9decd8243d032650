"""The timeline of a run on rented machines: who came, who was lost, and why nothing ran for a while."""

from __future__ import annotations

from pathlib import Path

from distributed_something.dashboard.timeline import timeline
from distributed_something.engine import Machines, RentedMachine
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore


def test_machines_that_come_and_are_lost_explain_the_gaps(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    jobs = [Job(f"{n:016x}", n, b'{"group":{}}') for n in range(5)]
    write_jobs(store, paths.jobs + "a", jobs)
    ledger = LedgerWriter(store, paths.events + "w")

    def ended(event: str, n: int, began: float, until: float, machine: str, worker: str) -> None:
        state = State.SUCCEEDED if event == "succeeded" else State.WAITING
        cause = None if event == "succeeded" else Cause.INTERRUPTED
        outcome = Outcome(state, cause, seconds=until - began)
        ledger.ended(event, until, Lease(jobs[n], "", 0), outcome, machine=machine, worker=worker)

    ended("succeeded", 0, 1040, 1060, "i-a", "a1")
    ended("succeeded", 1, 1042, 1062, "i-a", "a2")
    ended("interrupted", 2, 1062, 1080, "i-a", "a1")
    ended("succeeded", 2, 1130, 1150, "i-b", "b1")
    ended("succeeded", 3, 1180, 1200, "i-b", "b1")
    ledger.flush()
    rented = (
        RentedMachine("i-a", running=False, since=1000, ended=1080, why="taken back by AWS", lost=True),
        RentedMachine("i-b", running=True, since=1110),
        RentedMachine("i-c", running=True, since=1190),
    )
    fold = Fold(store, paths).update()
    found = timeline(fold, Machines(running=2, rented=rented), 1200.0)

    assert found is not None
    assert [(lane["name"], lane["slot"]) for lane in found["lanes"]] == [
        ("i-a", 1), ("i-a", 2), ("i-b", 1), ("i-c", 1),
    ]  # fmt: skip
    assert [lane["here"] for lane in found["lanes"]] == [(0, 400), (0, 400), (550, 450), (950, 50)]
    assert [lane["lost"] for lane in found["lanes"]] == ["taken back by AWS"] * 2 + [None] * 2
    assert found["lanes"][3]["bars"] == []  # it came, and has not begun a job
    assert [gap["text"] for gap in found["gaps"]] == [
        "nothing ran for 40 s, from 0 ms on: machines were starting",
        "nothing ran for 50 s, from 1 min 20 s on: machines were starting",
        "nothing ran for 30 s, from 2 min 30 s on: machines were there, and no job began",
    ]
    later = timeline(fold, Machines(running=2, rented=rented), 1300.0)
    assert later is not None
    assert later["gaps"][-1]["text"] == (
        "nothing ran for 1 min 40 s, from 3 min 20 s on: machines were there, and no job began"
    )
    alone = timeline(fold, Machines(rented=rented[:1]), 1200.0)
    assert alone is not None
    assert [gap["text"].partition(": ")[2] for gap in alone["gaps"]][1:] == ["no machine was there"] * 2
    assert timeline(Fold(store, RunPaths("App", "other")).update(), Machines(), 1200.0) is None
