"""task-queue (PyPI) over its file queue: two processes, each task starts /bin/true with an argument."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import Process

from taskqueue import TaskQueue, queueable


@queueable
def run(number: int) -> None:
    subprocess.run(["/bin/true", str(number)], check=True)


def work(folder: str) -> None:
    queue = TaskQueue(f"fq://{folder}")
    queue.poll(lease_seconds=600, stop_fn=lambda **_: queue.empty, tally=False)


if __name__ == "__main__":
    from functools import partial

    place, jobs = sys.argv[1], int(sys.argv[2])
    TaskQueue(f"fq://{place}").insert([partial(run, number) for number in range(jobs)])
    workers = [Process(target=work, args=(place,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
