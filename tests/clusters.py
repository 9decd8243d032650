"""A real Slurm cluster on this machine, one for each process of a test run."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

from conftest import DsProject
from services import require

SCRIPTS = Path(__file__).parent / "cluster"
END_SECONDS = 150.0
PORTS = 10


def installed() -> bool:
    """Whether all of Slurm's programs are here, and we may start them."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    programs = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch")
    return os.getuid() == 0 and all(shutil.which(program, path=path) for program in programs)


class Cluster:
    """Four nodes, partitions `main`, `short` (one minute) and `preempt`, QOS `tight` (two jobs at a time)."""

    scratch: Path | None = None
    """A folder of the tests for what nodes keep on their own disks; None: each project has its own."""

    def __init__(self, folder: Path, port: int, **settings: str) -> None:
        self.folder = folder
        self._port = port
        self._settings = settings

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        given = {"SLURM_CONF": str(self.folder / "etc/slurm.conf")}
        own = {"DS_CLUSTER": str(self.folder), "DS_CLUSTER_PORT": str(self._port), **self._settings}
        return {**os.environ, **given, **own}

    def up(self) -> None:
        """Start what does not run."""
        self._script("up.sh")

    def down(self) -> None:
        """End it, with every job in it."""
        self._script("down.sh")

    def _script(self, name: str) -> None:
        done = subprocess.run(
            ["bash", SCRIPTS / name], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(self, *command: str) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self, form: str = "%T", *more: str) -> list[str]:
        """A line for each job that has not ended."""
        return self.run("squeue", "-h", "-r", "-o", form, *more).splitlines()

    def slurmd(self, node: str) -> int:
        """The process of a node's daemon."""
        return int((self.folder / f"state/slurmd-{node}.pid").read_text())

    def clear(self) -> None:
        """End every job, and bring every node back."""
        self.up()
        with suppress(AssertionError):
            self.run("scancel", "--state=PENDING", f"--user={os.environ.get('USER', 'root')}")
            self.run("scancel", f"--user={os.environ.get('USER', 'root')}")
        for node in self.run("sinfo", "-h", "-N", "-t", "down,drain", "-o", "%N").split():
            with suppress(AssertionError):
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        deadline = time.monotonic() + END_SECONDS
        while self.jobs():
            assert time.monotonic() < deadline, f"jobs do not end: {self.jobs('%i %j %T %r')}"
            time.sleep(0.2)


@contextmanager
def own_cluster(**settings: str) -> Iterator[Cluster]:
    """A cluster of this process. Its tests wait most of the time, so several clusters are little load."""
    require("slurm")
    folder = Path(tempfile.mkdtemp(prefix="ds-cl-", dir="/tmp"))  # a short path, as sockets lie in it
    folder.chmod(0o755)
    cluster = Cluster(folder, free_ports(PORTS), **settings)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def free_ports(count: int) -> int:
    """The first of so many ports in a row that no process uses."""
    while True:
        first = random.randrange(15_000, 30_000)
        with ExitStack() as bound, suppress(OSError):
            for port in range(first, first + count):
                bound.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


class ClusterProject(DsProject):
    """A project on a cluster. Its jobs note each of their starts in a file that nothing else writes."""

    keys: Mapping[str, object] = {
        "ENGINE": "slurm",
        "CLUSTER_MACHINES": 2,
        "MEMORY": 300,
        "SLURM_TIME": "30",
    }
    module = "slurm.pilot"
    """A pilot's process."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.scratch = cluster.scratch or folder.with_name("scratch")
        self.scratch.mkdir(exist_ok=True)
        self.environment |= cluster.environment | {"TMPDIR": str(self.scratch)}
        self.ran = folder / "ran"

    def config(self, **keys: object) -> DsProject:
        """Write config.py, with values for a small pilot."""
        command = f"echo {{n}} >> {quote(str(self.ran))}; sleep {{seconds}}; echo {{n}} > {{output_dir}}/n"
        return super().config(**{**self.keys, "COMMAND": command, "OUTPUT": "out/{n}", **keys})

    def numbered(self, count: int, seconds: float = 0.0) -> Path:
        """A job file."""
        return self.jobs(({"n": n} for n in range(count)), seconds=seconds)

    def starts(self) -> list[int]:
        """The job of each start."""
        return [int(line) for line in self.ran.read_text().split()] if self.ran.exists() else []

    def outputs(self) -> dict[int, str]:
        """What each job published."""
        return {int(file.parent.name): file.read_text() for file in self.folder.glob("data/out/*/n")}

    def pilots(self) -> list[int]:
        """The processes of the project's pilots, on whatever node."""
        return self.found(self.module)

    def first_pilots(self) -> list[int]:
        """The same, without the workers that each has forked."""
        return [pid for pid in self.pilots() if parent_of(pid) not in self.pilots()]

    def workers(self) -> list[int]:
        """The processes of the workers."""
        return [pid for pid in self.pilots() if parent_of(pid) in self.pilots()]

    def heads(self) -> list[int]:
        """The processes that hold the queue."""
        return self.found("cluster.shared.keeper")

    def found(self, module: str) -> list[int]:
        """Processes of a module of ours that work for this project: those that were started, not forked."""
        own = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                text = entry.read_bytes()
                if module.encode() in text and str(self.folder).encode() in text:
                    own.append(int(entry.parent.name))
        return sorted(own)

    def processes(self) -> list[int]:
        """Every process of the project on any node."""
        return [*self.pilots(), *self.heads()]

    def state(self) -> Path:
        """The app's folder."""
        return self.folder / ".ds" / f"App.{self.keys['ENGINE']}"

    def is_complete(self, count: int) -> None:
        """Every job has its output, and `ds` says so."""
        assert self.outputs() == {n: f"{n}\n" for n in range(count)}
        assert self.status()["jobs"]["succeeded"] == count

    def leaves_nothing(self, *, killed: bool = False) -> None:
        """What a killed process left on its node's own disk, the next one of its kind removes."""
        self.ds("cleanup", "--yes", timeout=120)
        assert not self.state().exists()
        wait_until(lambda: not self.processes(), "processes to end", 30)
        wait_until(lambda: not self.cluster.jobs(), "the scheduler's jobs to end", 30)
        if not killed:
            assert [*self.scratch.iterdir()] == []


def parent_of(pid: int) -> int:
    """The parent of a process; 0: it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def wait_until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds, looking less often than `until`: a look asks a controller."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
