"""Runs the benchmarks that are named, or all: python -m bench [NAME ...] [--jobs N]"""

from __future__ import annotations

import argparse
import compileall
from importlib import import_module

import distributed_something

BENCHMARKS = {
    "commands": "commands",
    "handlers": "handlers",
    "submit": "submit",
    "submit-sqs": "submit_sqs",
    "queue": "durable_queue",
    "startup": "startup",
    "looks": "looks",
    "requests": "requests",
    "scale": "scale",
    "s3": "s3_transfer",
    "rehearsal": "rehearsal",
    "slurm": "slurm",
}
"""The module of each; one is imported when it runs, as the memory of this process counts for its children."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--jobs", type=int, default=5000)
    options = parser.parse_args()
    for folder in distributed_something.__path__:  # as an installation does: it may be newer than that
        compileall.compile_dir(folder, quiet=1)
    for name in options.names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        import_module(f"bench.{BENCHMARKS[name]}").main(options.jobs)


if __name__ == "__main__":
    main()
