"""Lists the keys of a config, and converts their values. Pure.

`KEYS` is the one table for parsing, validation, defaults and documentation. `config.py` reads files by it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from ..engines import ENGINES
from .literal import clean_text, short
from .needs import check_resources

MAX_NUMBER = 10**13
"""Upper limit of a number without a limit of its own: larger ones do not fit into 64 bits everywhere."""


class Kind(StrEnum):
    """Kinds of values; each value is the word for it in messages."""

    TEXT = "text"
    LOOSE_TEXT = "text or a number"
    WHOLE = "a whole number"
    NUMBER = "a number"
    BOOL = "True or False"
    SWITCH = "True, False or a name"
    LIST = "a text or a list of texts"
    TABLE = "a dictionary of names and texts"
    FORMULAS = "a dictionary of names and formulas"
    CHOICE_OR_TABLE = "a name of a form, or a dictionary of names and texts"


class Key(NamedTuple):
    """One key of the config.

    `default` is the value where the key is missing or None; a default of None leaves the choice to the
    engine, and `{APP_NAME}` in it stands for the app's name. `low` and `high` are included in the range
    (of a number, or of the length of a list), `above` is not. `shape` is a regular expression for all of
    the text, or each item of a list, and `shape_says` is the message for a text without that shape. An empty
    text is allowed only where it is the default. `example` is shown in the fix. `names` is the shape of a
    dictionary's names; empty: they name environment variables.
    """

    name: str
    kind: Kind
    default: Any
    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    shape: str = ""
    shape_says: str = ""
    example: Any = None
    required: bool = False
    names: str = ""

    @property
    def field(self) -> str:
        """Returns its name in `Config`."""
        return self.name.lower()

    def default_for(self, app_name: str) -> Any:
        """Returns the default in an app of that name."""
        is_text = isinstance(self.default, str)
        return self.default.replace("{APP_NAME}", app_name) if is_text else self.default


_RESOURCE = "[A-Za-z0-9_-]{1,80}"
_ARN = "arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:"
_NAME_SAYS = "may have only letters, digits, - and _, 80 at most"
_WORD = "[A-Za-z0-9][A-Za-z0-9_.,@+-]*"
_IDENT = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
ENV_NAME = "[A-Za-z_][A-Za-z0-9_]*"
FAILURE = r"(exit( [0-9]{1,3})?|signal|timeout|out-of-memory|disk-full|input-missing|output-missing|upload)"
"""Causes of failures, as RETRY_ON and NO_RETRY_ON name them."""


TOPIC_PREFIX = "distributed-something-"
"""Start of the name of each topic of SNS that the auto-monitor may publish to."""

_LIES = r"ssm:[\w./-]+|secretsmanager:arn:aws[a-z-]*:secretsmanager:\S+|env:[A-Za-z_]\w*|file:\S.*"


_BUCKET = "[A-Za-z0-9._-]{3,255}"
_STORE = rf"(?!s3:).+|s3://{_BUCKET}(/(?!\.{{1,2}}(/|$))[^/\0-\x1f\x7f]+)*/?"

# fmt: off
KEYS: tuple[Key, ...] = (
    Key("APP_NAME", Kind.TEXT, None, "names the app, and every resource made for it", required=True,
        shape="[A-Za-z0-9][A-Za-z0-9_-]{0,63}", example="MyApp",
        shape_says="is not 1 to 64 letters, digits, - and _: queues and folders bear it"),
    Key("DOCKERHUB_TAG", Kind.TEXT, "", "the container image with the program",
        shape=r"\S+", shape_says="has a space in it", example="user/image:tag"),
    Key("AWS_REGION", Kind.TEXT, "us-east-1", "where the machines run",
        shape="[a-z]{2,}(-[a-z]+)+-[0-9]+", shape_says="is not the name of a region"),
    Key("AWS_PROFILE", Kind.TEXT, "", "profile of the AWS command line; empty: what AWS finds by itself",
        example="default"),
    Key("SSH_KEY_NAME", Kind.TEXT, "", "key pair for logging in to machines, with or without .pem",
        example="your-key-file.pem"),
    Key("AWS_BUCKET", Kind.TEXT, "", "bucket that holds inputs, outputs, logs and ledger",
        shape=_BUCKET, shape_says="is not the bare name of a bucket", example="your-bucket"),
    Key("ECS_CLUSTER", Kind.TEXT, "default", "cluster that the machines join",
        shape="[A-Za-z0-9_-]{1,255}", shape_says="may have only letters, digits, - and _"),
    Key("CLUSTER_MACHINES", Kind.WHOLE, 1, "machines in the fleet", low=1, high=10_000),
    Key("TASKS_PER_MACHINE", Kind.WHOLE, 1, "containers on a machine", low=1),
    Key("MACHINE_TYPE", Kind.LIST, ("m5.xlarge",), "types of machine, any of them", low=1,
        shape="[a-z0-9-]+[.][a-z0-9-]+", shape_says="is not a type of machine"),
    Key("MACHINE_PRICE", Kind.NUMBER, None, "most to pay for a machine; not given: its on-demand price",
        unit="dollars an hour", above=0, example=0.20),
    Key("EBS_VOL_SIZE", Kind.WHOLE, 30, "disk of a machine", unit="GB", low=22, high=65536),
    Key("ASSIGN_IP", Kind.BOOL, True, "False: machines get no public address, whatever the fleet file says"),
    Key("DOCKER_CORES", Kind.WHOLE, None, "jobs a container runs at a time; not given: the engine chooses",
        low=1, example=4),
    Key("CPU_SHARES", Kind.WHOLE, None, "processor share of a container; not given: the engine chooses",
        unit="1/1024 of a core", low=1, example=4096),
    Key("MEMORY", Kind.WHOLE, None, "memory of a container; not given: the engine chooses",
        unit="MB", low=6, example=15000),
    Key("SECONDS_TO_START", Kind.NUMBER, 0, "wait between the starts of two slots", unit="seconds", low=0),
    Key("SQS_QUEUE_NAME", Kind.TEXT, "{APP_NAME}Queue", "queue of the jobs",
        shape=_RESOURCE, shape_says=_NAME_SAYS),
    Key("SQS_MESSAGE_VISIBILITY", Kind.WHOLE, 120, "how long a lease holds without being renewed",
        unit="seconds", low=1, high=43200),
    Key("SQS_DEAD_LETTER_QUEUE", Kind.TEXT, "{APP_NAME}DeadMessages", "queue of dead jobs: a name or an ARN",
        shape=f"({_ARN})?{_RESOURCE}", shape_says="is neither the name of a queue nor its ARN"),
    Key("LOG_GROUP_NAME", Kind.TEXT, "{APP_NAME}", "log group of the workers",
        shape="[A-Za-z0-9_/.#-]{1,500}", shape_says="may have only letters, digits and _ - / . #"),
    Key("AUTO_MONITOR", Kind.BOOL, False, "have AWS watch the run and clean up after it"),
    Key("CREATE_DASHBOARD", Kind.BOOL, False, "make a CloudWatch dashboard for the run"),
    Key("CLEAN_DASHBOARD", Kind.BOOL, True, "remove the dashboard at the end of the run"),
    Key("CHECK_IF_DONE_BOOL", Kind.BOOL, False, "skip jobs whose outputs are there already"),
    Key("DONE_BY", Kind.TEXT, "manifest", "what shows that outputs are there: their manifest, or the files",
        choices=("manifest", "files")),
    Key("EXPECTED_NUMBER_FILES", Kind.WHOLE, 1, "files that make a job count as done", unit="files", low=1),
    Key("MIN_FILE_SIZE_BYTES", Kind.WHOLE, 1, "smallest file that counts for that", unit="bytes", low=0),
    Key("NECESSARY_STRING", Kind.LOOSE_TEXT, "", "what a file's name must contain to count for that"),
    Key("ENGINE", Kind.TEXT, "aws", "where jobs run", choices=tuple(ENGINES)),
    Key("COMMAND", Kind.TEXT, "", "what a job runs; {name} is a key of the job", example="process {Plate}"),
    Key("ALLOW_DASH", Kind.BOOL, False, "a value that begins with a dash may be an option of the program"),
    Key("HANDLER", Kind.TEXT, "", "Python function that runs a job, instead of COMMAND",
        shape=f"{_IDENT}:{_IDENT}", shape_says="does not look like module:function", example="mymodule:run"),
    Key("INPUTS", Kind.LIST, (), "what to fetch for a job", example=["{input_location}/{Plate}.tif"]),
    Key("FILES", Kind.LIST, (), "files and folders of the project that travel with the jobs",
        example=["align.sh", "scripts/"]),
    Key("SHARED_INPUTS", Kind.LIST, (), "what all jobs read: fetched once a machine, to {shared_dir}",
        example=["genome/"]),
    Key("OUTPUT", Kind.TEXT, "", "prefix for the outputs of a job", example="{output_location}/{Plate}"),
    Key("COLLECT", Kind.TEXT, "", "what runs once when all jobs have ended: a command, a function"
        " (module:function), csv or parquet",
        example="python collect.py {outputs_dir} {output_dir}"),
    Key("COLLECT_WHEN", Kind.TEXT, "succeeded", "whether COLLECT runs if jobs are dead",
        choices=("succeeded", "ended")),
    Key("NOTIFY", Kind.LIST, (), "who gets a message about the run: web addresses, mail, other addresses of"
        " Apprise, topics of SNS, or a command", example=["mailto:ada@lab.org"],
        shape=r"(?!arn:)[a-z][a-z0-9+]{1,30}:.*\S|arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+",
        shape_says="is neither 'mailto:…', 'https://…', another address of Apprise, a topic"
        " 'arn:aws:sns:REGION:ACCOUNT:NAME', nor 'command: …'"),
    Key("NOTIFY_WHEN", Kind.LIST, ("end", "dead", "stalled"), "what a message is sent about: the end, the"
        " first dead job, no end of a job for NOTIFY_STALLED", choices=("end", "dead", "stalled")),
    Key("NOTIFY_STALLED", Kind.NUMBER, 3600, "time without the end of a job after which the run has stalled;"
        " JOB_TIMEOUT if that is longer", unit="seconds", above=0),
    Key("SHARED_OUTPUT", Kind.BOOL, False, "jobs may publish into one OUTPUT, under names of their own"),
    Key("STORE", Kind.TEXT, "data", "folder that stands for the bucket; engines local, slurm, ssh:"
        " or a bucket and a prefix in it, s3://bucket/prefix", shape=_STORE,
        shape_says="is neither a folder nor s3://bucket/prefix"),
    Key("S3_ENDPOINT", Kind.TEXT, "", "engines local, slurm, ssh: server of all buckets, if it is not AWS's:"
        " MinIO, Ceph, R2, say", shape=r"https?://[^/\s@]+/?",
        shape_says="is no address such as https://host:port", example="https://minio.lab:9000"),
    Key("BUCKET_ROLES", Kind.TABLE, {}, "roles of AWS by which buckets are asked, by the buckets' names",
        shape=r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", shape_says="is not the ARN of a role",
        names=_BUCKET, example={"their-bucket": "arn:aws:iam::123456789012:role/reader"}),
    Key("REQUESTER_PAYS", Kind.LIST, (), "buckets whose owners have those pay who read them",
        shape=_BUCKET, shape_says="is not the bare name of a bucket", example=["their-bucket"]),
    Key("OUTPUT_ACL", Kind.TEXT, "", "canned ACL of outputs in other buckets than the store's",
        choices=("bucket-owner-full-control", "bucket-owner-read", "public-read", "authenticated-read")),
    Key("JOB_TIMEOUT", Kind.NUMBER, 0, "time limit of an attempt; 0: none", unit="seconds", low=0),
    Key("JOB_RETRIES", Kind.WHOLE, 3, "attempts before a job is dead; interruptions never count", low=1),
    Key("RETRY_ON", Kind.LIST, (), "causes and exit codes that are retried though they are not by default",
        shape=FAILURE, shape_says="is neither a cause nor 'exit N'", example=["exit 127"]),
    Key("NO_RETRY_ON", Kind.LIST, (), "causes and exit codes that are not retried",
        shape=FAILURE, shape_says="is neither a cause nor 'exit N'", example=["exit 3", "timeout"]),
    Key("BACKOFF", Kind.NUMBER, 1, "wait after the first failed attempt; it doubles with each, up to 300",
        unit="seconds", low=0, high=300),
    Key("TIMEOUT_RETRY", Kind.NUMBER, 1, "factor on JOB_TIMEOUT after each attempt that ended by timeout",
        low=1, high=100, example=2),
    Key("MEMORY_RETRY", Kind.NUMBER, 1, "factor on MEMORY after each attempt that ended out-of-memory, in"
        " containers of the engine local", low=1, high=100, example=2),
    Key("MAX_RUN_HOURS", Kind.NUMBER, 24, "the fleet's own end of life", unit="hours", above=0, high=8760),
    Key("BUDGET_USD", Kind.NUMBER, None, "most that a run may cost: it drains then", unit="dollars", above=0,
        example=20),
    Key("BUDGET_HOURS", Kind.NUMBER, None, "most that all machines of a run may run: it drains then",
        unit="machine-hours", above=0, example=100),
    Key("MAX_FAILURES", Kind.WHOLE, None, "most jobs that may be dead: the run drains when more are; jobs"
        " that died alike count twice", unit="jobs", low=0, example=50),
    Key("MAX_FAILURE_RATE", Kind.NUMBER, None, "most of the ended jobs that may be dead, as a share, from 20"
        " ended jobs on: the run drains when more are", above=0, high=1, example=0.1),
    Key("CANARY", Kind.WHOLE, None, "jobs that must end, most of them well, before more than one machine is"
        " asked for", unit="jobs", low=1, example=20),
    Key("ON_DEMAND_PERCENT", Kind.WHOLE, 0, "share of the machines that are no spot machines: they cost about"
        " three times as much, and are not taken back", unit="percent", low=0, high=100, example=20),
    Key("ON_DEMAND_AFTER", Kind.NUMBER, None, "time without a new machine, although some are missing, after"
        " which the missing ones are asked for on demand", unit="minutes", above=0, example=20),
    Key("JOB_SECONDS", Kind.NUMBER, None, "how long a job takes: for the cost that `ds start` shows",
        unit="seconds", above=0, example=60),
    Key("ENVIRONMENT", Kind.TABLE, {}, "environment variables for the command", example={"THREADS": "1"}),
    Key("SCRATCH", Kind.TEXT, "", "folder on the machine's own disk below which jobs run; the same one gives"
        " the same bytes where programs write their paths into files",
        shape="[/$].*", shape_says="is not absolute", example="/scratch/$USER"),
    Key("GPUS", Kind.WHOLE, 0, "GPUs that a job needs if it does not say so: its slot has them alone; 0:"
        " such jobs see what there is",
        unit="GPUs", low=0, example=1),
    Key("GPUS_SHARED", Kind.BOOL, False, "slots may share a GPU"),
    Key("RESOURCES", Kind.FORMULAS, {}, "what a job needs, computed from its keys and the size of its inputs:"
        " cpus, memory (MB), gpus, timeout (seconds, instead of JOB_TIMEOUT); the job's own keys _cpus,"
        " _memory, _gpus and _timeout go before it", example={"memory": "{size_mb} * 2 + 500"}),
    Key("SECRETS", Kind.TABLE, {}, "secrets for the command's environment, and where each lies: ssm:/name,"
        " secretsmanager:arn:…, env:NAME, file:~/path", shape=_LIES, shape_says="says not where a secret"
        " lies; if SECRETS is your program's own, put it into ENVIRONMENT",
        example={"TOKEN": "ssm:/lab/token"}),
    Key("CONTAINERS", Kind.SWITCH, True, "run jobs in the image DOCKERHUB_TAG here too (all but"
        " aws): by the first engine found, or this one", choices=("docker", "podman", "apptainer")),
    Key("WORKER_IMAGE", Kind.TEXT, "", "image to bring the worker from; own: DOCKERHUB_TAG has it",
        shape=r"\S+", shape_says="has a space in it", example="user/ds-worker:1"),
    Key("HOSTS", Kind.LIST, (), "engine ssh: the machines, as the ssh program knows them; CLUSTER_MACHINES"
        " limits how many of them are used", shape=r"([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*",
        shape_says="is not the name of a host", example=["node1", "user@node2"]),
    Key("SLURM_PARTITION", Kind.TEXT, "", "engine slurm: partition of the pilots; empty: the default one",
        shape=_WORD, shape_says="is not the name of a partition", example="short"),
    Key("SLURM_ACCOUNT", Kind.TEXT, "", "engine slurm: account that pilots are charged to",
        shape=_WORD, shape_says="is not the name of an account", example="mylab"),
    Key("SLURM_QOS", Kind.TEXT, "", "engine slurm: quality of service of the pilots",
        shape=_WORD, shape_says="is not the name of a QOS", example="normal"),
    Key("SLURM_TIME", Kind.TEXT, "", "engine slurm: time limit of a pilot; empty: the partition's default",
        shape=r"[0-9]+|[0-9]+(:[0-9]+){1,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}", example="4:00:00",
        shape_says="is no time as Slurm reads it (minutes, hours:minutes:seconds, days-hours)"),
    Key("SLURM_CONSTRAINT", Kind.TEXT, "", "engine slurm: features that a node must have",
        shape=r"\S+", shape_says="has a space in it", example="avx2"),
    Key("SLURM_GRES", Kind.TEXT, "", "engine slurm: resources of a pilot, such as GPUs",
        shape=r"\S+", shape_says="has a space in it", example="gpu:1"),
    Key("SLURM_EXTRA", Kind.LIST, (), "engine slurm: more options of sbatch, one a text",
        shape="--?[A-Za-z].*", shape_says="does not begin with - or --", example=["--exclude=node7"]),
    Key("SETUP", Kind.LIST, (), "engines local, slurm, ssh: lines of a login shell (bash) that set a machine"
        " up",
        example=["module load cellprofiler"]),
    Key("ENVIRONMENT_FILE", Kind.TEXT, "", "engines local, slurm, ssh: file of the jobs' environment, which"
        " is made once by uv, conda or pixi", shape=r"(.*/)?(uv\.lock|pixi\.toml|[^/]+\.ya?ml)",
        example="environment.yml", shape_says="is neither uv.lock, pixi.toml nor environment.yml"),
    Key("MOUNT_BUCKET", Kind.BOOL, False, "mount the bucket in the container, for workers that expect it"),
    Key("MESSAGE", Kind.CHOICE_OR_TABLE, "", "form of the messages, for an image with a worker of its own;"
        " not given: the job file's shape decides", choices=("group", "cellprofiler", "fiji", "omezarr")),
)
# fmt: on


def check_value(key: Key, value: Any) -> Any:
    """Converts a value to what `Config` holds. Raises ValueError with one line of what is wrong."""
    value = _CONVERT[key.kind](key, value)
    if key.kind in (Kind.WHOLE, Kind.NUMBER):
        _check_range(key, value)
    elif key.kind is Kind.LIST:
        if len(value) < (key.low or 0):
            raise ValueError("is empty")
        for item in value:
            _check_text(key, item)
    elif key.kind is Kind.TABLE and key.shape:
        for item in value.values():
            _check_text(key, item)
    elif isinstance(value, str) and (value or key.default != ""):
        _check_text(key, value)
    return value


def _check_range(key: Key, value: float) -> None:
    unit = f" {key.unit}" if key.unit else ""
    if key.low is not None and value < key.low:
        raise ValueError(f"{value!r} is below {key.low}{unit}")
    if key.above is not None and value <= key.above:
        raise ValueError(f"{value!r} is not above {key.above}{unit}")
    high = MAX_NUMBER if key.high is None else key.high
    if value > high:
        raise ValueError(f"{value!r} is above {high}{unit}")


def _check_text(key: Key, value: str) -> None:
    if not value:
        raise ValueError("is empty")
    if key.choices and value not in key.choices:
        raise ValueError(f"{short(value)} is none of {', '.join(key.choices)}")
    if key.shape and not re.fullmatch(key.shape, value, re.ASCII):
        raise ValueError(f"{short(value)} {key.shape_says}")


def _wrong(key: Key, value: Any) -> ValueError:
    unit = f" of {key.unit}" if key.unit else ""
    return ValueError(f"{short(value)} is not {key.kind}{unit}")


def _to_text(key: Key, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(key, value)
    return clean_text(value)


def _to_loose_text(key: Key, value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number else _to_text(key, value)


def _to_number(key: Key, value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}([.][0-9]{1,18})?", value.strip()):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(key, value)
    return value


def _to_whole(key: Key, value: Any) -> int:
    number = _to_number(key, value)
    if number != int(number):
        raise _wrong(key, value)
    return int(number)


def _to_bool(key: Key, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("True", "true", "False", "false"):
        raise _wrong(key, value)
    return value in ("True", "true")


def _to_list(key: Key, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (clean_text(value),) if value else ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, value)
    return tuple(clean_text(item) for item in value)


def _to_table(key: Key, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(key, value)
    for name, item in value.items():
        if not isinstance(name, str) or not re.fullmatch(key.names or ENV_NAME, name):
            kind = "is not the bare name of a bucket" if key.names else "cannot name an environment variable"
            raise ValueError(f"{short(name)} {kind}")
        if not isinstance(item, (str, int, float)):
            raise ValueError(f"the value of {short(name)} is neither text, number, True nor False")
    return {name: clean_text(str(item)) for name, item in value.items()}


def _to_formulas(key: Key, value: Any) -> dict[str, str]:
    formulas = _to_table(key, value)
    check_resources(formulas)
    return formulas


def _to_choice_or_table(key: Key, value: Any) -> str | dict[str, str]:
    return _to_text(key, value) if isinstance(value, str) else _to_table(key, value)


_CONVERT: Mapping[Kind, Callable[[Key, Any], Any]] = {
    Kind.TEXT: _to_text,
    Kind.LOOSE_TEXT: _to_loose_text,
    Kind.WHOLE: _to_whole,
    Kind.NUMBER: _to_number,
    Kind.BOOL: _to_bool,
    Kind.SWITCH: lambda key, value: value if value in key.choices else _to_bool(key, value),
    Kind.LIST: _to_list,
    Kind.TABLE: _to_table,
    Kind.FORMULAS: _to_formulas,
    Kind.CHOICE_OR_TABLE: _to_choice_or_table,
}
