"""HyperQueue (PyPI): a server and workers of two cores here; a task is /bin/true with an argument.

Prints the seconds from the submission to the last task's end.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig

if __name__ == "__main__":
    folder, jobs, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 1
    with contextlib.redirect_stderr(io.StringIO()), LocalCluster() as cluster:
        for _ in range(workers):
            cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()
        job = Job(default_workdir=folder)
        for number in range(jobs):
            job.program(["/bin/true", str(number)], stdout=None, stderr=None)
        began = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
        print(time.perf_counter() - began)
