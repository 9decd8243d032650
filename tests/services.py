"""Servers that tests need and a machine may lack: without CI their tests are skipped, in CI they fail."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ACCESS, SECRET = "tester-key", "tester-secret"
START_SECONDS = 60.0
LIFE_SECONDS = 1800


@dataclass(frozen=True)
class S3Server:
    """A server that speaks S3 on this machine, and what is different about it."""

    name: str
    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client_options(self) -> dict[str, str]:
        """What boto3.client needs to use it, whatever the environment says."""
        return {
            "endpoint_url": self.endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": ACCESS,
            "aws_secret_access_key": SECRET,
        }


def require(service: str) -> None:
    """Skip the test where a service is not installed; with CI=true it fails instead."""
    if _INSTALLED[service]():
        return
    said = f"{service} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{said}, and CI must not pass over its tests")
    pytest.skip(said)


def weed() -> str | None:
    """SeaweedFS's program: beside this Python, or on the PATH."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def chromium() -> str | None:
    """A browser that is installed on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _docker() -> object:
    import docking

    return docking.installed()


def _gluster() -> object:
    return os.getuid() == 0 and shutil.which("glusterfsd", path=f"{os.environ['PATH']}:/usr/sbin")


def _slurm() -> object:
    import clusters

    return clusters.installed()


def _sshd() -> object:
    import hosting

    return hosting.installed()


def ministack() -> str | None:
    """ministack's program: in the environment of its own that `make` gives it (it insists on one version of
    botocore), or on the PATH."""
    own = Path(sys.prefix, "ministack", "bin")
    return shutil.which("ministack", path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")


def cellprofiler() -> str | None:
    """CellProfiler's program: in the environment that `make programs` gives it, or on the PATH."""
    own = Path(sys.prefix, "cellprofiler", "bin")
    return shutil.which("cellprofiler", path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")


def omezarr() -> Path | None:
    """The folder of ome-zarr and what it needs: in the environment that `make programs` gives it."""
    return next(Path(sys.prefix, "omezarr").glob("lib/python3.*/site-packages/ome_zarr"), None)


_INSTALLED: dict[str, Callable[[], object]] = {
    "ministack": lambda: ministack() and find_spec("boto3"),
    "moto": lambda: find_spec("moto") and find_spec("flask") and find_spec("obstore"),
    "seaweedfs": lambda: weed() and find_spec("obstore"),
    "chromium": lambda: chromium() and find_spec("playwright"),
    "docker": lambda: _docker(),
    "podman": lambda: shutil.which("podman") and os.getuid() == 0 and Path("/bin/busybox").exists(),
    "pyarrow": lambda: find_spec("pyarrow"),
    "jupyter": lambda: find_spec("nbclient") and find_spec("ipykernel"),
    "slurm": lambda: _slurm(),
    "sshd": lambda: _sshd(),
    "glusterfs": lambda: (
        os.getuid() == 0 and shutil.which("glusterfsd", path=f"{os.environ['PATH']}:/usr/sbin")
    ),
    "nfs": lambda: (
        os.getuid() == 0
        and all(
            shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin") for each in ("linux.uml", "exportfs")
        )
    ),
    "bindfs": lambda: shutil.which("bindfs") and Path("/dev/fuse").exists(),
    "cellprofiler": cellprofiler,
    "imagej": lambda: Path("/usr/share/java/ij.jar").exists() and shutil.which("xvfb-run"),
    "ome-zarr": omezarr,
    "uv": lambda: shutil.which(
        "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ),
    "aiosmtpd": lambda: find_spec("aiosmtpd") and find_spec("apprise"),
}


class Servers:
    """Servers that all processes of a test run share. Each is started when first asked for; the last one
    to leave the context ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._found: dict[str, S3Server] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, name: str) -> S3Server:
        """A server that runs; the test is skipped where it is not installed (in CI it fails)."""
        require(name)
        if name not in self._found:
            self._found[name] = self._stack.enter_context(_shared(name, self._folder / f"{name}-server"))
        return self._found[name]


@contextmanager
def _shared(name: str, place: Path) -> Iterator[S3Server]:
    me = place / "users" / f"{os.getpid()}-{secrets.token_hex(4)}"
    with alone(place):
        if not (place / "url").exists():
            data = Path(tempfile.mkdtemp(dir=place))
            _start(place, data, *_COMMANDS[name](data))
        me.parent.mkdir(exist_ok=True)
        me.touch()
    try:
        yield S3Server(name, (place / "url").read_text())
    finally:
        with alone(place):
            me.unlink()
            if not any(Path("/proc", user.name.partition("-")[0]).exists() for user in me.parent.iterdir()):
                _end(place)


def bucket(server: S3Server) -> str:
    """The bucket of all tests, each below a prefix of its own: SeaweedFS reserves much space for a bucket."""
    import boto3

    client = boto3.client("s3", **server.client_options)
    with contextlib.suppress(
        client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
    ):
        client.create_bucket(Bucket="ds-tests")
    return "ds-tests"


def _moto(_place: Path) -> tuple[list[str], str, str]:
    url = f"http://127.0.0.1:{_free_port()}"
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]], url, "/"


def _seaweedfs(place: Path) -> tuple[list[str], str, str]:
    keys = {"accessKey": ACCESS, "secretKey": SECRET}
    identity = {"name": "tester", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    config = place / "s3.json"
    few = {"accessKey": f"{ACCESS}-few", "secretKey": SECRET}
    limited = {"name": "few", "credentials": [few], "actions": ["Read:ds-tests", "List:ds-tests"]}
    anyone = {"name": "anonymous", "actions": ["Read:ds-public", "List:ds-public"]}
    config.write_text(json.dumps({"identities": [identity, limited, anyone]}))
    servers = ("master", "volume", "filer", "s3")
    ports = {f"{name}.port{kind}": _free_port() for name in servers for kind in ("", ".grpc")}
    command = [str(weed()), "server", "-master.telemetry=false", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-dir={place}", f"-s3.config={config}", "-volume.max=64", "-master.volumeSizeLimitMB=256"]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    return command, f"http://127.0.0.1:{ports['s3.port']}", "/healthz"


def _ministack(place: Path) -> tuple[list[str], str, str]:
    port = _free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "LAMBDA_EXECUTOR": "local",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_DATA_DIR": str(place / "s3"),
        "TMPDIR": str(place),
    }
    given = [f"{name}={value}" for name, value in settings.items()]
    return ["env", *given, str(ministack())], f"http://127.0.0.1:{port}", "/_ministack/health"


_COMMANDS = {"moto": _moto, "seaweedfs": _seaweedfs, "ministack": _ministack}


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a folder, which is made, for one process at a time."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(place: Path, data: Path, command: list[str], url: str, health: str) -> None:
    """Start a server that outlives this process, but not LIFE_SECONDS; it answers when this returns."""
    script = 'exec >log 2>&1; setsid timeout -k 5 "$@" & echo $! >../pid'
    bounded = ["sh", "-c", script, "sh", str(LIFE_SECONDS), *command]
    subprocess.run(bounded, cwd=data, stdin=subprocess.DEVNULL, check=True)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url + health):
        assert time.monotonic() < deadline, f"{url} does not answer: {(data / 'log').read_text()[-2000:]}"
        time.sleep(0.1)
    (place / "url").write_text(url)


def _end(place: Path) -> None:
    (place / "url").unlink()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((place / "pid").read_text()), signal.SIGTERM)
    for data in filter(Path.is_dir, place.glob("tmp*")):
        shutil.rmtree(data, ignore_errors=True)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
