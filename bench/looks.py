"""What a look costs at 10,000 to a million ended jobs: each command, the page, the function that watches.

The function also at ten times as many. Times are of the processor, the least of some: other work on the
machine changes them little. `--jobs N`: at 2 N, 20 N and 200 N jobs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed_something.engine import StoredFile
from distributed_something.ledger import RunPaths
from distributed_something.ledger.live import LiveFold
from distributed_something.local.store import FolderStore

from .tools import project, table

RUN = "20231114T221320Z-0000"
START = 1_700_000_000.0
WORKERS = 40
DEAD_EVERY = 1_000
REPEATS = 5
CHUNK = 50_000
TIMES = 10
SAID = b"reading the plate\nValueError: no well A13 in BR00117035\n"
VIEWS: tuple[tuple[str, dict[str, object]], ...] = (
    ("again", {}),
    ("jobs by memory", {"order": "-memory"}),
    ("their last page", {"order": "-memory", "page": 10**9}),
    ("a word in all jobs", {"q": "br00012"}),
    ("jobs by a key", {"order": "key:Plate"}),
    ("by that key again", {"order": "-key:Plate"}),
)
"""What is looked at after the first view, one after the other."""


def main(jobs: int) -> None:
    rows: dict[str, list[str]] = {}
    sizes = [2 * jobs * 10**power for power in range(3)]
    for size in sizes:
        with _ended(size) as folder:
            for name, figure in _figures(folder, size, min(REPEATS, jobs)):
                rows.setdefault(name, []).append(figure)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    table(("looks", *(f"{size:,} jobs" for size in sizes)), [(name, *found) for name, found in rows.items()])


def _figures(folder: Path, size: int, repeats: int) -> Iterator[tuple[str, str]]:
    empty = min(_measured(["-c", "pass"])[1] for _ in range(2 * repeats))
    yield "an empty Python", f"{empty * 1000:.0f} ms"
    wall, cpu, memory = _ds(folder, "status")
    yield "first look", f"{wall:.2f} s, {cpu:.2f} s CPU, {memory} MB"
    job = f"{(min(DEAD_EVERY, size) - 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"
    commands = [["status"], ["logs", job], ["failures"], ["jobs", "--state", "dead"]]
    for words in commands:
        found = [_ds(folder, *words) for _ in range(repeats)]
        cpu = min(each[1] for each in found)
        shown = " ".join("JOB" if word == job else word for word in words)
        yield f"ds {shown}", f"{cpu * 1000:.0f} ms ({cpu / empty:.1f} x), {found[0][2]} MB"
    wall, cpu, memory = _ds(folder, "jobs", "--csv")
    yield "ds jobs --csv", f"{cpu:.2f} s, {size / cpu:,.0f} rows/s, {memory} MB"
    _write(folder, size, size + 1000, "late")
    wall, cpu, memory = _ds(folder, "status")
    yield "ds status, 1,000 events more", f"{cpu * 1000:.0f} ms, {memory} MB"
    words = [sys.executable, "-m", __name__, "page", str(folder)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    for (name, _), seconds in zip((("first view", {}), *VIEWS), said, strict=True):
        yield f"the page, {name}", f"{float(seconds) * 1000:.0f} ms"
    for times, name in ((1, "first"), (1, "a minute later"), (TIMES, f"first, {TIMES} times the jobs")):
        _write(folder, size + 1000, size + 2000, "later")
        wall, cpu, memory = _measured(["-m", __name__, "function", str(folder), str(times)])
        yield f"the function, {name}", f"{cpu:.2f} s, {memory} MB"


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
    words = [sys.executable, "-m", __name__, "write", str(folder), str(first), str(end), name]
    subprocess.run(words, check=True)


def _write_events(folder: str, first: str, end: str, name: str) -> None:
    store, paths = FolderStore(Path(folder, "data")), RunPaths("Bench", RUN)
    for worker in range(WORKERS):
        store.write(f"{paths.logs}worker-{worker}-3f2a1b.log", SAID * (1000 // len(SAID) + 2))
    for low in range(int(first), int(end), CHUNK):
        some = range(low, min(low + CHUNK, int(end)))
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
    fact |= {"log": f"{worker}.log@{n % 1000}+{len(SAID)}", "phases": {"in": 0.25, "out": 0.25}}
    if n % DEAD_EVERY != DEAD_EVERY - 1:
        yield json.dumps(fact) + "\n"
        return
    for attempt, event in enumerate(("failed", "failed", "dead"), 1):
        ended = {"event": event, "attempt": attempt, "t": START + n / 20 + attempt, "cause": "exit"}
        yield json.dumps({**fact, **ended, "exit_code": 4, "detail": "exit code 4"}) + os.linesep


def _view_page(folder: str) -> None:
    """Prints the seconds of CPU of the page's first view, and of each of VIEWS."""
    from distributed_something.console import Console
    from distributed_something.dashboard.model import Model
    from distributed_something.dashboard.select import asked
    from distributed_something.steps.project import Project

    model = Model(lambda: Project.open(Path(folder), Console()))
    for query in ({}, *(each for _, each in VIEWS)):
        began = time.process_time()
        model.look_again()
        model.overview(), model.jobs(asked(query), int(str(query.get("page", 1)))), model.failures()
        print(time.process_time() - began)


class _Repeated(FolderStore):
    """A store whose segments are there several times, under other names: a run of so many times the jobs."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self._times = times

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        for file in super().list(prefix):
            yield from (file._replace(key=f"{file.key}#{number}") for number in range(self._times))

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        return super().read_many((key.partition("#")[0], start, size) for key, start, size in pieces)


def _watch(folder: str, times: str) -> None:
    """Does what the auto-monitor does of a ledger, with AWS's own Python, which has no msgspec."""
    sys.modules["msgspec"] = None  # type: ignore[assignment]
    memory, kept = None, Path(folder, f"function-{times}.json")
    with suppress(OSError):
        memory = json.loads(kept.read_text())
    store = _Repeated(Path(folder, "data"), int(times))
    fold = LiveFold(store, RunPaths("Bench", RUN), memory).update()
    kept.write_text(json.dumps(fold.memory))
    assert fold.total
    assert fold.attempts


if __name__ == "__main__":
    parts: dict[str, Callable[..., None]] = {"write": _write_events, "page": _view_page, "function": _watch}
    parts[sys.argv[1]](*sys.argv[2:])
