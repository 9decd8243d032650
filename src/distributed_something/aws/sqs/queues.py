"""Names the SQS queues of an app, finds them by whole name, makes them, corrects their settings.

Used by setup, engine, worker and teardown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...clock import Clock
from ...errors import UsageError
from ...inputs.config import Config
from ...job import MAX_DELIVERIES
from ...s3.session import AwsSession, aws_errors, or_none

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

RETENTION_SECONDS = 14 * 24 * 3600
"""Retention of every queue in seconds, SQS's longest: a dead job must not vanish unseen."""

MAX_RECEIPTS = 5 * MAX_DELIVERIES
"""Receipts after which SQS itself makes a job dead. Our workers do so after MAX_DELIVERIES, with a cause."""

IMAGE_RECEIPTS = 10
"""The same for images that start their own worker, if the config has no JOB_RETRIES: as in the reference."""

LONGEST_VISIBILITY = 43_200  # SQS's longest visibility timeout, in seconds
RECREATE_SECONDS = 60.0  # how long SQS refuses the name of a deleted queue, in seconds

CARRIED_SUFFIX = "-carried"
OWN_DEAD_SUFFIX = "-dead"
_NAME_LIMIT = 80
NO_QUEUE = ("QueueDoesNotExist", "NonExistentQueue")
"""SQS's codes for a queue that does not exist: the newer protocol's, and the older one's."""


@dataclass(frozen=True)
class QueueNames:
    """`jobs` is SQS_QUEUE_NAME, `dead` is SQS_DEAD_LETTER_QUEUE (a name, or in old configs an ARN)."""

    jobs: str
    dead: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "dead", self.dead.rsplit(":", 1)[-1])
        if len(self.carried) > _NAME_LIMIT:
            raise UsageError(
                f"SQS_QUEUE_NAME: {self.jobs!r} is too long for the queue {CARRIED_SUFFIX} beside it",
                f"give it a name of at most {_NAME_LIMIT - len(CARRIED_SUFFIX)} characters",
            )

    @classmethod
    def of(cls, config: Config) -> QueueNames:
        """The names that the config gives."""
        return cls(config.sqs_queue_name, config.sqs_dead_letter_queue)

    @property
    def own_dead(self) -> str:
        """The queue of dead jobs if the one that the config names serves other apps too."""
        return self.jobs + OWN_DEAD_SUFFIX

    def with_own_dead(self) -> QueueNames:
        """These names with a queue of dead jobs that serves this app only."""
        return replace(self, dead=self.own_dead)

    def used_by(self, attributes: Mapping[str, Any]) -> QueueNames:
        """The names that a run uses, by the attributes of its queue of jobs."""
        dead = dead_queue_of(attributes)
        return replace(self, dead=dead) if dead else self

    @property
    def all(self) -> tuple[str, ...]:
        """Every queue that the app may have; the queue of jobs first."""
        return tuple(dict.fromkeys((self.jobs, self.carried, self.dead, self.own_dead)))

    @property
    def carried(self) -> str:
        """The queue of jobs that run longer than SQS's twelve hours."""
        return self.jobs + CARRIED_SUFFIX


def max_receipts(config: Config) -> int:
    """Receipts after which SQS makes a job dead.

    Workers of images settle no failure themselves, so SQS counts their attempts, lost machines included.
    """
    if not config.image_starts_worker:
        return MAX_RECEIPTS
    return config.job_retries if "JOB_RETRIES" in config.given else IMAGE_RECEIPTS


def short_visibility(config: Config) -> UsageError | None:
    """The error for leases that end before a job may: workers of images never renew theirs. None: fine."""
    visibility = config.sqs_message_visibility
    if not config.image_starts_worker or config.job_timeout <= visibility:
        return None
    what = f"SQS_MESSAGE_VISIBILITY = {visibility} s is shorter than JOB_TIMEOUT: such jobs would run twice"
    if config.job_timeout > LONGEST_VISIBILITY:
        return UsageError(what, "give a COMMAND: our worker renews leases; SQS hides jobs for 12 hours")
    wanted = min(int(config.job_timeout * 1.2), LONGEST_VISIBILITY)
    return UsageError(what, f"SQS_MESSAGE_VISIBILITY = {wanted}")


@dataclass(frozen=True)
class QueueUrls:
    """Addresses of an app's queues. Without `carried`, a lease ends after twelve hours even if renewed."""

    jobs: str
    dead: str
    carried: str | None = None


def dead_queue_of(attributes: Mapping[str, Any]) -> str | None:
    """The name of a queue's dead-letter queue, by its attributes; None: it has none."""
    try:
        return str(json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]).rpartition(":")[2]
    except (KeyError, TypeError, ValueError):
        return None


def find_queues(session: AwsSession, names: QueueNames) -> QueueUrls | None:
    """The addresses of an app's queues; None: the queue of jobs or of dead jobs does not exist."""
    client = session.client("sqs")
    jobs, dead, carried = (queue_url(client, name) for name in (names.jobs, names.dead, names.carried))
    return QueueUrls(jobs, dead, carried) if jobs and dead else None


def ensure_queue(
    client: SQSClient, clock: Clock, name: str, wanted: dict[str, str], tags: dict[str, str]
) -> str:
    """Makes or corrects a queue. Returns its address."""
    url = queue_url(client, name)
    if url is None:
        return _create(client, clock, {"QueueName": name, "Attributes": wanted, "tags": tags})
    with aws_errors(f"reading the settings of {name}"):
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    found: Mapping[Any, str] = answer["Attributes"]
    wrong: Any = {key: value for key, value in wanted.items() if not _same(found.get(key), value)}
    if wrong:
        with aws_errors(f"correcting the settings of {name}"):
            client.set_queue_attributes(QueueUrl=url, Attributes=wrong)
    if tags:
        with aws_errors(f"tagging {name}"):
            client.tag_queue(QueueUrl=url, Tags=tags)
    return url


def _create(client: SQSClient, clock: Clock, request: Any) -> str:
    """Makes a queue; if its name was deleted just now, when SQS allows it again."""
    with aws_errors(f"making the queue {request['QueueName']}"):
        made = or_none(client.create_queue, "QueueDeletedRecently", **request)
        if made is None:
            clock.wait(RECREATE_SECONDS)
            made = client.create_queue(**request)
    return str(made["QueueUrl"])


def queue_url(client: SQSClient, name: str) -> str | None:
    """The address of a queue; None: it does not exist."""
    with aws_errors(f"looking for the queue {name}"):
        found = or_none(client.get_queue_url, *NO_QUEUE, QueueName=name)
    return None if found is None else str(found["QueueUrl"])


def _same(found: str | None, wanted: str) -> bool:
    """Whether a setting is as wanted; redrive policies are compared as JSON."""
    if found is None or not wanted.startswith("{"):
        return found == wanted
    return _policy(found) == _policy(wanted)


def _policy(text: str) -> dict[str, str]:
    return {key: str(value) for key, value in json.loads(text).items()}
