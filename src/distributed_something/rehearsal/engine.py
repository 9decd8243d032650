"""Runs the aws engine itself against an emulator that it starts.

The emulator's process is started by the first command that needs one, found again by later ones, and ended
with the run. Its S3 is the project's STORE: what a run has left there is read the same way when it is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import background
from ..aws.engine import AwsEngine
from ..budget import Quote
from ..clock import Clock
from ..engine import Counts, Machines, check_key
from ..errors import DsError
from ..inputs.config import Config
from ..inputs.fleetfile import is_key_placeholder
from ..ledger import RunPaths
from ..packing import Capacity
from ..runs.record import read_record, record_path
from ..s3.access import Access
from ..s3.buckets import Stores
from ..s3.session import AwsSession
from ..s3.store import S3Store
from ..system.containers.docker import STATE_LABEL, sweep
from ..system.files import read_regular
from ..system.state import make_private, state_folder
from ..worker.attempt.process import kill_marked
from . import story
from .account import Own, adapted
from .auth import signed
from .emulator import serving
from .emulator.clock import BriskClock
from .emulator.server import CREDENTIALS
from .faults import parse_faults
from .place import Place, bucket_of

END_SECONDS = 30.0  # time limit for the emulator's end, in seconds

ANEW = "ds run JOBFILE begins a new run"
_IMAGE = "rehearsal/not-pulled"
_ISOLATED = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def make(
    folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None], faults: str = ""
) -> RehearsalEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return RehearsalEngine(folder, config, clock, say, faults)


class RehearsalEngine:
    """Implements engine.Engine and engine.Renting.

    `faults` is a text that `faults.parse_faults` reads; `say` tells a person.
    Making one puts real credentials out of this process's reach.
    """

    name = "rehearsal"
    poll_interval = 0.5

    def __init__(
        self, project: Path, config: Config, clock: Clock, say: Callable[[str], None], faults: str = ""
    ) -> None:
        self._project = project
        self._given = config
        self._config = _pretended(config)
        self._clock = clock
        self._say = say
        self._place = Place(state_folder(project, f"{config.app_name}.rehearsal"))
        self._found: AwsEngine | None = None
        self._store: Stores | None = None
        self._store_at = ""
        self._faults = faults
        slow = parse_faults(faults or self._place.faults())
        self.final_poll_interval = 0.1 + slow.seconds(slow.lag)
        self.tasks_per_machine = config.tasks_per_machine
        self.job_bytes = AwsEngine.job_bytes
        isolate()

    # -- The emulator

    def _aws(self) -> AwsEngine | None:
        """Returns the aws engine, where an emulator runs."""
        endpoint = self._place.endpoint()
        if endpoint is None:
            self._found = None
        elif self._found is None or self._found.session.endpoint != endpoint:
            session = self._session(endpoint, self._place.key())
            self._found = AwsEngine(
                self._project,
                self._config,
                BriskClock(self._clock),
                session=session,
                task_logs=str(self._place.tasks_log),
            )
            self._tell_faults(endpoint)
        return self._found

    def _started(self) -> AwsEngine:
        """Returns the aws engine; an emulator is started where there is none."""
        found = self._aws()
        if found is not None:
            return found
        make_private(self._place.folder)
        with background.free(self._place.lock) as lock:
            if lock is not None:
                self._sweep()
                self._spawn(lock)
        found = self._aws()
        if found is None:
            raise DsError("the rehearsal's emulator is starting or ending just now", "try again")
        return found

    def _sweep(self) -> None:
        """Removes what a killed emulator left."""
        kill_marked(self._place.mark)
        if self._given.in_containers:
            sweep(STATE_LABEL, str(self._place.folder))

    def _needed(self) -> AwsEngine:
        found = self._aws()
        if found is None:
            if death := self._place.death():
                raise DsError(death, ANEW)
            raise DsError(f"{self._config.app_name} has no queue: it is not set up", "ds setup")
        return found

    def _spawn(self, lock: int) -> None:
        if find_spec("moto") is None:  # told here: the emulator itself has only its log to tell it to
            what = "a rehearsal needs a library that is not installed: moto"
            raise DsError(what, "pip install 'distributed-something[rehearsal]'")
        command = [
            sys.executable,
            "-m",
            f"{__package__}.cloud.daemon",
            str(self._project),
            str(self._place.folder),
        ]
        failure, log = "the emulator did not start", self._place.log
        background.leave(command, lock, os.environ, failure=failure, log=log)

    def _say_death(self) -> None:
        if death := self._place.death():
            self._say(f"note: {death}; what has succeeded stays")

    def _tell_faults(self, endpoint: str) -> None:
        if self._faults:
            ask(endpoint, "faults", self._place.key(), self._faults.encode())
            self._place.tell({**self._place.told(), "faults": self._faults})

    def _end_emulator(self) -> None:
        endpoint = self._place.endpoint()
        if endpoint is not None:
            with suppress(OSError):
                ask(endpoint, "end", self._place.key(), b"")
        deadline = self._clock.monotonic() + END_SECONDS
        while self._place.alive():
            if self._clock.monotonic() > deadline:
                raise DsError(
                    f"the emulator did not end within {END_SECONDS:.0f} s", "ds cleanup --engine rehearsal"
                )
            self._clock.wait(0.02)
        self._sweep()
        self._place.facts.unlink(missing_ok=True)
        self._found = None

    # -- engine.Engine

    @property
    def store(self) -> Stores:
        """The bucket, and others: the emulator's, or, where that has gone, its folder."""
        endpoint = self._place.endpoint()
        address, key = self._served if endpoint is None else (endpoint, self._place.key())
        if self._store is None or self._store_at != address:
            session, self._store_at = self._session(address, key), address
            home = FolderBucket(self._config.aws_bucket, session, self._project / self._given.store)
            self._store = Access(self._config, session).joined(home)
        return self._store

    @cached_property
    def _served(self) -> tuple[str, str]:
        """The address and the key of the folders, served by this process."""
        folders, key = {bucket_of(self._given): self._project / self._given.store}, secrets.token_hex(16)
        return serving.serve(self._place.buckets, folders, key), key

    def _session(self, endpoint: str, key: str) -> AwsSession:
        return AwsSession(self._config.aws_region, None, endpoint, key)

    def capacity(self) -> Capacity:
        """Returns what a task has for jobs."""
        found: Capacity = self._started().capacity()
        return found

    def current_run(self) -> str | None:
        """Returns the run that the queue belongs to."""
        found = self._aws()
        return None if found is None else found.current_run()

    def plan(self, run: str) -> Sequence[str]:
        """Returns the steps of `setup`."""
        return self._started().plan(run)

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """As on AWS, in an account that has what accounts have."""
        for name in ("dockerhub_tag", "aws_bucket"):
            if not getattr(self._given, name):
                self._say(f"note: {name.upper()} is missing: the rehearsal does without, AWS does not")
        if self._given.ssh_key_name and not self._config.ssh_key_name:
            self._say("note: SSH_KEY_NAME is a placeholder: the rehearsal does without, AWS refuses it")
        self._say_death()
        aws = self._started()
        if aws.current_run() != run:
            ask(str(aws.session.endpoint), "forget", self._place.key(), b"")
        why = self._place.told().get("note")
        if self._given.image_starts_worker and (why or not self._given.in_containers):
            why = why or "CONTAINERS = False, or no image is named"
            raise DsError(
                f"the worker in the image runs in a container only: {why}",
                "give COMMAND, for our worker, or have Docker run and the image pulled",
            )
        if why:
            self._say(f"note: tasks are processes of this machine, not containers: {why}")
        aws.setup(run, on_created)

    def queue(self) -> Any:
        """Returns the queue of the current run."""
        return self._needed().queue()

    def check_fleet(self, fleet_file: Path) -> None:
        """Checks the file as AWS does, with the replaced values. Starts the emulator."""
        aws = self._started()
        aws.check_fleet(self._adapted(fleet_file, aws)[0])

    def quote(self, fleet_file: Path | None) -> Quote:
        """As on AWS, with MACHINE_PRICE as the price. Starts the emulator."""
        aws = self._started()
        return aws.quote(None if fleet_file is None else self._adapted(fleet_file, aws)[0])

    def start(
        self, run: str, fleet_file: Path | None, on_created: Callable[[str], None], most: int | None = None
    ) -> str:
        """As on AWS; what a fleet file has of a real account is replaced, and named."""
        aws = self._needed()
        if fleet_file is not None:
            fleet_file, replaced = self._adapted(fleet_file, aws)
            if replaced:
                self._say(f"note: {fleet_file.name}: the pretend account's own: {', '.join(replaced)}")
        return aws.start(run, fleet_file, on_created, most)

    def _adapted(self, fleet_file: Path, aws: AwsEngine) -> tuple[Path, Sequence[str]]:
        """Returns the file as the pretend account can have it, and what was replaced in it."""
        try:
            text, replaced = adapted(read_regular(fleet_file).decode(), Own.of(aws.region))
        except (OSError, UnicodeDecodeError):
            return fleet_file, ()  # who reads it says what is wrong
        if not replaced:
            return fleet_file, ()
        copy = self._place.folder / "fleet" / fleet_file.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)
        return copy, replaced

    def cancel(self, fleet: str) -> None:
        """Take back a fleet."""
        self._needed().cancel(fleet)

    def shrink(self, target: int, spare: int, busy: Collection[str]) -> Sequence[str]:
        """Ask for fewer machines."""
        return self._needed().shrink(target, spare, busy)

    def grow(self, target: int) -> None:
        """Ask for more machines."""
        self._needed().grow(target)

    def tried(self) -> Sequence[str]:
        """Returns what was asked for since the last call."""
        return self._needed().tried()

    def exclude(self, hosts: Collection[str]) -> None:
        """Ends bad machines."""
        self._needed().exclude(hosts)

    def guard(self) -> Sequence[str]:
        """Sets the alarms of silent machines, which never fire: the emulator measures no processor."""
        found = self._aws()
        return () if found is None else found.guard()

    def machines(self) -> Machines:
        """Returns how the machines are."""
        found = self._aws()
        if found is None:
            return Machines(replaces_lost=True, queue_lost=self._place.death())
        return found.machines()

    def explain(self, counts: Counts) -> str | None:
        """Returns why no job runs although some wait."""
        found = self._aws()
        return "the emulator has ended: ds setup" if found is None else found.explain(counts)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the app for one `ds run` at a time. The emulator ends where nothing is set up."""
        aws = self._started()
        try:
            with aws.exclusive():
                yield
        finally:
            found = self._aws()
            if found is not None and found.current_run() is None:
                self._end_emulator()

    def stop(self, *, now: bool = False) -> None:
        """No new jobs; those that run finish, or go back."""
        found = self._aws()
        if found is None:
            self._say_death()
        else:
            found.stop(now=now)

    def end(self) -> Sequence[str]:
        """Ends the machines, writes the story, and ends the emulator unless its queue keeps dead jobs.

        Without an emulator nothing is left. Without a queue the story is that of the run in the record.
        """
        aws = self._aws()
        if aws is None:
            return ()
        run = aws.current_run()
        dead = aws.queue().counts().dead if run is not None else 0
        left = [*aws.end()]
        if (run := run or self._recorded_run()) is not None:
            told = self._keep_story(aws, run, kept=("queue ",) if dead else ())
            left += [each for each in told["leftovers"] if each not in left]
        if dead:
            self._say("the emulator stays, for `ds retry`: `ds cleanup --engine rehearsal` ends it")
        else:
            self._end_emulator()
        return left

    def _recorded_run(self) -> str | None:
        path = record_path(self._project, self._config.app_name)
        return read_record(path).run if path.exists() else None

    def _keep_story(self, aws: AwsEngine, run: str, *, kept: tuple[str, ...]) -> dict[str, Any]:
        """Writes and returns the story of the run. Names that begin with `kept` are no leftovers."""
        paths = RunPaths(self._config.app_name, run)
        return story.keep(aws.store, paths, self._account(aws, kept), price=self._given.machine_price)

    def _account(self, aws: AwsEngine, kept: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns what the emulator has seen, and its leftovers without those that stay on purpose."""
        assert aws.session.endpoint is not None
        account: dict[str, Any] = json.loads(ask(aws.session.endpoint, "account", self._place.key()))
        kept += () if self._given.clean_dashboard else ("dashboard ",)
        account["leftovers"] = [each for each in account["leftovers"] if not each.startswith(kept)]
        return account

    def remove(self) -> Sequence[str]:
        """Removes everything that the app's runs made, the emulator last; returns what it still had."""
        import shutil

        left: list[str] = []
        self._say_death()
        if (found := self._aws()) is not None:
            left += found.remove()
            left += [each for each in self._account(found)["leftovers"] if each not in left]
        self._end_emulator()
        shutil.rmtree(self._place.folder, ignore_errors=True)
        return left


class FolderBucket(S3Store):
    """A bucket of the emulator, whose objects lie in a folder."""

    def __init__(self, bucket: str, session: AwsSession, folder: Path) -> None:
        super().__init__(bucket, session=session)
        self._folder = folder

    def locate(self, key: str) -> str:
        """Returns the file's path."""
        return str(self._folder / check_key(key))


def _pretended(config: Config) -> Config:
    """Returns the config for the pretend account: no profile, no placeholder, always a bucket and an image.

    No schedule fires there: the user watches the run.
    """
    return config._replace(
        aws_profile="",
        auto_monitor=False,
        aws_bucket=bucket_of(config),
        ssh_key_name="" if is_key_placeholder(config.ssh_key_name) else config.ssh_key_name,
        dockerhub_tag=config.dockerhub_tag or _IMAGE,
    )


def isolate() -> None:
    """Put real credentials and settings of AWS out of this process's reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(CREDENTIALS | _ISOLATED | {"AWS_EC2_METADATA_DISABLED": "true"})


def ask(endpoint: str, what: str, key: str, body: bytes | None = None) -> bytes:
    """Ask one of the emulator's own addresses. Raises OSError."""
    request = urllib.request.Request(f"{endpoint}/ds/{what}", body, signed(key))  # noqa: S310  ours
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())
