"""Applies one step of a plan: makes a resource, or corrects it. Decides nothing. Called by `provision.py`."""

from __future__ import annotations

from ...clock import Clock
from ...errors import DsError
from ...s3.session import AwsSession, aws_errors, error_code
from ..sqs.queues import ensure_queue
from .current_state import describe_service
from .resources import Action, Kind, Step

DRAIN_SECONDS = 300  # longest wait for a service that is being deleted to free its name, in seconds

_LOOK_SECONDS = 5.0


class Applier:
    """Applies steps, in a cluster. A step that another process has applied is no error."""

    def __init__(self, session: AwsSession, cluster: str, clock: Clock) -> None:
        self._session = session
        self._cluster = cluster
        self._clock = clock

    def apply(self, step: Step) -> None:
        """Applies a step. Raises DsError; existing resources are then as before, or as wanted."""
        kind = step.resource.kind
        if step.action is Action.NOTHING:
            return
        if kind is Kind.QUEUE:
            self._queue(step)
            return
        with aws_errors(step.text):
            if kind is Kind.LOG_GROUP:
                self._log_group(step)
            elif kind is Kind.CLUSTER:
                self._session.client("ecs").create_cluster(clusterName=step.resource.name, tags=_tags(step))
            elif kind is Kind.TASK_DEFINITION:
                settings = dict(step.resource.settings)
                self._session.client("ecs").register_task_definition(**settings, tags=_tags(step))
            else:
                self._service(step)

    def _queue(self, step: Step) -> None:
        settings = {name: str(value) for name, value in step.resource.settings.items()}
        client, tags = self._session.client("sqs"), dict(step.resource.tags)
        ensure_queue(client, self._clock, step.resource.name, settings, tags)

    def _log_group(self, step: Step) -> None:
        """Always sets the retention too: after a failure between the two calls lines would stay for ever."""
        import botocore.exceptions

        client, name = self._session.client("logs"), step.resource.name
        try:
            client.create_log_group(logGroupName=name, tags=dict(step.resource.tags))
        except botocore.exceptions.ClientError as error:
            if error_code(error) != "ResourceAlreadyExistsException":
                raise
        client.put_retention_policy(
            logGroupName=name, retentionInDays=step.resource.initial["retentionInDays"]
        )

    def _service(self, step: Step) -> None:
        client, name = self._session.client("ecs"), step.resource.name
        settings = dict(step.resource.settings)
        if step.action is Action.CREATE:
            self._wait_for_its_name(name)
            client.create_service(
                cluster=self._cluster, serviceName=name, **settings, **step.resource.initial, tags=_tags(step)
            )
            return
        answer = client.update_service(cluster=self._cluster, service=name, **settings)
        client.tag_resource(resourceArn=answer["service"]["serviceArn"], tags=_tags(step))

    def _wait_for_its_name(self, name: str) -> None:
        """Waits until a service of that name that is being deleted is gone."""
        waited = 0.0
        while (found := describe_service(self._session, name, self._cluster)) is not None:
            if found["status"] != "DRAINING":
                return
            if waited >= DRAIN_SECONDS:
                raise DsError(
                    f"the service {name} of an earlier run is still being deleted: its tasks have not ended",
                    "try again in a few minutes",
                )
            self._clock.wait(_LOOK_SECONDS)
            waited += _LOOK_SECONDS


def _tags(step: Step) -> list[dict[str, str]]:
    """Tags in the form of ECS."""
    return [{"key": key, "value": value} for key, value in step.resource.tags.items()]
