"""Runs the pretend account: fleets get machines, machines join clusters, services get tasks, faults strike.

One thread turns it. Calls and turns hold the same lock, so each sees whole states.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.exceptions import ServiceException
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import StateReason
from moto.ec2.utils import convert_tag_spec
from moto.ecs.models import ecs_backends
from moto.logs.models import logs_backends
from moto.sqs.models import sqs_backends

from ..emulator.clock import steady
from ..emulator.ecs import Ecs
from ..emulator.fleet_plan import Held, State, Way, plan
from ..emulator.fleets import Fleet, Registry
from ..faults import NOTICE_SECONDS, Faults, fate
from .machines import Machine, read_user_data
from .services import Services, Start

SHUTDOWN_SECONDS = 10.0  # grace of tasks on a machine that shuts down, in seconds, as Docker gives it
REFUSED_SECONDS = 5.0  # pause of a fleet after a failed machine start, in seconds


class Line(NamedTuple):
    """A line that a task printed, and where it goes: log group, log stream, seconds of the epoch, text."""

    group: str
    stream: str
    when: float
    text: str


class Cloud:
    """EC2's fleets and ECS's machines of one region, at this `price` of dollars an hour, where one is known.

    Those who serve calls hold `lock`.
    """

    def __init__(self, region: str, faults: Faults, start: Start, price: float | None = None) -> None:
        self.lock = threading.RLock()
        self.region = region
        self.faults = faults
        self.registry = Registry(steady, price)
        self.machines: list[Machine] = []
        self.ec2: Any = ec2_backends[DEFAULT_ACCOUNT_ID][region]
        ecs: Any = ecs_backends[DEFAULT_ACCOUNT_ID][region]
        self.ecs: Ecs = ecs
        self.services = Services(self.ecs, start)
        self._try_again: dict[str, float] = {}
        self._number = 0

    def turn(self) -> None:
        """Let everything take its next step."""
        with self.lock:
            for fleet in self.registry.fleets.values():
                self._look_after(fleet)
            for machine in self.machines:
                if machine.alive:
                    self._live(machine)
            self.services.turn([each for each in self.machines if each.alive or each.tasks])
            for machine in self.machines:
                if not machine.alive and not machine.tasks:
                    machine.leave(self.ecs)

    def active(self, fleet: Fleet) -> list[Any]:
        """Returns a fleet's machines that EC2 has, as moto's instances."""
        return [each.instance for each in self.machines if each.fleet is fleet and each.alive]

    def machine(self, instance_id: str) -> Machine | None:
        """Returns a machine by its id."""
        return next((each for each in self.machines if each.id == instance_id), None)

    def kill_all(self) -> None:
        """End every task at once, without asking."""
        with self.lock:
            for machine in self.machines:
                for running in machine.tasks.values():
                    running.process.kill()
            for machine in self.machines:
                for running in machine.tasks.values():
                    running.process.wait(5.0)

    def busy(self) -> bool:
        """Returns whether a machine is there."""
        return any(each.alive for each in self.machines)

    def log(self, lines: Iterable[Line]) -> None:
        """Put lines of tasks into their log groups; what has no group is not kept."""
        logs: Any = logs_backends[DEFAULT_ACCOUNT_ID][self.region]
        with self.lock:
            for line in lines:
                group = logs.groups.get(line.group)
                if group is not None:
                    if line.stream not in group.streams:
                        group.create_log_stream(line.stream)
                    entry = {"timestamp": int(line.when * 1000), "message": line.text or " "}
                    group.put_log_events(line.stream, [entry])

    # Fleets

    def _look_after(self, fleet: Fleet) -> None:
        if fleet.state is State.OVER:
            return
        mine = [each for each in self.machines if each.fleet is fleet and each.alive]
        held = [Held(each.id, each.weight) for each in mine]
        weight = fleet.ways[0].weight
        now = steady()
        step = plan(fleet.state, fleet.terms, held, now=now, started=fleet.started, weight=weight)
        if step.state is not fleet.state:
            fleet.state = step.state
            fleet.tell("fleetRequestChange", fleet.word)
        for machine in mine:
            if machine.id in step.end:
                self.end(machine, "the fleet has ended it", "Client.UserInitiatedShutdown")
        if step.launch and now >= self._try_again.get(fleet.id, 0.0):
            self._launch(fleet, step.launch, len(mine))
        fleet.fulfilled = sum(each.weight for each in self.machines if each.fleet is fleet and each.alive)

    def _launch(self, fleet: Fleet, wanted: int, have: int) -> None:
        target = math.ceil(fleet.terms.target / fleet.ways[0].weight)
        fixed = sum(not each.spot for each in self.machines if each.fleet is fleet and each.alive)
        on_demand = max(min(int(fleet.terms.on_demand) - fixed, wanted), 0)
        spot = wanted - on_demand
        share = self.faults.capacity
        room = spot if share is None else share.limit(target - int(fleet.terms.on_demand)) - (have - fixed)
        fleet.short = room < spot
        for number in range(on_demand + min(spot, max(room, 0))):
            next_way = fleet.ways[fleet.started % len(fleet.ways)]
            if not self._start_one(fleet, next_way, spot=number >= on_demand):
                return
        if fleet.short:
            way = fleet.ways[0].launch
            said = f"{way.get('InstanceType')}, {way.get('ImageId')}, Linux/UNIX: insufficient capacity"
            fleet.tell("information", "launchSpecTemporarilyBlacklisted", said)
            said = "Several attempts to launch instances have failed: there is no capacity. Trying again."
            fleet.tell("error", "allLaunchSpecsTemporarilyBlacklisted", said)
            self._try_again[fleet.id] = steady() + self.faults.seconds(REFUSED_SECONDS)

    def _start_one(self, fleet: Fleet, way: Way, *, spot: bool = True) -> bool:
        try:
            instance = self._run_instance(fleet, way, spot=spot)
        except ServiceException as error:
            fleet.short = True
            fleet.tell(
                "error",
                "spotFleetRequestConfigurationInvalid",
                f"{error.code}: {error.message}",
            )
            self._try_again[fleet.id] = steady() + self.faults.seconds(REFUSED_SECONDS)
            return False
        now = steady()
        self._number += 1
        fleet.started += 1
        machine = Machine(
            instance,
            fleet,
            way.weight,
            self._number,
            now,
            boots=now + self.faults.seconds(self.faults.boot),
            fate=fate(self.faults, self._number) if spot else fate(self.faults, self._number).kept,
            spot=spot,
            agent=read_user_data(way.launch.get("UserData")),
        )
        self.machines.append(machine)
        facts = {"instanceType": instance.instance_type, "availabilityZone": instance.availability_zone}
        fleet.tell("instanceChange", "launched", json.dumps(facts), machine.id)
        return True

    def _run_instance(self, fleet: Fleet, way: Way, *, spot: bool) -> Any:
        launch = way.launch
        face: dict[str, Any] = next(iter(launch.get("NetworkInterfaces") or ()), {})
        groups = [each["GroupId"] for each in launch.get("SecurityGroups") or () if "GroupId" in each]
        groups = groups or list(launch.get("SecurityGroupIds") or face.get("Groups") or ())
        subnet = str(launch.get("SubnetId") or face.get("SubnetId") or "").split(",")[0].strip()
        tags = convert_tag_spec(list(launch.get("TagSpecifications") or ()))
        mark = "aws:ec2spot:fleet-request-id" if fleet.spot else "aws:ec2:fleet-id"
        tags["instance"] = {**tags.get("instance", {}), mark: fleet.id}
        disks = [each for each in launch.get("BlockDeviceMappings") or () if "Ebs" in each]
        reservation = self.ec2.run_instances(
            image_id=launch.get("ImageId"),
            count=1,
            user_data=launch.get("UserData"),
            security_group_names=[],
            security_group_ids=groups,
            instance_type=launch.get("InstanceType"),
            is_instance_type_default=False,
            region_name=self.region,
            subnet_id=subnet or None,
            key_name=launch.get("KeyName"),
            iam_instance_profile=launch.get("IamInstanceProfile"),
            tags=tags,
            **({"lifecycle": "spot"} if spot else {}),
            **({"block_device_mappings": disks} if disks else {}),
        )
        instance = reservation.instances[0]
        instance._state.name, instance._state.code = "pending", 0
        return instance

    # Machines

    def _live(self, machine: Machine) -> None:
        now = steady()
        if machine.instance.state == "terminated":  # by a call
            self._ended(machine, "terminated by a call", SHUTDOWN_SECONDS)
        elif now >= machine.started + self.faults.seconds(machine.fate.kill):
            self.end(machine, "killed without a notice", "Server.SpotInstanceTermination", grace=0.0)
        elif now >= machine.ends:
            self.end(machine, "interrupted after its notice", "Server.SpotInstanceTermination")
        elif machine.noticed == math.inf and now >= machine.started + self.faults.seconds(
            machine.fate.notice
        ):
            self.notice(machine)
        elif machine.instance.state == "pending" and now >= machine.boots:
            machine.boot()
        if machine.alive and machine.instance.state == "running" and machine.container is None:
            machine.join(self.ecs)

    def notice(self, machine: Machine) -> None:
        """Announces in a machine's metadata that EC2 takes it back; its agent drains it if configured so."""
        machine.noticed = steady()
        machine.ends = machine.noticed + self.faults.seconds(NOTICE_SECONDS)
        machine.fleet.tell("instanceChange", "termination_notified", "spot interruption", machine.id)
        if machine.container is not None and machine.agent.drains:
            machine.container.status = "DRAINING"

    def end(self, machine: Machine, why: str, code: str, grace: float = SHUTDOWN_SECONDS) -> None:
        """End a machine: its tasks have `grace` seconds; with none they are killed with all they started."""
        machine.instance.terminate()
        machine.instance.state_reason = StateReason(f"{code}: {why}", code)
        self._ended(machine, why, grace)

    def _ended(self, machine: Machine, why: str, grace: float) -> None:
        machine.ended, machine.why = steady(), why
        machine.fleet.tell("instanceChange", "terminated", why, machine.id)
        for running in machine.tasks.values():
            running.record.desired_status = "STOPPED"
            running.record.stopped_reason = f"Host EC2 (instance {machine.id}) terminated."
            running.record.stop_code = "TerminationNotice"
            running.stop_seconds = grace
            if grace:
                running.process.stop(grace)
            else:
                running.process.kill()

    # What it tells

    def facts(self) -> dict[str, Any]:
        """Returns the machines and fleets there were, as JSON has it."""
        with self.lock:
            return {
                "machines": [_told(each) for each in self.machines],
                "fleets": {fleet.id: fleet.word for fleet in self.registry.fleets.values()},
                "leftovers": self.leftovers(),
            }

    def leftovers(self) -> list[str]:
        """Returns what a run has made and not taken away, read from the emulated account itself."""
        found = [f"machine {each.id}" for each in self.machines if each.alive]
        found += [
            f"fleet {each.id} ({each.word})"
            for each in self.registry.fleets.values()
            if each.state in (State.ACTIVE, State.LEFT)
        ]
        queues: Any = sqs_backends[DEFAULT_ACCOUNT_ID][self.region]
        found += [f"queue {name}" for name in queues.queues]
        found += [f"launch template {each.name}" for each in self.ec2.launch_templates.values()]
        found += [f"service {each.name}" for each in self.ecs.services.values() if each.status == "ACTIVE"]
        found += [
            f"task definition {each.family}:{each.revision}"
            for revisions in self.ecs.task_definitions.values()
            for each in revisions.values()
            if each.status == "ACTIVE"
        ]
        clusters = self.ecs.clusters.values()
        found += [
            f"cluster {each.name}" for each in clusters if each.status == "ACTIVE" and each.name != "default"
        ]
        watch: Any = cloudwatch_backends[DEFAULT_ACCOUNT_ID][self.region]
        found += [f"dashboard {each}" for each in watch.dashboards]
        found += [f"alarm {each}" for each in watch.alarms]
        found += [
            f"task {task.id}"
            for tasks in self.ecs.tasks.values()
            for task in tasks.values()
            if task.last_status != "STOPPED"
        ]
        return found


def _told(machine: Machine) -> dict[str, Any]:
    return {
        "id": machine.id,
        "run": next((each["value"] for each in machine.instance.get_tags() if each["key"] == "ds:run"), ""),
        "type": machine.instance.instance_type,
        "zone": machine.instance.availability_zone,
        "started": machine.started,
        "noticed": None if math.isinf(machine.noticed) else machine.noticed,
        "ended": machine.ended,
        "why": machine.why,
        "spot": machine.spot,
        "lost": machine.why.startswith(("killed", "interrupted")),
    }


def metadata(machine: Machine, region: str) -> dict[str, str]:
    """Returns what the machine's metadata service says, by path below `latest/`."""
    zone = str(machine.instance.availability_zone)
    document = {
        "instanceId": machine.id,
        "instanceType": machine.instance.instance_type,
        "region": region,
        "availabilityZone": zone,
        "accountId": DEFAULT_ACCOUNT_ID,
        "imageId": machine.instance.image_id,
    }
    found = {
        "meta-data/instance-id": machine.id,
        "meta-data/instance-type": str(machine.instance.instance_type),
        "meta-data/instance-life-cycle": "spot" if machine.spot else "on-demand",
        "meta-data/ami-id": str(machine.instance.image_id),
        "meta-data/placement/availability-zone": zone,
        "meta-data/placement/region": region,
        "dynamic/instance-identity/document": json.dumps(document),
    }
    if not math.isinf(machine.noticed):
        action = {"action": "terminate", "time": _utc(machine.ends)}
        found["meta-data/spot/instance-action"] = json.dumps(action)
        found["meta-data/spot/termination-time"] = _utc(machine.ends)
        rebalance = {"noticeTime": _utc(machine.noticed)}
        found["meta-data/events/recommendations/rebalance"] = json.dumps(rebalance)
    return found


def _utc(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
