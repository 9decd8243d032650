"""What a look costs at 10,000 to a million ended jobs: each command, the page, the function that watches.

Times are of the processor, the least of some: other work on the machine changes them little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore

from .tools import project, table

SIZES = (10_000, 100_000, 1_000_000)
RUN = "20231114T221320Z-0000"
START = 1_700_000_000.0
WORKERS = 40
DEAD_EVERY = 1_000
REPEATS = 5
CHUNK = 50_000

_PAGE = """
import sys, time
from pathlib import Path
from distributed_something.console import Console
from distributed_something.dashboard.model import Model
from distributed_something.dashboard.select import Wanted
from distributed_something.steps.project import Project
began = time.process_time()
model = Model(lambda: Project.open(Path(sys.argv[1]), Console()))
def view():
    model.overview(), model.jobs(Wanted(), 1), model.failures()
view()
first = time.process_time() - began
model.look_again()
began = time.process_time()
view()
print(f"{first:.3f} {time.process_time() - began:.3f}")
"""

_FUNCTION = """
import json, sys
from pathlib import Path
sys.modules["msgspec"] = None
from distributed_something.ledger import LiveFold, RunPaths
from distributed_something.local.store import FolderStore
store, paths = FolderStore(Path(sys.argv[1]) / "data"), RunPaths("Bench", sys.argv[2])
memory, kept = None, sys.argv[3]
try:
    memory = json.load(open(kept))
except OSError:
    pass
fold = LiveFold(store, paths, memory).update()
json.dump(fold.memory, open(kept, "w"))
assert fold.total
"""


def main(_jobs: int) -> None:
    rows: dict[str, list[str]] = {}
    for size in SIZES:
        with _ended(size) as folder:
            for name, figure in _figures(folder, size):
                rows.setdefault(name, []).append(figure)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    table(("looks", *(f"{size:,} jobs" for size in SIZES)), [(name, *found) for name, found in rows.items()])


def _figures(folder: Path, size: int) -> Iterator[tuple[str, str]]:
    empty = min(_measured(["-c", "pass"])[1] for _ in range(2 * REPEATS))
    yield "an empty Python", f"{empty * 1000:.0f} ms"
    wall, cpu, memory = _ds(folder, "status")
    yield "first look", f"{wall:.2f} s, {cpu:.2f} s CPU, {memory} MB"
    job = f"{(min(DEAD_EVERY, size) - 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"
    commands = [["status"], ["logs", job], ["failures"], ["jobs", "--state", "dead"]]
    for words in commands:
        found = [_ds(folder, *words) for _ in range(REPEATS)]
        cpu = min(each[1] for each in found)
        shown = " ".join("JOB" if word == job else word for word in words)
        yield f"ds {shown}", f"{cpu * 1000:.0f} ms ({cpu / empty:.1f} x), {found[0][2]} MB"
    wall, cpu, memory = _ds(folder, "jobs", "--csv")
    yield "ds jobs --csv", f"{cpu:.2f} s, {size / cpu:,.0f} rows/s, {memory} MB"
    _write(folder, size, size + 1000, "late")
    wall, cpu, memory = _ds(folder, "status")
    yield "ds status, 1,000 events more", f"{cpu * 1000:.0f} ms, {memory} MB"
    said = subprocess.run(
        [sys.executable, "-c", _PAGE, folder], check=True, capture_output=True, text=True
    ).stdout.split()
    yield "the page, first view", f"{float(said[0]) * 1000:.0f} ms"
    yield "the page, again", f"{float(said[1]) * 1000:.0f} ms"
    for name in ("the function, cold", "the function, a minute later"):
        wall, cpu, memory = _measured(["-c", _FUNCTION, str(folder), RUN, str(folder / "function.json")])
        yield name, f"{cpu:.2f} s, {memory} MB"
        _write(folder, size + 1000, size + 2000, "later")


def _ds(folder: Path, *words: str) -> tuple[float, float, int]:
    return _measured(["-m", "distributed_something", "-C", str(folder), *words])


def _measured(words: list[str]) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and megabytes that Python takes for this."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10


@contextmanager
def _ended(size: int) -> Iterator[Path]:
    """A project with a run of so many ended jobs, as the workers' ledger has them."""
    with project(COMMAND="true {n}") as folder:
        _write(folder, 0, size, "w")
        yield folder


def _write(folder: Path, first: int, end: int, name: str) -> None:
    """In a process of its own: what this one holds counts for those that it starts."""
    words = [sys.executable, "-m", __name__, str(folder), str(first), str(end), name]
    subprocess.run(words, check=True)


def _write_events(folder: Path, numbers: range, name: str) -> None:
    store, paths = FolderStore(folder / "data"), RunPaths("Bench", RUN)
    for low in range(numbers.start, numbers.stop, CHUNK):
        some = range(low, min(low + CHUNK, numbers.stop))
        ids = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in some]
        listed = [
            f'{{"id":"{job_id}","job":{{"group":{{"Plate":"BR{n // 96:05}","n":{n}}}}}}}\n'
            for n, job_id in zip(some, ids, strict=True)
        ]
        store.append(f"{paths.jobs}a.jsonl", "".join(listed).encode())
        events: list[list[str]] = [[] for _ in range(WORKERS)]
        for n, job_id in zip(some, ids, strict=True):
            events[n % WORKERS] += _lines(n, job_id)
        for worker, lines in enumerate(events):
            store.append(f"{paths.events}{name}{worker:02}.jsonl", "".join(lines).encode())


def _lines(n: int, job_id: str) -> Iterator[str]:
    worker = f"worker-{n % WORKERS}-3f2a1b"
    fact = {"t": START + n / 20, "event": "succeeded", "id": job_id, "attempt": 1, "worker": worker}
    fact |= {"machine": f"i-{n % WORKERS:017x}", "seconds": 12.5, "exit_code": 0, "max_rss_bytes": 1 << 28}
    fact |= {"cpu_seconds": 11.5, "bytes_in": 1 << 20, "bytes_out": 1 << 20, "output": f"out/{n}"}
    fact |= {"log": f"{worker}.log@{n}+20", "phases": {"in": 0.25, "out": 0.25}}
    if n % DEAD_EVERY != DEAD_EVERY - 1:
        yield json.dumps(fact) + "\n"
        return
    for attempt, event in enumerate(("failed", "failed", "dead"), 1):
        ended = {"event": event, "attempt": attempt, "t": START + n / 20 + attempt, "cause": "exit"}
        yield json.dumps({**fact, **ended, "exit_code": 4, "detail": "exit code 4"}) + os.linesep


if __name__ == "__main__":
    _write_events(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])), sys.argv[4])
