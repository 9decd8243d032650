"""Runs the benchmarks that are named, or all: python -m bench [NAME ...] [--jobs N]"""

from __future__ import annotations

import argparse
import compileall
from collections.abc import Callable

import distributed_something

from . import (
    commands,
    durable_queue,
    handlers,
    looks,
    rehearsal,
    requests,
    s3_transfer,
    scale,
    slurm,
    startup,
    submit,
    submit_sqs,
)

BENCHMARKS: dict[str, Callable[[int], None]] = {
    "commands": commands.main,
    "handlers": handlers.main,
    "submit": submit.main,
    "submit-sqs": submit_sqs.main,
    "queue": durable_queue.main,
    "startup": startup.main,
    "looks": looks.main,
    "requests": requests.main,
    "scale": scale.main,
    "s3": s3_transfer.main,
    "rehearsal": rehearsal.main,
    "slurm": slurm.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--jobs", type=int, default=5000)
    options = parser.parse_args()
    for folder in distributed_something.__path__:  # as an installation does: it may be newer than that
        compileall.compile_dir(folder, quiet=1)
    for name in options.names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        BENCHMARKS[name](options.jobs)


if __name__ == "__main__":
    main()
