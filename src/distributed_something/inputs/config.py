"""Reads the config of a project into one frozen, validated value. Only `load_config` touches the disk.

`keys.py` has the table of keys. `steps/project.py` and workers call this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engines import ENGINES, EngineKind
from ..errors import UsageError
from ..job import PERMANENT, RetryPolicy
from ..system.files import read_regular
from ..words import nearest
from .keys import ENV_NAME, KEYS, Key, Kind, check_value
from .literal import Assignment, clean_text, environment_text, read_assignments, short

if TYPE_CHECKING:
    from ..failing import Limits
    from ..system.environment import Environment

NEAR = 0.87
"""Likeness from which an unknown key is a slip of a known one: AWS_REGON is; SOURCE_BUCKET (0.72) is not."""

_BY_NAME = {key.name: key for key in KEYS}
_NO_SLIPS = frozenset(
    {"CANARY", "COLLECT", "COLLECT_WHEN", "FILES", "GPUS", "NOTIFY", "NOTIFY_STALLED", "NOTIFY_WHEN"}
) | {"RESOURCES", "SECRETS"}
"""New keys: a project may have had a key of its own with a name near to one of them."""

_NOT_SHARED = frozenset({"AWS_PROFILE", "ENVIRONMENT", "NOTIFY", "SSH_KEY_NAME"})


class Config(NamedTuple):
    """A valid config: a field for each of `KEYS`, which say what it means and its unit.

    `extra` holds every other UPPERCASE key as text for the environment; `given` names the keys of `KEYS`
    that the file sets. None: not given, and the engine chooses.
    """

    app_name: str
    dockerhub_tag: str
    aws_region: str
    aws_profile: str
    ssh_key_name: str
    aws_bucket: str
    ecs_cluster: str
    cluster_machines: int
    tasks_per_machine: int
    machine_type: tuple[str, ...]
    machine_price: float | None
    ebs_vol_size: int
    assign_ip: bool
    docker_cores: int | None
    cpu_shares: int | None
    memory: int | None
    seconds_to_start: float
    sqs_queue_name: str
    sqs_message_visibility: int
    sqs_dead_letter_queue: str
    log_group_name: str
    auto_monitor: bool
    create_dashboard: bool
    clean_dashboard: bool
    check_if_done_bool: bool
    done_by: str
    expected_number_files: int
    min_file_size_bytes: int
    necessary_string: str
    engine: str
    command: str
    allow_dash: bool
    handler: str
    inputs: tuple[str, ...]
    files: tuple[str, ...]
    shared_inputs: tuple[str, ...]
    output: str
    collect: str
    collect_when: str
    notify: tuple[str, ...]
    notify_when: tuple[str, ...]
    notify_stalled: float
    shared_output: bool
    store: str
    s3_endpoint: str
    bucket_roles: Mapping[str, str]
    requester_pays: tuple[str, ...]
    output_acl: str
    job_timeout: float
    job_retries: int
    retry_on: tuple[str, ...]
    no_retry_on: tuple[str, ...]
    backoff: float
    timeout_retry: float
    memory_retry: float
    max_run_hours: float
    budget_usd: float | None
    budget_hours: float | None
    max_failures: int | None
    max_failure_rate: float | None
    canary: int | None
    on_demand_percent: int
    on_demand_after: float | None
    job_seconds: float | None
    environment: Mapping[str, str]
    scratch: str
    gpus: int
    gpus_shared: bool
    resources: Mapping[str, str]
    secrets: Mapping[str, str]
    containers: bool | str
    worker_image: str
    hosts: tuple[str, ...]
    slurm_partition: str
    slurm_account: str
    slurm_qos: str
    slurm_time: str
    slurm_constraint: str
    slurm_gres: str
    slurm_extra: tuple[str, ...]
    setup: tuple[str, ...]
    environment_file: str
    mount_bucket: bool
    message: str | Mapping[str, str]
    extra: Mapping[str, str]
    given: frozenset[str]

    @property
    def image_starts_worker(self) -> bool:
        """Whether the image starts a worker of its own: neither COMMAND nor HANDLER is given."""
        return not self.command and not self.handler

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often and when a failed job is tried again: JOB_RETRIES, BACKOFF, RETRY_ON, NO_RETRY_ON."""
        permanent = (PERMANENT - {*self.retry_on}) | {*self.no_retry_on}
        return RetryPolicy(self.job_retries, self.backoff, permanent=permanent)

    @property
    def failure_limits(self) -> Limits:
        """How many jobs may be dead before the run drains."""
        from ..failing import Limits

        return Limits(self.max_failures, self.max_failure_rate, self.canary or 0)

    def scratch_root(self) -> Path | None:
        """Returns the folder that jobs run in, below SCRATCH with its variables expanded; None: not given."""
        return Path(os.path.expandvars(self.scratch), f"ds-{self.app_name}") if self.scratch else None

    def shell(self, project: Path) -> Environment:
        """Returns the environment that SETUP and ENVIRONMENT_FILE give to jobs on this machine."""
        from ..system.environment import Environment

        file = project / self.environment_file if self.environment_file else None
        return Environment(self.setup, file, project / ".ds/environments")

    @property
    def in_containers(self) -> bool:
        """Whether jobs run in containers on this machine."""
        return bool(self.containers and self.dockerhub_tag)

    @property
    def container_engines(self) -> Sequence[str]:
        """Returns the names of the container engines that may run jobs here, the first choice first."""
        return [self.containers] if isinstance(self.containers, str) else self.engine_kind.containers

    @property
    def in_bucket(self) -> bool:
        """Whether the store is a bucket, or what is below a prefix in one."""
        return self.engine_kind.buckets or self.store.startswith("s3://")

    @property
    def home(self) -> tuple[str, str]:
        """Returns the store's bucket, and the prefix in it."""
        if self.engine_kind.buckets:
            return self.aws_bucket, ""
        bucket, _, prefix = self.store.removeprefix("s3://").partition("/")
        return bucket, prefix

    def store_place(self, project: Path) -> str:
        """Returns what the store is called: a folder's path, or s3://bucket/prefix."""
        return "s3://" + "/".join(filter(None, self.home)) if self.in_bucket else str(project / self.store)

    def store_folder(self, project: Path) -> Path | None:
        """Returns the folder of STORE; None: STORE is a bucket."""
        return None if self.store.startswith("s3://") else project / self.store

    @property
    def engine_kind(self) -> EngineKind:
        """Returns the facts about the engine."""
        return ENGINES[self.engine]

    @property
    def machines_wanted(self) -> int:
        """How many machines a start asks for: CLUSTER_MACHINES, or on an engine of HOSTS all of those."""
        if not self.engine_kind.hosts:
            return self.cluster_machines
        there = len({*self.hosts})
        return min(self.cluster_machines, there) if "CLUSTER_MACHINES" in self.given else there

    @property
    def topics(self) -> tuple[str, ...]:
        """Returns the topics of SNS in NOTIFY: they hold no secret, and the auto-monitor may know them."""
        return tuple(each for each in self.notify if each.startswith("arn:"))

    def worker_environment(self) -> dict[str, str]:
        """Returns the command's environment; ENVIRONMENT overrides another key of the same name."""
        return {**self.extra, **self.environment}


def load_config(folder: Path) -> Config:
    """Reads the config.py or config.toml of a project folder. Raises UsageError."""
    try:
        found = [path for name in ("config.py", "config.toml") if (path := folder / name).exists()]
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", "make it a folder that you may read") from error
    if not found:
        fix = "write one with a line APP_NAME = 'MyApp', or name the project folder with -C"
        raise UsageError(f"{folder}: no config.py and no config.toml here", fix)
    if len(found) > 1:
        raise UsageError(f"{folder}: both config.py and config.toml are here", "keep one of them")
    return parse_config(_read(found[0]), found[0].name)


def refuse_store(config: Config) -> None:
    """Raises UsageError for a STORE, or a key about it, that the engine cannot have."""
    kind, name = config.engine_kind, f"ENGINE = {config.engine!r}"
    if kind.buckets and config.store.startswith("s3://"):
        own = "its pretend bucket in a folder" if kind.rehearses else "what runs need in AWS_BUCKET"
        raise UsageError(f"STORE = {config.store!r}: {name} keeps {own}", "remove STORE, or change ENGINE")
    if kind.buckets and config.s3_endpoint:
        what = f"S3_ENDPOINT: {name} uses S3 itself: its machines have roles of AWS, and no keys"
        raise UsageError(what, "remove S3_ENDPOINT, or change ENGINE to local or slurm")
    if kind.buckets and config.aws_bucket in config.bucket_roles:
        what = f"BUCKET_ROLES: {config.aws_bucket} is AWS_BUCKET: {name} uses it before it knows other roles"
        raise UsageError(what, "let the bucket's policy allow the tasks' role, and leave it out")
    if config.mount_bucket and not kind.buckets and config.in_bucket:
        what = f"MOUNT_BUCKET: {name} mounts STORE if it is a folder, and {config.store} is a bucket"
        raise UsageError(what, "remove MOUNT_BUCKET, or let STORE be a folder")


def parse_config(text: str, name: str = "config.py") -> Config:
    """Parses a config; `name` (ending in .py or .toml) decides the format, and is in messages.

    Runs nothing in the text. Raises UsageError for the first mistake.
    """
    text = text.removeprefix("\ufeff")
    entries: dict[str, Assignment] = {}
    unread: UsageError | None = None
    try:
        for entry in read_assignments(text, name):
            entries[entry.name] = entry
    except UsageError as error:
        unread = error  # a wrong value above that line comes first
    given = [entry for entry in entries.values() if entry.value is not None]
    known, extra = _validate(sorted(given, key=lambda entry: entry.line), name)
    if unread:
        raise unread
    if known.get("COMMAND") and known.get("HANDLER"):
        line = max(entries["COMMAND"].line, entries["HANDLER"].line)
        what = f"{name}:{line}: both COMMAND and HANDLER are given: a job runs one of them"
        raise UsageError(what, "remove one of the two")
    return _build(known, extra, name)


def values_given(config: Config) -> dict[str, Any]:
    """Returns the given keys and their values, as JSON takes them, for workers elsewhere and reports.

    Leaves out the user's own keys, and those that may be secret: they reach workers by the environment.
    """
    shared = (key for key in KEYS if key.name in config.given and key.name not in _NOT_SHARED)
    topics = {"NOTIFY": config.topics} if config.topics else {}
    return {key.name: getattr(config, key.field) for key in shared} | topics


def config_of(values: Mapping[str, Any], name: str) -> Config:
    """Rebuilds a config from `values_given`; `name` is in messages. Raises UsageError."""
    fix = "use a worker of the version that set the run up"
    if unknown := sorted(values.keys() - _BY_NAME.keys()):
        raise UsageError(f"{name}: unknown key {short(unknown[0])}", fix)
    known: dict[str, Any] = {}
    for key, value in values.items():
        try:
            known[key] = check_value(_BY_NAME[key], value)
        except ValueError as error:
            raise UsageError(f"{name}: {key}: {error}", fix) from error
    return _build(known, {}, name)


def _read(path: Path) -> str:
    try:
        data = read_regular(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "make it a file that you may read") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path.name}:{line}: this is not UTF-8 text", "save the file as UTF-8") from error


def _validate(entries: Iterable[Assignment], name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the known keys with their values, and the others as texts."""
    known: dict[str, Any] = {}
    extra: dict[str, str] = {}
    for entry in entries:
        if key := _BY_NAME.get(entry.name):
            known[key.name] = _known(key, entry, name)
        elif _is_own(entry, name):
            extra[entry.name] = _own(entry, name)
    return known, extra


def _known(key: Key, entry: Assignment, name: str) -> Any:
    try:
        return check_value(key, entry.value)
    except ValueError as error:
        examples = (True, False) if key.kind in (Kind.BOOL, Kind.SWITCH) else (_example(key),)
        if isinstance(entry.value, (int, float)) and (limit := _limit_passed(key, entry.value)) is not None:
            examples = (limit,)
        if key.choices and isinstance(entry.value, str):
            examples = (nearest(entry.value, key.choices) or examples[0],)
        fix = "write " + " or ".join(f"{key.name} = {_written(example, name)}" for example in examples)
        if key.name in _NO_SLIPS:
            fix += f"; if {key.name} is your program's own, put it into ENVIRONMENT"
        raise UsageError(f"{name}:{entry.line}: {key.name}: {error}", fix) from error


def _limit_passed(key: Key, value: float) -> float | None:
    """Returns the limit of the key that a value lies beyond."""
    if key.high is not None and value > key.high:
        return key.high
    return key.low if key.low is not None and value < key.low else None


def _is_own(entry: Assignment, name: str) -> bool:
    """Whether a key that is not ours goes to the environment. Raises UsageError for a likely slip."""
    if not entry.name.isupper() or entry.name.startswith("_"):
        if name.endswith(".toml"):
            what = f"{name}:{entry.line}: unknown key {short(entry.name)}: keys are in capitals"
            raise UsageError(what, f"write it in capitals ({short(entry.name.upper())}), or remove it")
        return False  # in Python: a helper for the lines below it
    if near := _near(entry.name):
        what = f"{name}:{entry.line}: unknown key {entry.name}: did you mean {near}?"
        raise UsageError(what, f"write {near}; if the command reads {entry.name}, put it into ENVIRONMENT")
    return True


def _own(entry: Assignment, name: str) -> str:
    if not re.fullmatch(ENV_NAME, entry.name):
        what = f"{name}:{entry.line}: {short(entry.name)} cannot name an environment variable"
        raise UsageError(what, "use only letters A-Z, digits and _ in it")
    try:
        return clean_text(environment_text(entry.value))
    except ValueError as error:
        what = f"{name}:{entry.line}: {entry.name}: {error}"
        raise UsageError(what, "remove what cannot be in an environment variable") from error


def _near(name: str) -> str | None:
    """Returns the known key that a name is a slip of: letters swapped, or one of about eight wrong."""
    near = [known for known in _BY_NAME.keys() - _NO_SLIPS if _letters_in_common(name, known) >= NEAR]
    return nearest(name, near, NEAR) if near else None


def _letters_in_common(one: str, other: str) -> float:
    """Returns the share of common letters, from 0 to 1: an upper bound of difflib's ratio."""
    least = min(len(one), len(other))
    if 2 * least < NEAR * (len(one) + len(other)):
        return 0.0  # too different in length: no need to count
    common = sum(min(one.count(letter), other.count(letter)) for letter in set(one))
    return 2 * common / (len(one) + len(other))


def _build(known: dict[str, Any], extra: dict[str, str], name: str) -> Config:
    app_name = known.get("APP_NAME")
    if app_name is None:
        fix = "add a line APP_NAME = 'MyApp'"
        raise UsageError(f"{name}: APP_NAME is missing: every resource is named after it", fix)
    values = {key.field: known.get(key.name, key.default_for(app_name)) for key in KEYS}
    values["environment"] = dict(values["environment"])
    return Config(**values, extra=extra, given=frozenset(known))


def _example(key: Key) -> Any:
    return key.default_for("MyApp") if key.example is None else key.example


def _written(value: Any, name: str) -> str:
    """Formats a value as the file of that name takes it."""
    value = list(value) if isinstance(value, tuple) else value
    if not name.endswith(".toml"):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {item!r}" for key, item in value.items()) + "}"
    return repr(value).lower() if isinstance(value, bool) else repr(value)
