"""dask-jobqueue (PyPI): Slurm jobs of two processes each; a task starts /bin/true with an argument.

Prints the seconds from the submission to the last task's end.
"""

from __future__ import annotations

import subprocess
import sys
import time

from dask.distributed import Client
from dask_jobqueue import SLURMCluster


def run(number: int) -> int:
    return subprocess.run(["/bin/true", str(number)], check=True).returncode


if __name__ == "__main__":
    folder, jobs, pilots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    given = {"cores": 2, "processes": 2, "memory": "1GB", "interface": "lo", "walltime": "00:30:00"}
    with (
        SLURMCluster(**given, log_directory=folder, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(jobs=pilots)
        client.wait_for_workers(2 * pilots, timeout=120)
        began = time.perf_counter()
        client.gather(client.map(run, range(jobs)))
        print(time.perf_counter() - began)
