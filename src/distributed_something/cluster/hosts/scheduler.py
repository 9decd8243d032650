"""Hosts by ssh as a scheduler of pilots: one pilot a host, which has no end of its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ...background import complain
from ...errors import DsError, UsageError
from ...inputs.config import Config
from ...inputs.secrets import variables_of
from ...system.state import make_private
from ..explain import Waiting
from ..folder import AppFolder
from ..pilots import ENDED, SILENT, Pilot, name_of
from ..shared.files import Files
from . import ssh

NO_HOSTS = UsageError("HOSTS names no host", "HOSTS = ['node1', 'user@node2'] in the config")


class HostsScheduler:
    """Implements scheduler.Scheduler. A host that does not answer is silent: its pilot has not ended."""

    name = "ssh"
    title = "ssh"

    def __init__(self, project: Path, config: Config, say: Callable[[str], None] = complain) -> None:
        self._project = project.absolute()
        self._config = config
        self._say = say
        self._app = AppFolder(self._project, config.app_name, self.name).folder
        self._name = name_of(project, config.app_name)
        self._files = Files()

    def submit(self, count: int, run: str, _logs: Path, excluded: Collection[str]) -> Sequence[str]:
        """Starts pilots on hosts that have none, the first of HOSTS first. Returns the pilots' ids.

        Where a host refuses, the next one is tried. Raises DsError if all refuse.
        """
        if not self._config.hosts:
            raise NO_HOSTS
        make_private(self._hosts)  # by us, as NFS remembers what was not there
        taken = {*excluded, *(pilot.node for pilot in self.list())}
        free = [host for host in dict.fromkeys(self._config.hosts) if host not in taken]
        variables = {name: os.environ[name] for name in variables_of(self._config) if name in os.environ}
        if not free:
            self._say("no pilot was started: each host of HOSTS has one, or is excluded")
        started, refused = list[str](), list[DsError]()
        while free and len(started) < count:
            missing = count - len(started)
            chosen, free = free[:missing], free[missing:]
            call = ["start", self._name, run, str(self._project), str(self._app)]
            for host, answer in ssh.ask(chosen, self._project, call, variables).items():
                if isinstance(answer, DsError):
                    refused.append(answer)
                    continue
                self._files.publish(self._hosts / host, answer.encode())  # this computer sees it now
                started.append(answer)
        if refused and not started:
            raise refused[0]
        for error in refused:
            self._say(f"no pilot: {error.what}; fix: {error.fix}")
        return started

    def list(self) -> Sequence[Pilot]:
        """Asks each host that may have a pilot."""
        return [*self._found()]

    def _found(self) -> Iterator[Pilot]:
        call = ["look", self._name, str(self._app)]
        for host, answer in ssh.ask(self._noted(), self._project, call).items():
            if isinstance(answer, DsError):
                if pilot := self._pilot_on(host):
                    yield Pilot(pilot, running=True, state=SILENT, reason=answer.what, node=host)
            elif answer:
                pilot, since = answer
                yield Pilot(pilot, running=True, node=host, start=since)

    def cancel(self, ids: Iterable[str] = (), *, pending: bool = False) -> None:
        """Ends pilots: SIGTERM, then SIGKILL. None is ever pending. One on a silent host goes on."""
        wanted, noted = {*ids}, [] if pending else self._noted()
        hosts = [host for host in noted if not wanted or self._pilot_on(host) in wanted]
        for answer in ssh.ask(hosts, self._project, ["end", self._name, str(self._app)]).values():
            if isinstance(answer, DsError):
                self._say(f"a pilot may go on: {answer.what}; fix: {answer.fix}")

    def requeue(self, pilot: str) -> None:
        """Raises DsError: nothing starts a pilot again."""
        raise DsError(f"the pilot {pilot} does not come again", "ds start")

    def waiting(self, reason: str) -> Waiting:
        """Returns what it means that a pilot is ended, or silent."""
        return Waiting("ended" if reason == ENDED else "jobs that it holds go on, or come back by themselves")

    def _pilot_on(self, host: str) -> str:
        return self._files.peek(self._hosts / host).decode()

    @property
    def _hosts(self) -> Path:
        return self._app / "hosts"

    def _noted(self) -> Sequence[str]:
        """The hosts that may have a pilot."""
        return [name for name in self._files.names(self._hosts) if not name.startswith(".")]
