"""Reads and writes the run record: the monitor file that the four steps hand to each other.

`files/<APP_NAME>SpotFleetRequestId.json` holds the reference's keys and ours. It is replaced whole at
each change, so that a reader never sees a part of it, nor does a crash leave one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..budget import Budget
from ..errors import UsageError
from ..inputs.config import Config
from ..ledger import RunPaths
from ..system.leftovers import sweep

_KEYS = (
    "MONITOR_FLEET_ID", "MONITOR_APP_NAME", "MONITOR_ECS_CLUSTER", "MONITOR_QUEUE_NAME",
    "MONITOR_BUCKET_NAME", "MONITOR_LOG_GROUP_NAME", "MONITOR_START_TIME",
)  # fmt: skip


class RunRecord(NamedTuple):
    """What a run has made. `started` is Unix milliseconds, as in the reference; lists only grow."""

    app: str
    run: str
    engine: str
    cluster: str
    queue: str
    bucket: str
    log_group: str
    started: int
    clean_dashboard: bool = True
    fleets: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    more_usd: float = 0.0
    """Dollars that `ds start --budget` has added to the budget; `more_hours` likewise."""
    more_hours: float = 0.0
    held: bool = False
    """Most machines are not asked for yet: the run's canary goes first."""
    excluded: Mapping[str, str] = {}
    """The machines that get no more jobs, and why."""
    tried: tuple[str, ...] = ()
    """What machines were asked for, and when."""

    @classmethod
    def new(cls, config: Config, engine: str, run: str, bucket: str, now: float) -> RunRecord:
        """Returns the record of a new run; `bucket` is used if AWS_BUCKET is missing."""
        return cls(
            app=config.app_name,
            run=run,
            engine=engine,
            cluster=config.ecs_cluster,
            queue=config.sqs_queue_name,
            bucket=config.aws_bucket or bucket,
            log_group=config.log_group_name,
            started=int(now * 1000),
            clean_dashboard=config.clean_dashboard,
        )

    @property
    def is_references(self) -> bool:
        """Whether the reference wrote it: what it names has no tags of ours."""
        return not self.run

    def with_fleet(self, fleet: str) -> RunRecord:
        """Returns the record with one more fleet; a second start adds and never overwrites."""
        return self if fleet in self.fleets else self._replace(fleets=(*self.fleets, fleet))

    def with_tried(self, tried: Sequence[str], now: float) -> RunRecord:
        """Returns the record with what machines were asked for now."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return self._replace(tried=(*self.tried, *(f"{when} {each}" for each in tried)))

    def with_budget(self, more: Budget) -> RunRecord:
        """Returns the record with a raised budget."""
        usd, hours = self.more_usd + (more.usd or 0.0), self.more_hours + (more.hours or 0.0)
        return self._replace(more_usd=usd, more_hours=hours)

    def with_resources(self, made: tuple[str, ...]) -> RunRecord:
        """Returns the record with what was just made."""
        return self._replace(resources=tuple(dict.fromkeys([*self.resources, *made])))

    def to_json(self) -> str:
        """As stored: the reference's keys first."""
        facts = {
            "MONITOR_FLEET_ID": self.fleets[0] if self.fleets else "",
            "MONITOR_APP_NAME": self.app,
            "MONITOR_ECS_CLUSTER": self.cluster,
            "MONITOR_QUEUE_NAME": self.queue,
            "MONITOR_BUCKET_NAME": self.bucket,
            "MONITOR_LOG_GROUP_NAME": self.log_group,
            "MONITOR_START_TIME": str(self.started),
            "CLEAN_DASHBOARD": str(self.clean_dashboard),
            "run": self.run,
            "engine": self.engine,
            "fleets": self.fleets,
            "resources": self.resources,
            "more_usd": self.more_usd,
            "more_hours": self.more_hours,
            "held": self.held,
            "excluded": {**self.excluded},
            "tried": self.tried,
        }
        return json.dumps(facts, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> RunRecord:
        """Returns a record as stored, also one that the reference wrote. Raises UsageError."""
        facts = _parse(text, name)
        missing = [key for key in _KEYS if not isinstance(facts.get(key), str)]
        if missing:
            raise UsageError(f"{name}: no run record: {missing[0]} is missing", _FIX)
        fleets = _texts(facts.get("fleets")) or _texts([facts["MONITOR_FLEET_ID"]])
        return cls(
            app=facts["MONITOR_APP_NAME"],
            run=str(facts.get("run", "")),
            engine=str(facts.get("engine", "aws")),
            cluster=facts["MONITOR_ECS_CLUSTER"],
            queue=facts["MONITOR_QUEUE_NAME"],
            bucket=facts["MONITOR_BUCKET_NAME"],
            log_group=facts["MONITOR_LOG_GROUP_NAME"],
            started=_milliseconds(facts["MONITOR_START_TIME"]),
            clean_dashboard=str(facts.get("CLEAN_DASHBOARD", "True")).lower() == "true",
            fleets=fleets,
            resources=_texts(facts.get("resources")),
            more_usd=_number(facts.get("more_usd")),
            more_hours=_number(facts.get("more_hours")),
            held=facts.get("held") is True,
            excluded=_named(facts.get("excluded")),
            tried=_texts(facts.get("tried")),
        )


_LONGEST_TIME = 20
"""Maximum digits of a start time; Python refuses very long numbers."""

_FIX = (
    "name the file that `ds start` wrote: files/<APP_NAME>SpotFleetRequestId.json;"
    " where that one is broken, ds cleanup ends what the run made, and removes it"
)

_REFERENCES = re.compile(r'\s*\{\s*(?:"(?:MONITOR_[A-Z_]+|CLEAN_DASHBOARD)"\s*:\s*"[^"]*"[\s,}]+)+')
"""A record as the reference writes it: nothing but these keys, and a closing brace too many."""


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _REFERENCES.fullmatch(text):
            return dict(re.findall(r'"(\w+)"\s*:\s*"([^"]*)"', text))
        raise UsageError(f"{name}: not a run record: {error}", _FIX) from error
    if not isinstance(facts, dict):
        raise UsageError(f"{name}: not a run record: no JSON object", _FIX)
    return facts


def _milliseconds(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_TIME else 0


def _number(found: object) -> float:
    return float(found) if type(found) in (int, float) and 0 <= found < 1e9 else 0.0  # type: ignore[operator,arg-type]


def _texts(found: object) -> tuple[str, ...]:
    return tuple(item for item in found if isinstance(item, str) and item) if isinstance(found, list) else ()


def _named(found: object) -> dict[str, str]:
    return {str(name): str(why) for name, why in found.items()} if isinstance(found, dict) else {}


def record_path(project: Path, app: str) -> Path:
    """Returns where the record of an app lies."""
    return project / "files" / f"{app}SpotFleetRequestId.json"


def record_key(paths: RunPaths) -> str:
    """the store key of the record's copy, which a monitor elsewhere reads."""
    return paths.root + "record.json"


def read_record(path: Path) -> RunRecord:
    """Read a record. Raises UsageError where there is none, or it is broken."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path}: cannot be read: {reason}", _FIX) from error
    return RunRecord.from_json(text, str(path))


def write_record(path: Path, record: RunRecord) -> None:
    """Write the record at once; after a failure the old one stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with temporary.open("w") as file:
            file.write(record.to_json())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sweep(path.parent, f".{path.name}.")


def new_run_id(now: float) -> str:
    """Returns a run's id: its start in UTC, two digits for the part of the second, and two random ones.

    Ids sort by time, also those of two runs that began in one second (each second has 256 parts).
    """
    begun = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{begun}-{int(now % 1 * 256):02x}{os.urandom(1).hex()}"


def budget_of(config: Config, path: Path, run: str | None) -> Budget:
    """Returns the limits of a run: those of the config, raised as its record (a file) says."""
    limits = Budget(config.budget_usd, config.budget_hours)
    record = _record_of(path, run) if limits else None
    return limits.raised(record.more_usd, record.more_hours) if record else limits


def excluded_of(path: Path, run: str | None) -> Mapping[str, str]:
    """Returns the machines that get no more jobs of a run by its record, and why."""
    record = _record_of(path, run)
    return record.excluded if record else {}


def _record_of(path: Path, run: str | None) -> RunRecord | None:
    """Returns the record of a run; None: there is none, or it is damaged."""
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except UsageError:
        return None
    return record if record.run == run else None
