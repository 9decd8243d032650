"""Hosts on this machine: a real sshd on a port of its own, and the real ssh with a config of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from clusters import ClusterProject, free_ports
from services import require

PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


def installed() -> bool:
    """Whether OpenSSH's server and client are here."""
    return all(shutil.which(program, path=PATH) for program in ("sshd", "ssh", "ssh-keygen"))


class Sshd:
    """Hosts node1 to node3; `down`, where no server is; `stranger`, which takes no key of ours; `nowhere`,
    which has no address; `elsewhere` and `bare`, which have no folder, and no Python, of the paths here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        self.scratch = folder / "scratch"
        self._port = free_ports(2)
        for name in ("host", "key", "elsewhere", "bare", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        self._write("known_hosts", f"[127.0.0.1]:{self._port} {(folder / 'host.pub').read_text()}")
        missing = {"elsewhere": "2s#-d #-d /no#", "bare": "3s#-x #-x /no#"}
        forced = [
            f"command=\"sed '{sed}' | sh -s\" {(folder / name).with_suffix('.pub').read_text()}"
            for name, sed in missing.items()
        ]
        self._write("authorized_keys", "".join([(folder / "key.pub").read_text(), *forced]))
        self._write(
            "sshd_config",
            f"ListenAddress 127.0.0.1:{self._port}\nHostKey {folder / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nMaxStartups 100\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv TMPDIR={self.scratch} AWS_SHARED_CREDENTIALS_FILE={folder / 'aws'}\n",
        )
        self._write("bin/ssh", f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
        (folder / "bin/ssh").chmod(0o755)
        self.answer()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [str(shutil.which("sshd", path=PATH)), "-D", "-e", "-f", folder / "sshd_config"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)

    def answer(self, *silent: str) -> None:
        """Has every host answer but these."""
        lines = []
        for host in ("node1", "node2", "node3", "down", "elsewhere", "bare", "stranger"):
            key = host if host in ("elsewhere", "bare", "stranger") else "key"
            port = self._port + (host in (*silent, "down"))
            lines += [
                f"Host {host}",
                "HostName 127.0.0.1",
                f"Port {port}",
                f"IdentityFile {self.folder / key}",
            ]
        common = [f"UserKnownHostsFile {self.folder / 'known_hosts'}", f"User {getpass.getuser()}"]
        self._write("new", "\n".join([*lines, "Host *", *common, "IdentitiesOnly yes", ""]))
        (self.folder / "new").replace(self.folder / "ssh_config")

    def await_start(self) -> None:
        """Waits until it answers."""
        deadline = time.monotonic() + 20
        while subprocess.run(["ssh", "node1", "true"], env=self.environment, capture_output=True).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def jobs(self) -> list[str]:
        """There is no scheduler that could have any."""
        return []

    def clear(self) -> None:
        """Has every host answer, with an empty disk."""
        self.answer()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def end(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def own_sshd() -> Iterator[Sshd]:
    """The sshd of this process."""
    require("sshd")
    with tempfile.TemporaryDirectory(prefix="ds-ssh-") as folder:
        found = Sshd(Path(folder))
        try:
            found.await_start()
            yield found
        finally:
            found.end()


class HostsProject(ClusterProject):
    """A project on hosts."""

    keys: Mapping[str, object] = MappingProxyType({"ENGINE": "ssh", "HOSTS": ["node1", "node2"]})
    module = "hosts.pilot"
