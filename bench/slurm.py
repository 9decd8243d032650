"""Slurm: no-op jobs by 4 pilots x 2 slots, beside HyperQueue and dask-jobqueue; waits, and calls of Slurm.

It starts a cluster of four nodes here, as the tests do (Debian: slurm-wlm slurmdbd munge mariadb-server).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path

from distributed_something.clock import SystemClock
from distributed_something.cluster.shared.keeper import Keeper
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue, SharedQueue
from distributed_something.cluster.shared.replica import Terms
from distributed_something.job import Job, RetryPolicy

from .tools import ds, four_steps, numbered_jobs, project, table, timed

SCRIPTS = Path(__file__).parents[1] / "tests/cluster"
PILOTS, SLOTS = 4, 2
QUEUED, BATCH, WORKERS = 100_000, 100, 8
TERMS = Terms(RetryPolicy(3), 120.0)
COMMAND = "true {n}"


def main(jobs: int) -> None:
    with cluster():
        rows = []
        for name, peer in (
            ("ds, first lease to last", own),
            ("HyperQueue", hyperqueue),
            ("dask-jobqueue", dask),
        ):
            before = _processor_seconds()
            try:
                seconds = peer(jobs)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{name}: not measured: {error}")
                continue
            spent = (_processor_seconds() - before) / jobs * 1000
            rows.append((name, f"{jobs / seconds:,.0f}/s", f"{spent:.2f} ms"))
        table(["no-op jobs, 4 pilots x 2 slots", "rate", "processor time a job, with start and end"], rows)
        _waits()
    _queue()


@contextmanager
def cluster() -> Iterator[None]:
    """Use a cluster, with programs of Slurm that count how often they are called."""
    folder = Path(tempfile.mkdtemp(prefix="ds-bench-", dir="/tmp"))
    folder.chmod(0o755)
    before = dict(os.environ)
    os.environ |= {"DS_CLUSTER": str(folder), "DS_CLUSTER_PORT": "31000"}
    subprocess.run(["bash", SCRIPTS / "up.sh"], check=True, capture_output=True)
    counted = folder / "counted"
    counted.mkdir()
    for name in ("squeue", "sbatch", "scancel", "scontrol"):
        program = counted / name
        program.write_text(f'#!/bin/sh\necho {name} >> {folder}/calls\nexec {shutil.which(name)} "$@"\n')
        program.chmod(0o755)
    os.environ |= {
        "SLURM_CONF": f"{folder}/etc/slurm.conf",
        "PATH": f"{counted}:{os.environ['PATH']}",
        "BENCH_CALLS": f"{folder}/calls",
    }
    try:
        yield
    finally:
        subprocess.run(["bash", SCRIPTS / "down.sh"], check=True, capture_output=True)
        os.environ.clear()
        os.environ |= before


def _cluster_project(**keys: object) -> dict[str, object]:
    given = {"ENGINE": "slurm", "CLUSTER_MACHINES": PILOTS, "DOCKER_CORES": SLOTS, "MEMORY": 500}
    return {**given, "SLURM_TIME": "30", "COMMAND": COMMAND, **keys}


def own(jobs: int) -> float:
    """Our pilots, from the first job's start to the last one's end."""
    with project(**_cluster_project()) as folder:
        return four_steps(folder, jobs)[0]


def _processor_seconds() -> float:
    """Processor time of all Slurm jobs so far, once they have ended: other load changes it little."""
    while subprocess.run(["squeue", "-h"], check=True, capture_output=True).stdout:
        time.sleep(0.2)
    time.sleep(3)  # until the database has it
    command = ["sacct", "-a", "-n", "-P", "-o", "JobIDRaw,TotalCPU"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    times = (line.partition("|")[2] for line in lines if ".batch" in line)
    return sum(sum(float(part) * 60**n for n, part in enumerate(reversed(each.split(":")))) for each in times)


def hyperqueue(jobs: int) -> float:
    """A server and 4 workers of 2 processors in one allocation, without their start and end."""
    return _in_allocation("hyperqueue_peer.py", jobs)


def dask(jobs: int) -> float:
    """4 Slurm jobs with 2 processes each, without their start and end."""
    return float(_peer("dask_peer.py", jobs, os.environ | {}).split()[-1])


def _peer(script: str, jobs: int, environment: dict[str, str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name(script)), folder, str(jobs), str(PILOTS)]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, cwd=folder
        )
        return done.stdout


def _in_allocation(script: str, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = f"{sys.executable} {Path(__file__).with_name(script)} {folder} {jobs} {PILOTS}"
        given = ["-N4", "-n4", "-c2", "--wait", f"-o{folder}/out", "--wrap", command]
        subprocess.run(["sbatch", *given], check=True, capture_output=True)
        return float(Path(folder, "out").read_text().split()[-1])


def _waits() -> None:
    """The first job, `ds status`, and calls of Slurm's programs in a run of a minute and more."""
    calls = Path(os.environ["BENCH_CALLS"])
    command = "test -e {first} || date +%s.%N > {first}; sleep 0.5"
    with project(**_cluster_project(COMMAND=command)) as folder:
        first = folder / "first"
        path = numbered_jobs(folder, 1200)
        path.write_text("".join(f'{{"n": {n}, "first": "{first}"}}\n' for n in range(1200)))
        ds(folder, "setup")
        ds(folder, "submit", path)
        calls.write_text("")
        began = time.time()
        ds(folder, "start", "--wait", "0")
        while not first.exists() or not first.read_text():
            time.sleep(0.01)
        waited = float(first.read_text()) - began
        monitor = subprocess.Popen([sys.executable, "-m", "distributed_something", "-C", folder, "monitor"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        status = min(timed(lambda: ds(folder, "status")) for _ in range(5))
        time.sleep(max(began + 75 - time.time(), 0))
        said = calls.read_text().split()
        monitor.wait()
    table(
        ["", "measured", "bar"],
        [
            ("ds start to the first job", f"{waited:.1f} s", "2 s"),
            ("ds status", f"{status:.2f} s", "0.3 s"),
            ("calls of squeue in the first 75 s", said.count("squeue"), "2 a minute after the first"),
            ("calls of other programs", len(said) - said.count("squeue"), ""),
        ],
    )


def _queue() -> None:
    """Many jobs through the queue alone, by processes on this machine; and a head that is killed."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    place = Place(folder / "run")
    place.make()
    with CommandQueue(place, TERMS) as queue:
        put = timed(lambda: queue.put(Job(f"{n:016x}", n, b'{"n": %d}' % n) for n in range(QUEUED)))
    keepers = [Keeper(place, TERMS, SystemClock(), folder) for _ in range(2)]
    ended: Queue[tuple[float, int]] = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=_work, args=(place, n, ended)) for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    times: list[tuple[float, int]] = []
    killed = 0.0
    while sum(count for _, count in times) < QUEUED:
        for keeper in keepers:
            keeper.tend(place.look())
        while not ended.empty():
            times.append(ended.get())
        pid = next((keeper.pid for keeper in keepers if keeper.pid), None)
        if not killed and pid and sum(count for _, count in times) > QUEUED // 2:
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
        time.sleep(0.02)
    for worker in workers:
        worker.join()
    for keeper in keepers:
        keeper.end()
    at = sorted(when for when, _ in times)
    back = next(when for when in at if when > killed + 0.5)
    working = (at[-1] - at[0]) - (back - killed)
    table(
        [f"{QUEUED:,} jobs, {WORKERS} workers, batches of {BATCH}", "measured", "bar"],
        [
            ("submitted", f"{QUEUED / put:,.0f}/s", ""),
            ("claimed and completed", f"{QUEUED / working:,.0f}/s", "5,000/s"),
            ("takeover after kill -9 of the head", f"{back - killed:.1f} s", "15 s"),
        ],
    )
    shutil.rmtree(folder, ignore_errors=True)


def _work(place: Place, number: int, ended: Queue[tuple[float, int]]) -> None:
    queue = SharedQueue(place, f"w{number}", patience=60.0)
    while leases := queue.lease(BATCH, 1.0):
        queue.done(leases)
        ended.put((time.monotonic(), len(leases)))
