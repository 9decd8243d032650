"""Attacks runs and checks from outside that nothing is lost: python -m bench.chaos

Each round is a small run in a folder of its own. Its workers are killed and suspended at random moments,
with --damage its queue is damaged too, and the commands are given again until the run has ended. Then: every
job has succeeded, its output is whole, a job ran twice only across a strike, and no process is left.
With `--engine rehearsal` each round is a rough day of an account: machines are taken back and die, calls fail
and are throttled, and workers and the monitor are killed besides. No attempt may be charged for it.
With `--engine slurm` workers, heads and pilots are killed and suspended, on the cluster that SLURM_CONF
names, or on one of four nodes that is started here. No attempt may be charged for it either.
A round is made from its seed alone: `--seed N --rounds 1` repeats it, but for the timing of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .slurm import cluster

ROUND_SECONDS = 120.0
"""Maximum time of a round, in seconds; of a rehearsal, and on a cluster, three times as much."""

SUSPENDED_SECONDS = 0.3

COMMAND = (
    "echo {n} $(date +%s.%N) >> {trace}; sleep {pause};"
    " echo first of {n} > {output_dir}/a; yes second of {n} | head -n 300 > {output_dir}/b"
)


class Done(NamedTuple):
    """What happened in one round."""

    jobs: int
    kills: int
    suspensions: int
    damages: int
    repeats: int


class Round:
    """One run and what is done to it."""

    def __init__(self, folder: Path, seed: int, *, damage: bool) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        if damage:
            self._kinds += ("damage",) * 3
        self._jobs = self._chance.randrange(10, 60)
        self._strikes: list[float] = []
        self._counts = {"kill": 0, "suspend": 0, "damage": 0}
        self._began = time.monotonic()

    def run(self) -> Done:
        """Run it to its end. Raises AssertionError where something is not as promised."""
        config = {"APP_NAME": "Chaos", "COMMAND": COMMAND, "OUTPUT": "out/{n}", **self._config()}
        (self._folder / "config.py").write_text("".join(f"{k} = {v!r}\n" for k, v in config.items()))
        pauses = [round(self._chance.uniform(0, self._longest), 3) for _ in range(self._jobs)]
        groups = [{"n": n, "pause": pause} for n, pause in enumerate(pauses)]
        jobs = {"trace": str(self._folder / "trace"), "groups": groups}
        (self._folder / "jobs.json").write_text(json.dumps(jobs))
        try:
            self._ds("setup")
            self._ds("submit", "jobs.json")
            self._attack()
            return self._checked()
        finally:
            self._ds(*self._last, check=False)

    _last: tuple[str, ...] = ("stop", "--now")
    _longest = 0.1
    """Longest job, in seconds."""
    _most = ROUND_SECONDS
    _between = 0.02, 0.3
    """Time between two strikes, in seconds."""
    _charges = True
    """Whether a strike may use up attempts."""
    _starts_again = True
    """Whether workers that are lost are not replaced by themselves."""
    _kinds: tuple[str, ...] = ("worker", "worker", "machine", "everything", "suspend")

    def _config(self) -> dict[str, object]:
        slots = self._chance.randrange(1, 5)
        return {"ENGINE": "local", "JOB_RETRIES": 30, "DOCKER_CORES": slots, "BACKOFF": 0}

    def _attack(self) -> None:
        """Runs it to its end under strikes."""
        self._ds("start")
        for _ in range(self._chance.randrange(1, 9)):
            time.sleep(self._chance.uniform(*self._between))
            self._strike()
        self._finish()

    def _finish(self) -> None:
        while self._ds("monitor", check=False) != 0:
            assert time.monotonic() - self._began < self._most, "the run does not end"
            if self._starts_again:
                self._ds("start", check=False)

    def _ds(self, *words: str, check: bool = True) -> int:
        command = [sys.executable, "-m", "distributed_something", "--yes", *words]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, timeout=self._most, check=False
        )
        said = f"ds {' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, said
        assert done.returncode == 0 or not check, said
        return done.returncode

    # Strikes

    def _strike(self) -> None:
        kind = self._chance.choice(self._kinds)
        if kind == "damage":
            self._damage_queue()
            return
        if not (struck := self._targets(kind)):
            return
        suspends = kind.startswith("suspend")
        self._strikes.append(time.time())
        for pid in struck:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if suspends else signal.SIGKILL)
        self._counts["suspend" if suspends else "kill"] += len(struck)
        if suspends:
            time.sleep(SUSPENDED_SECONDS)
            for pid in struck:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _targets(self, kind: str) -> list[int]:
        workers, machine = self._processes()
        if kind in ("machine", "everything"):
            return machine + workers * (kind == "everything")
        return self._one_of(workers)

    def _one_of(self, pids: list[int]) -> list[int]:
        return self._chance.sample(pids, min(1, len(pids)))

    def _processes(self) -> tuple[list[int], list[int]]:
        """Returns workers and machine process, as far as they live."""
        with suppress(OSError, ValueError):
            facts = json.loads(next(self._folder.glob(".ds/*/machine.json")).read_text())
            alive = set(self._marked())
            workers = [pid for pid in facts["workers"].values() if pid in alive]
            return workers, [pid for pid in [facts["pid"]] if pid in alive]
        return [], []

    def _marked(self) -> list[int]:
        mark, found = f"DS_STATE={self._folder}/.ds/".encode(), []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    def _damage_queue(self) -> None:
        queue = next(self._folder.glob(".ds/*/queue.db"), None)
        if queue is None:
            return
        self._strikes.append(time.time())
        self._counts["damage"] += 1
        kind = self._chance.choice(["emptied", "overwritten", "gone", "wrong type"])
        with suppress(OSError, sqlite3.Error):
            if kind == "emptied":
                os.truncate(queue, 0)
            elif kind == "overwritten":
                with queue.open("r+b") as file:
                    file.write(self._chance.randbytes(8192))
            elif kind == "gone":
                queue.unlink()
            else:
                db = sqlite3.connect(queue, timeout=1)
                db.execute("UPDATE jobs SET failed = 'abc' WHERE state = 0 AND token IS NULL")
                db.commit()
                db.close()

    # What must hold

    def _checked(self) -> Done:
        deadline = time.monotonic() + 20
        while left := self._marked():
            assert time.monotonic() < deadline, f"processes are left: {left}"
            time.sleep(0.05)
        command = [sys.executable, "-m", "distributed_something", "jobs", "--json"]
        listed = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=True)
        jobs = [json.loads(line) for line in listed.stdout.splitlines()]
        charged = [job["id"] for job in jobs if job["attempts"] != 1]
        assert self._charges or not charged, f"an attempt was charged: {charged[:3]}"
        assert [job["job"]["group"]["n"] for job in jobs] == list(range(self._jobs)), "a job is lost"
        assert {job["state"] for job in jobs} == {"succeeded"}, "a job did not succeed"
        for n in range(self._jobs):
            folder = self._folder / "data" / "out" / str(n)
            assert (folder / "a").read_text() == f"first of {n}\n", f"output of job {n}"
            assert (folder / "b").read_text() == f"second of {n}\n" * 300, f"output of job {n}"
        return Done(
            self._jobs,
            self._counts["kill"],
            self._counts["suspend"],
            self._counts["damage"],
            self._repeats(),
        )

    def _repeats(self) -> int:
        """Returns how many times a job ran again; each time a strike lies between the two starts."""
        starts: dict[int, list[float]] = {}
        for line in (self._folder / "trace").read_text().splitlines():
            name, at = line.split()
            starts.setdefault(int(name), []).append(float(at))
        assert starts.keys() == set(range(self._jobs)), "a job never ran"
        repeats = 0
        for number, times in starts.items():
            for first, second in zip(sorted(times), sorted(times)[1:], strict=False):
                repeats += 1
                # a job that was starting: its date is read a moment after its worker was struck
                explained = any(first - 1.0 <= strike <= second for strike in self._strikes)
                assert explained, f"job {number} ran twice, and nothing was struck between"
        return repeats


class Watched(Round):
    """A run whose monitor works from the first moment on, and is struck too."""

    _last = ("cleanup",)
    _most = 3 * ROUND_SECONDS
    _between = 0.2, 2.0
    _charges = False
    _start: tuple[str, ...] = ("start",)

    def _attack(self) -> None:
        self._ds(*self._start)
        self._monitor = self._watch()
        for _ in range(self._chance.randrange(1, 9)):
            time.sleep(self._chance.uniform(*self._between))
            self._strike()
            if self._monitor.poll() is not None:
                self._monitor = self._watch()
        with suppress(subprocess.TimeoutExpired):
            self._monitor.wait(2 * ROUND_SECONDS)
        self._monitor.kill()
        self._monitor.wait()
        self._finish()

    def _watch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed_something", "--yes", "monitor"]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self._folder, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    def _targets(self, kind: str) -> list[int]:
        if kind == "monitor":
            return [self._monitor.pid]
        return self._one_of(self._found()[kind.removeprefix("suspend ")])

    def _found(self) -> dict[str, list[int]]:
        """Returns the processes of each kind."""
        raise NotImplementedError


class RoughDay(Watched):
    """A rehearsal with faults of the account; the strikes are on workers, and on the monitor."""

    _kinds = ("worker", "worker", "monitor")
    _starts_again = False

    def _config(self) -> dict[str, object]:
        keys = {"ENGINE": "rehearsal", "CONTAINERS": False, "JOB_RETRIES": 1, "SQS_MESSAGE_VISIBILITY": 8}
        machines = {"CLUSTER_MACHINES": self._chance.randrange(1, 4), "TASKS_PER_MACHINE": 1}
        a, seed = self._chance.choice, self._chance.randrange(1000)
        rates = f"notice={a([0, 0.5, 3])}/min,kill={a([0, 0.5, 3])}/min,throttle={a([0, 5, 20])}%"
        more = f"error={a([0, 2, 10])}%,lag={a([0, 2, 5])}s,seed={seed}"
        self._start = ("start", "--faults", f"{rates},{more}")
        return {**keys, **machines, "DOCKER_CORES": self._chance.randrange(1, 4), "MACHINE_PRICE": 0.1}

    def _found(self) -> dict[str, list[int]]:
        return {"worker": [pid for pid in self._marked() if b"\0worker\0" in _command(pid)]}

    def _repeats(self) -> int:
        """Returns how many times a job ran again. When machines were lost is the emulator's secret."""
        names = [line.split()[0] for line in (self._folder / "trace").read_text().splitlines()]
        assert set(names) == {str(n) for n in range(self._jobs)}, "a job never ran"
        return len(names) - self._jobs


class ClusterRound(Watched):
    """A run by pilots; the strikes are on workers, on heads, which hold the queue, and on whole pilots."""

    _longest = 1.5
    _kinds = (
        "worker",
        "worker",
        "head",
        "pilot",
        "monitor",
        "suspend worker",
        "suspend head",
        "suspend pilot",
    )

    def _config(self) -> dict[str, object]:
        keys = {"ENGINE": "slurm", "MEMORY": 300, "SLURM_TIME": "30", "JOB_RETRIES": 1}
        machines = {"CLUSTER_MACHINES": self._chance.randrange(1, 4)}
        return {**keys, **machines, "DOCKER_CORES": self._chance.randrange(1, 4)}

    def _found(self) -> dict[str, list[int]]:
        ours = {pid: _command(pid) for pid in self._marked()}
        pilots = [pid for pid, command in ours.items() if b"slurm.pilot" in command]
        top = [pid for pid in pilots if _parent(pid) not in pilots]
        heads = [pid for pid, command in ours.items() if b"shared.keeper" in command]
        return {"worker": sorted({*pilots} - {*top}), "pilot": top, "head": heads}

    def _marked(self) -> list[int]:
        """Returns all processes that have the round's folder in their command, on whatever node."""
        mark = os.fsencode(self._folder)
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        return [pid for pid in pids if mark in _command(pid)]


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _parent(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


KINDS = {"local": Round, "rehearsal": RoughDay, "slurm": ClusterRound}


def _round(seed: int, *, damage: bool, kind: type[Round]) -> Done | None:
    """Runs one round in a folder of its own; None: it did not hold, and stderr says why."""
    with tempfile.TemporaryDirectory(prefix="ds-chaos-") as folder:
        try:
            return kind(Path(folder).resolve(), seed, damage=damage).run()
        except (AssertionError, subprocess.SubprocessError) as error:
            print(f"seed {seed}: {error}", file=sys.stderr, flush=True)
            return None


def main(words: Sequence[str] | None = None) -> int:
    """Runs rounds and prints their sums. Returns 1 if one did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round; the next has one more")
    parser.add_argument("--damage", action="store_true", help="damage the queue too")
    parser.add_argument("--engine", choices=KINDS, default="local")
    parser.add_argument("--at-a-time", type=int, default=4, help="rounds that run side by side")
    options = parser.parse_args(words)
    if options.damage and options.engine != "local":
        parser.error("--damage: of the engine local only")
    seeds = range(options.seed, options.seed + options.rounds)
    began = time.monotonic()
    one = partial(_round, damage=options.damage, kind=KINDS[options.engine])
    starts = options.engine == "slurm" and "SLURM_CONF" not in os.environ
    with cluster() if starts else nullcontext(), ThreadPoolExecutor(options.at_a_time) as rounds:
        ended = [each for each in rounds.map(one, seeds) if each]
    sums = Done(*map(sum, zip(Done(0, 0, 0, 0, 0), *ended, strict=True)))
    broken = options.rounds - len(ended)
    figures = ", ".join(f"{value:,} {name}" for name, value in sums._asdict().items())
    print(f"{options.rounds} rounds, {broken} broken: {figures}; {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
