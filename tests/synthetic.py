"""A run's ledger and logs as workers would have written them, with as many jobs as a test wants."""

from __future__ import annotations

import json
from pathlib import Path

from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore

START = 1_700_000_000.0
RUN = "20231114T221320Z-0000"
SAID = ("ValueError: bad value '{n}'", "libpng error in /data/p{n}.png", "no licence left for slot {n}")


def write_run(project: Path, app: str, jobs: int, *, dead_every: int = 50) -> RunPaths:
    """A finished run below `project`/data: one job in `dead_every` is dead, after three attempts."""
    store, paths = FolderStore(project / "data"), RunPaths(app, RUN)
    listed, events, log, at = [], [], [], 0
    for n in range(jobs):
        job_id = f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}"
        body = json.dumps({"Pipeline": "v2", "group": {"Plate": f"BR{n // 96:05}", "Well": f"{n % 96}"}})
        listed.append(f'{{"id":"{job_id}","job":{body}}}\n')
        seconds, when = 1 + n * 7919 % 1000 / 100, START + n / 20
        fact = {"t": when, "id": job_id, "seconds": seconds, "worker": f"w{n % 40}", "machine": f"m{n % 10}"}
        figures = {"max_rss_bytes": 50_000_000 + n * 104729 % 400_000_000, "cpu_seconds": seconds * 0.4}
        if n % dead_every == dead_every - 1:
            text = f"reading\n{SAID[n // dead_every % 3].format(n=n)}\n"
            place = f"w-0.log@{at}+{len(text)}"
            log.append(text)
            at += len(text)
            failed = {
                **fact,
                **figures,
                "cause": "exit",
                "detail": "exit code 1",
                "exit_code": 1,
                "log": place,
            }
            names = ("failed", "failed", "dead")
            events += [
                {**failed, "event": name, "attempt": k + 1, "t": when + k} for k, name in enumerate(names)
            ]
        else:
            phases = {"in": seconds * 0.2, "out": seconds * 0.1}
            done = {
                "event": "succeeded",
                "attempt": 1,
                "exit_code": 0,
                "output": f"out/{n}",
                "phases": phases,
            }
            events.append({**fact, **figures, **done})
    store.append(paths.jobs + "a.jsonl", "".join(listed).encode())
    store.append(paths.events + "w.jsonl", "".join(json.dumps(e) + "\n" for e in events).encode())
    store.append(paths.logs + "w-0.log", "".join(log).encode() or b"\n")
    return paths
