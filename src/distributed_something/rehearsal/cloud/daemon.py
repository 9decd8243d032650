"""Runs the process behind a rehearsal: the emulator and the pretend account, until a command ends it.

It holds a lock while it lives, and writes its address down. All that it starts ends with it, however it
ends. Its state lies in memory; S3 lies in folders.
"""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...background import READY, log_to, refuse
from ...errors import DsError
from ...inputs.config import load_config
from ...system.loopback import ADDRESS
from ...system.state import STATE_VARIABLE, open_private
from ...worker.attempt.process import adopt_orphans
from ..emulator.server import CREDENTIALS, SETTINGS, make_server
from ..place import Place, bucket_of

if TYPE_CHECKING:
    from .calls import Calls
    from .cloud import Cloud, Line
    from .containers import TaskContainers
    from .machines import Machine
    from .task import Task

TURN_SECONDS = 0.1
IDLE_SECONDS = 1800.0
"""Time without a call or a task, in seconds, after which the process ends."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
STAND_IN = "rehearsal"
"""What stands for each secret: a rehearsal reads none."""

WORKER = (sys.executable, "-m", "distributed_something", "worker")


class Daemon:
    """The emulator with all that belongs to it."""

    def __init__(self, project: Path, place: Place, command: tuple[str, ...] = WORKER) -> None:
        from ..emulator import ecs as moto_ecs

        moto_ecs.install()
        self._project = project
        self._place = place
        self._command = command
        self._config = load_config(project)
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._ended = threading.Event()
        self.containers, self.note = self._task_containers()
        self.endpoint = ""
        self.key = secrets.token_hex(16)
        self.cloud, self.calls = self._account()

    def _task_containers(self) -> tuple[TaskContainers | None, str]:
        """Returns how tasks run in containers; None, and why, where they are processes."""
        from ...aws.ecs.worker_image import injected_worker
        from .containers import task_containers

        injected = injected_worker(self._config)
        store = self._project / self._config.store
        return task_containers(self._config, bool(injected and injected.image), store)

    def _account(self) -> tuple[Cloud, Calls]:
        from ..emulator import fleets as moto_fleets
        from ..emulator.http import Dispatcher
        from ..emulator.s3 import Buckets
        from ..faults import Faults
        from .calls import Calls
        from .cloud import Cloud

        config = self._config
        cloud = Cloud(config.aws_region, Faults(), self._start, config.machine_price)
        moto_fleets.install(cloud.registry, cloud.active)
        buckets = Buckets(self._place.buckets, {bucket_of(config): self._project / config.store})
        calls = Calls(cloud, buckets, Dispatcher(), self.end)
        server = make_server(0, calls, self.key)
        self.endpoint = f"http://{ADDRESS}:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return cloud, calls

    def furnish(self) -> None:
        """Give the account what every account has. Raises DsError."""
        from ...s3.session import AwsSession
        from ..account import furnish

        furnish(AwsSession(self._config.aws_region, None, self.endpoint, self.key), self._config)
        self.calls.forget()

    def run(self) -> None:
        """Turns until `end` is called; then ends every task."""
        try:
            while not self._ended.is_set():
                self.calls.changed.wait(TURN_SECONDS)
                self.calls.changed.clear()
                self._turn()
                if time.monotonic() - self.calls.latest > IDLE_SECONDS and not self.cloud.busy():
                    return
        finally:
            self.cloud.kill_all()
            shutil.rmtree(self._place.work, ignore_errors=True)

    def _turn(self) -> None:
        try:
            self.cloud.turn()
            self._write_lines()
        except Exception:  # noqa: BLE001  the account must go on, whatever one fleet or service brings
            traceback.print_exc()
            time.sleep(1.0)

    def end(self) -> None:
        """Have `run` return soon."""
        self._ended.set()
        self.calls.changed.set()

    def _start(self, machine: Machine, record: Any, container: dict[str, Any]) -> Task:
        from .cloud import Line
        from .task import Task

        options = container.get("logConfiguration", {}).get("options", {})
        group, prefix = options.get("awslogs-group", ""), options.get("awslogs-stream-prefix", "task")
        stream = f"{prefix}/{container['name']}/{record.id}"
        folder = self._place.work / str(record.id)
        folder.mkdir(parents=True)
        command, environment = self._command, self._environment(machine, record, container, folder)
        if self.containers is not None and command == WORKER:
            command, environment = self._in_container(self.containers, container, environment, folder)
        return Task(
            command,
            environment,
            self._project,
            lambda text: self._lines.put(Line(group, stream, time.time(), text)),
        )

    def _in_container(
        self, containers: TaskContainers, container: dict[str, Any], environment: dict[str, str], folder: Path
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Returns what runs a task's container, and the environment of that command itself."""
        from .containers import removal
        from .task import REMOVES

        name = f"ds-{folder.name}"
        own = {key: value for key, value in environment.items() if key not in _INHERITED}
        command = containers.command(container, name, own, folder, self._place.folder)
        outside = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        mark = {STATE_VARIABLE: str(self._place.folder), REMOVES: removal(containers.docker, name)}
        return tuple(command), {**outside, **mark}

    def _environment(
        self, machine: Machine, record: Any, container: dict[str, Any], folder: Path
    ) -> dict[str, str]:
        """Returns a container's: what programs are found by, what the task says, and where the account is."""
        own = {each["name"]: each["value"] for each in container.get("environment", ())}
        own |= {each["name"]: STAND_IN for each in container.get("secrets", ())}
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **own,
            **dict.fromkeys(CREDENTIALS, self.key),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{self.endpoint}/ds/machines/{machine.id}",
            "ECS_CONTAINER_METADATA_URI_V4": f"{self.endpoint}/ds/tasks/{record.id}",
            "DS_MACHINE": machine.id,
            "DS_SCRATCH": str(folder),
            "DS_SETTLE_SECONDS": "1",  # the emulator's requests cost nothing, and its user watches
            STATE_VARIABLE: str(self._place.folder),
            **({} if machine.fate.works else {"PATH": str(folder / "nothing")}),
        }

    def _write_lines(self) -> None:
        """Put what tasks printed where CloudWatch's readers look, and into a file that stays."""
        lines: list[Line] = []
        with suppress(queue.Empty):
            while len(lines) < 10_000:
                lines.append(self._lines.get_nowait())
        if not lines:
            return
        with open(self._place.tasks_log, "a", opener=open_private) as file:
            file.writelines(f"{each.stream.rpartition('/')[2][:8]} {each.text}\n" for each in lines)
        self.cloud.log(lines)


def main(project: str, folder: str, held: str, *command: str) -> int:
    """Runs the process that a rehearsal's first command leaves behind. Prints "ready" or what is wrong, once.

    `held` is the descriptor of the lock, which that command took; `command` is what tasks run instead of the
    worker.
    """
    place = Place(Path(folder))
    os.set_inheritable(int(held), False)
    os.environ.update(SETTINGS | CREDENTIALS)
    adopt_orphans()
    caller = log_to(place.log)
    try:
        daemon = Daemon(Path(project), place, command or WORKER)
        daemon.furnish()
    except (DsError, OSError) as error:
        return refuse(caller, error)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: daemon.end())
    reached = {"endpoint": daemon.endpoint, "key": daemon.key}
    place.tasks_log.touch()  # messages name this file, whether tasks print or not
    place.tell({"pid": os.getpid(), **reached, "started": time.time(), "note": daemon.note})
    os.write(caller, READY)
    os.close(caller)
    daemon.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
