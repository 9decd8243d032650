"""Real container engines for tests, Docker and Podman, and an image that has a shell and no Python.

As root, with dockerd installed, the tests have an engine of their own on a private socket, which all
processes of a test run share: the first starts it, the last ends it. Otherwise one that answers is used.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services import alone, require

IMAGE = "distributed-something-test:1"
START_SECONDS = 60.0
LIFE_SECONDS = 1800


class Docker:
    """An engine that runs; `environment` leads a program to it, and keeps the worker for all tests."""

    name = "docker"
    state = '{{.Label "distributed-something.state"}}'

    def __init__(self, host: str | None, folder: Path) -> None:
        self.environment = {
            "XDG_CACHE_HOME": str(folder / "cache"),
            **({"DOCKER_HOST": host} if host else {}),
        }

    def __call__(self, *arguments: str, stdin: bytes = b"", code: int | None = 0) -> str:
        done = subprocess.run(
            [self.name, *arguments],
            input=stdin,
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=120,
            check=False,
        )
        assert code is None or done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout.decode()

    def containers(self, folder: Path) -> list[str]:
        """The containers, running or not, of the projects below a folder."""
        lines = self("ps", "--all", "--no-trunc", "--format", f"{{{{.ID}}}} {self.state}").splitlines()
        return [line.split()[0] for line in lines if str(folder) in line]


class Podman(Docker):
    """Podman with a storage of its own. It has no daemon."""

    name = "podman"
    state = "{{.Labels}}"

    def __init__(self, folder: Path) -> None:
        super().__init__(None, folder)
        runtime = "runc" if shutil.which("runc") else "crun"
        settings = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        settings += f'[engine]\ncgroup_manager = "cgroupfs"\nruntime = "{runtime}"\n'
        settings += f'lock_type = "file"\ntmp_dir = "{folder}/tmp"\n'  # else all storages share their locks
        (folder / "containers.conf").write_text(settings)
        places = f'graphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{places}')
        self.environment |= {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }


@contextmanager
def podman_engine() -> Iterator[Podman]:
    """Podman with `IMAGE`; the test is skipped where it is not installed (in CI it fails).

    Its folder has a short name: the end of a container whose sockets have long ones is seen late.
    """
    require("podman")
    with tempfile.TemporaryDirectory(prefix="ds-", ignore_cleanup_errors=True) as folder:
        found = Podman(Path(folder))
        try:
            _with_image(found)
            yield found
        finally:
            found("system", "reset", "--force", code=None)


@contextmanager
def docker_engine(folder: Path) -> Iterator[Docker]:
    """An engine with `IMAGE`; the test is skipped where there is none (in CI it fails)."""
    require("docker")
    if not _can_start():
        yield _with_image(Docker(os.environ.get("DOCKER_HOST"), folder))
        return
    place = folder / "docker-engine"
    me = place / "users" / f"{os.getpid()}-{secrets.token_hex(4)}"
    found = Docker(f"unix://{place}/d.sock", folder)
    with alone(place):
        me.parent.mkdir(exist_ok=True)
        if not any(map(_lives, me.parent.iterdir())):
            _start(place, found)
            _with_image(found)
        me.touch()
    try:
        yield found
    finally:
        with alone(place):
            me.unlink()
            if not any(map(_lives, me.parent.iterdir())):
                _end(place)


def installed() -> object:
    """Whether an engine can be started, or answers already."""
    if shutil.which("docker") is None or not Path("/bin/busybox").exists():
        return None
    asked = ["docker", "version"]
    return _can_start() or subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _can_start() -> bool:
    return os.getuid() == 0 and shutil.which("dockerd") is not None


def _lives(user: Path) -> bool:
    return Path("/proc", user.name.partition("-")[0]).exists()


def _start(place: Path, docker: Docker) -> None:
    root = place / "root"
    root.mkdir(exist_ok=True)
    options = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
    own = [f"--data-root={root}/data", f"--exec-root={root}/exec", f"--pidfile={place}/d.pid"]
    command = ["dockerd", *own, f"--host=unix://{place}/d.sock", *options, "--log-level=error"]
    with (place / "log").open("w") as log:
        subprocess.Popen(
            ["timeout", "-k", "10", str(LIFE_SECONDS), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ).returncode = 0  # it may outlive us, for the sake of others
    deadline = time.monotonic() + START_SECONDS
    while not docker("version", "--format", "{{.Server.Version}}", code=None).strip():
        assert time.monotonic() < deadline, (place / "log").read_text()[-2000:]
        time.sleep(0.1)


def _end(place: Path) -> None:
    """Ask dockerd to end and wait; then nothing of it is mounted, and its folder can go."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((place / "d.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while Path("/proc", str(pid)).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(f"{place}/")]):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(place / "root", ignore_errors=True)


def _with_image(docker: Docker) -> Docker:
    """Make the image: busybox under all its names, and a folder for temporary files."""
    names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in names.split():
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
    docker("import", "--change", "ENV PATH=/bin", "-", IMAGE, stdin=held.getvalue())
    return docker
