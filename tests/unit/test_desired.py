"""What a run wants in the account, what its machines are told, and the plan that makes it so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from distributed_something.aws.ec2.requests.ownfleet import Subnet, ec2_fleet_request, launch_template
from distributed_something.aws.ec2.requests.request import Image
from distributed_something.aws.ec2.requests.userdata import (
    MOUNT_FOLDER,
    agent_settings,
    placement,
    start_script,
    user_data,
)
from distributed_something.aws.ecs.desired import WORKER_FOLDER, InjectedWorker, desired, task_definition
from distributed_something.aws.ecs.resources import Action, Kind, Resource, compare
from distributed_something.aws.ecs.worker_image import injected_worker
from distributed_something.aws.names import Account, partition
from distributed_something.aws.shape import MachineShape, misfit, smallest, task_size
from distributed_something.errors import UsageError
from distributed_something.inputs.config import Config, parse_config
from distributed_something.job import MAX_DELIVERIES

ARN = "arn:aws:iam::123456789012:"
ACCOUNT = Account("123456789012", ARN + "role/task", ARN + "role/run", ARN + "instance-profile/machine")
SHAPE = MachineShape(vcpus=4, memory_mib=16384)
INJECTED = InjectedWorker("public.ecr.aws/lab/ds:1")
REFERENCE_NAMES = {
    "APP_NAME", "SQS_QUEUE_URL", "AWS_REGION", "AWS_BUCKET", "DOCKER_CORES", "LOG_GROUP_NAME",
    "CHECK_IF_DONE_BOOL", "EXPECTED_NUMBER_FILES", "ECS_CLUSTER", "SECONDS_TO_START", "MIN_FILE_SIZE_BYTES",
    "NECESSARY_STRING",
}  # fmt: skip


def config_of(*lines: str) -> Config:
    return parse_config("\n".join(["APP_NAME = 'Demo'", "DOCKERHUB_TAG = 'lab/image:1'", *lines]))


def wanted(*lines: str, run: str = "run1", **more: Any) -> tuple[Resource, ...]:
    return desired(config_of(*lines), ACCOUNT, SHAPE, run=run, injected=INJECTED, **more)


def one(kind: Kind, *lines: str, name: str = "", **more: Any) -> Resource:
    [found] = [each for each in wanted(*lines, **more) if each.kind is kind and name in ("", each.name)]
    return found


def containers(*lines: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one(Kind.TASK_DEFINITION, *lines, **more).settings["containerDefinitions"]
    return found


def environment(*lines: str, **more: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in containers(*lines, **more)[-1]["environment"]}


# -- Resources ----------------------------------------------------------------------------------------------


def test_everything_has_the_references_names_and_the_runs_tags() -> None:
    assert [(each.kind.value, each.name) for each in wanted()] == [
        ("queue", "DemoDeadMessages"), ("queue", "DemoQueue"), ("queue", "DemoQueue-carried"),
        ("log group", "Demo"), ("log group", "Demo_perInstance"), ("cluster", "default"),
        ("task definition", "DemoTask"), ("service", "DemoService"),
    ]  # fmt: skip
    assert all(each.tags == {"ds:app": "Demo", "ds:run": "run1"} for each in wanted())


@pytest.mark.fault(16)
def test_dead_jobs_are_kept_as_long_as_sqs_can() -> None:
    for name in ("DemoQueue", "DemoDeadMessages"):
        assert one(Kind.QUEUE, name=name).settings["MessageRetentionPeriod"] == str(14 * 24 * 3600)


@pytest.mark.fault(17)
def test_sqs_gives_a_job_up_only_long_after_our_workers_do() -> None:
    lines = ("SQS_MESSAGE_VISIBILITY = 300", "COMMAND = 'x'")
    settings = one(Kind.QUEUE, *lines, name="DemoQueue").settings
    assert settings["VisibilityTimeout"] == "300"
    redrive = json.loads(settings["RedrivePolicy"])
    assert int(redrive["maxReceiveCount"]) > MAX_DELIVERIES
    assert redrive["deadLetterTargetArn"] == "arn:aws:sqs:us-east-1:123456789012:DemoDeadMessages"


@pytest.mark.fault(61)
@pytest.mark.parametrize(("line", "receipts"), [("", "10"), ("JOB_RETRIES = 3", "3")])
def test_a_worker_that_counts_no_attempts_is_bounded_by_sqs(line: str, receipts: str) -> None:
    settings = one(Kind.QUEUE, line, name="DemoQueue").settings
    assert json.loads(settings["RedrivePolicy"])["maxReceiveCount"] == receipts


def test_a_dead_queue_that_old_configs_name_by_its_arn() -> None:
    line = "SQS_DEAD_LETTER_QUEUE = 'arn:aws:sqs:us-east-1:123456789012:user_Dead'"
    assert "user_Dead" in [each.name for each in wanted(line)]


def test_each_part_of_aws_has_its_own_arns() -> None:
    regions = ("eu-west-1", "cn-north-1", "us-gov-west-1", "us-isob-east-1")
    assert [partition(region) for region in regions] == ["aws", "aws-cn", "aws-us-gov", "aws-iso-b"]


@pytest.mark.fault(31, 33)
@pytest.mark.parametrize("line", ["", "COMMAND = 'process'", "MOUNT_BUCKET = True"])
def test_containers_are_not_privileged_and_have_a_role_of_their_own(line: str) -> None:
    assert all(each["privileged"] is False for each in containers(line))
    settings = one(Kind.TASK_DEFINITION, line).settings
    assert (settings["taskRoleArn"], settings["executionRoleArn"]) == (ARN + "role/task", ARN + "role/run")


@pytest.mark.fault(26)
def test_a_container_has_two_minutes_to_stop_and_hears_the_signal() -> None:
    main = containers()[0]
    assert main["stopTimeout"] == 120
    assert main["linuxParameters"] == {"initProcessEnabled": True}


def test_an_image_with_its_own_worker_is_started_as_it_is() -> None:
    [main] = containers("MEMORY = 15000", "CPU_SHARES = 2048")
    assert (main["name"], main["image"], main["memory"], main["cpu"]) == ("Demo", "lab/image:1", 15000, 2048)
    assert not {"entryPoint", "command", "dependsOn"} & main.keys()
    assert main["logConfiguration"]["options"]["awslogs-group"] == "Demo_perInstance"


@pytest.mark.parametrize("line", ["COMMAND = 'process {Plate}'", "HANDLER = 'mine:run'"])
def test_the_worker_is_carried_into_an_image_without_one(line: str) -> None:
    injector, main = containers(line)
    assert main["dependsOn"] == [{"containerName": injector["name"], "condition": "SUCCESS"}]
    assert (injector["essential"], injector["cpu"], main["essential"]) == (False, 0, True)
    assert injector["entryPoint"] == ["/opt/ds/lib/ld.so"]
    assert injector["command"][-2:] == ["/opt/ds/copy.py", WORKER_FOLDER]
    assert main["entryPoint"] + main["command"] == [f"{WORKER_FOLDER}/ds", "worker"]
    places = [
        (each["mountPoints"][0]["containerPath"], each["mountPoints"][0]["readOnly"])
        for each in (injector, main)
    ]
    assert places == [(WORKER_FOLDER, False), (WORKER_FOLDER, True)]
    assert one(Kind.TASK_DEFINITION, line).settings["volumes"] == [{"name": injector["name"], "host": {}}]


def test_an_image_that_has_the_worker_itself_starts_it() -> None:
    injected = InjectedWorker("", start=("ds", "worker"))
    definition = task_definition(
        config_of("COMMAND = 'x'"), ACCOUNT, SHAPE, run="run1", injected=injected, environment={}
    )
    (main,) = definition.settings["containerDefinitions"]
    assert "volumes" not in definition.settings
    assert (main["entryPoint"], main["command"]) == (["ds"], ["worker"])
    assert not main.keys() & {"dependsOn", "mountPoints"}


@pytest.mark.parametrize(
    ("line", "image"), [("", "from-the-environment:1"), ("WORKER_IMAGE = 'lab/ds:2'", "lab/ds:2")]
)
def test_the_config_names_the_image_of_the_worker_before_the_environment(
    line: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_WORKER_IMAGE", "from-the-environment:1")
    found = injected_worker(config_of("COMMAND = 'x'", line))
    assert found is not None and found.image == image
    assert injected_worker(config_of(line)) is None
    own = injected_worker(config_of("COMMAND = 'x'", "WORKER_IMAGE = 'own'"))
    assert own is not None and own.image == ""


def test_workers_of_the_reference_find_all_they_expect() -> None:
    lines = (
        "CHECK_IF_DONE_BOOL = 'True'",
        "SECONDS_TO_START = 3*60",
        "SOURCE_BUCKET = 'b'",
        "DOCKER_CORES = 3",
    )
    found = environment(*lines, "ENVIRONMENT = {'THREADS': 2, 'APP_NAME': 'not this'}")
    assert found.keys() >= REFERENCE_NAMES
    assert (found["CHECK_IF_DONE_BOOL"], found["SECONDS_TO_START"], found["DOCKER_CORES"]) == (
        "True",
        "180",
        "3",
    )
    assert (found["SOURCE_BUCKET"], found["THREADS"], found["APP_NAME"]) == ("b", "2", "Demo")
    assert found["SQS_QUEUE_URL"] == "https://sqs.us-east-1.amazonaws.com/123456789012/DemoQueue"
    assert environment(queue_url="http://127.0.0.1:1/q")["SQS_QUEUE_URL"] == "http://127.0.0.1:1/q"


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "line",
    ["AWS_ACCESS_KEY_ID = 'AKIA'", "AWS_SECRET_ACCESS_KEY = 's'", "ENVIRONMENT = {'aws_session_token': 't'}"],
)
def test_keys_never_get_into_a_task_definition(line: str) -> None:
    with pytest.raises(UsageError, match="task definition") as caught:
        wanted(line)
    assert "role" in caught.value.fix
    assert not any("KEY" in name or "TOKEN" in name for name in environment())


def test_without_an_image_or_a_worker_there_is_no_task() -> None:
    with pytest.raises(UsageError, match="DOCKERHUB_TAG"):
        desired(parse_config("APP_NAME = 'Demo'"), ACCOUNT, SHAPE, run="r")
    with pytest.raises(UsageError, match="no worker"):
        desired(config_of("COMMAND = 'x'"), ACCOUNT, SHAPE, run="r")


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ((), (4096, 15457, 4)),
        (("TASKS_PER_MACHINE = 2",), (2048, 7720, 2)),
        (("TASKS_PER_MACHINE = 8",), (512, 1918, 1)),
        (("CPU_SHARES = 2048", "MEMORY = 3000"), (2048, 3000, 2)),
        (("CPU_SHARES = 2048", "DOCKER_CORES = 7"), (2048, 15457, 7)),
    ],
)
def test_a_task_takes_its_share_of_the_machine(lines: tuple[str, ...], size: tuple[int, int, int]) -> None:
    config = config_of(*lines)
    assert task_size(config, SHAPE)[:3] == size
    assert misfit(config, SHAPE) is None
    assert environment(*lines)["DOCKER_CORES"] == str(size[2])


def test_tasks_that_no_machine_could_take_are_noticed() -> None:
    assert "MEMORY is 2 x 15000" in str(misfit(config_of("TASKS_PER_MACHINE = 2", "MEMORY = 15000"), SHAPE))
    assert "CPU_SHARES is 1 x 8192" in str(misfit(config_of("CPU_SHARES = 8192"), SHAPE))
    assert smallest([SHAPE, MachineShape(8, 8192)]) == MachineShape(4, 8192)


@pytest.mark.fault(47)
def test_a_task_gets_its_share_of_the_gpus_and_a_whole_one_or_none() -> None:
    def asked(tasks: int, gpus: int) -> Any:
        config = config_of("COMMAND = 'x'", f"TASKS_PER_MACHINE = {tasks}")
        resources = desired(config, ACCOUNT, SHAPE._replace(gpus=gpus), run="run1", injected=INJECTED)
        [task] = [each for each in resources if each.kind is Kind.TASK_DEFINITION]
        return task.settings["containerDefinitions"][-1].get("resourceRequirements")

    assert asked(1, 0) is None
    assert asked(1, 4) == [{"type": "GPU", "value": "4"}]
    assert asked(2, 4) == [{"type": "GPU", "value": "2"}]
    assert asked(2, 1) is None, "ECS would place the first task only"


def test_gpus_of_other_makers_are_none_that_ecs_could_give() -> None:
    described = {"VCpuInfo": {"DefaultVCpus": 4}, "MemoryInfo": {"SizeInMiB": 16384}}
    assert MachineShape.of(described) == SHAPE
    nvidia = {"Gpus": [{"Manufacturer": "NVIDIA", "Count": 4}]}
    assert MachineShape.of({**described, "GpuInfo": nvidia}).gpus == 4
    assert (
        MachineShape.of({**described, "GpuInfo": {"Gpus": [{"Manufacturer": "AMD", "Count": 1}]}}).gpus == 0
    )
    assert smallest([SHAPE._replace(gpus=4), SHAPE._replace(gpus=1)]).gpus == 1


def test_tasks_are_placed_on_machines_of_their_own_app_only() -> None:
    settings = one(Kind.SERVICE).settings
    expression = "attribute:ds.app == Demo"
    assert settings["placementConstraints"] == [{"type": "memberOf", "expression": expression}]
    assert json.loads(agent_settings("Demo", "default")["ECS_INSTANCE_ATTRIBUTES"]) == {"ds.app": "Demo"}
    assert placement("Demo") != placement("Demo2")


@pytest.mark.fault(60)
def test_an_image_with_its_own_worker_finds_the_bucket_where_it_expects_it() -> None:
    [main] = containers()
    [volume] = one(Kind.TASK_DEFINITION).settings["volumes"]
    [mount] = main["mountPoints"]
    assert mount == {
        "sourceVolume": volume["name"],
        "containerPath": "/home/ubuntu/bucket",
        "readOnly": True,
    }
    assert f"my-bucket {volume['host']['sourcePath']}" in start_script(config_of("AWS_BUCKET = 'my-bucket'"))


def test_the_service_starts_empty_and_its_tasks_are_not_moved() -> None:
    service = one(Kind.SERVICE)
    assert service.initial["desiredCount"] == 0
    assert "desiredCount" not in service.settings
    assert service.settings["availabilityZoneRebalancing"] == "DISABLED"


# -- User data ----------------------------------------------------------------------------------------------


def test_a_machine_joins_its_cluster_and_drains_on_a_notice(tmp_path: Path) -> None:
    lines = written(user_data("Demo", "lab-2"), tmp_path)
    assert lines["ECS_CLUSTER"] == "lab-2"
    assert lines["ECS_ENABLE_SPOT_INSTANCE_DRAINING"] == "true"
    assert lines["ECS_CONTAINER_STOP_TIMEOUT"] == "120s"
    assert lines["ECS_ENABLE_GPU_SUPPORT"] == "true"
    assert json.loads(lines["ECS_INSTANCE_ATTRIBUTES"]) == {"ds.app": "Demo"}
    assert lines == {"ECS_ENABLE_GPU_SUPPORT": "true", **agent_settings("Demo", "lab-2")}


def written(script: str, folder: Path) -> dict[str, str]:
    """What the start script makes of the agent's settings."""
    shell, file = shutil.which("sh"), folder / "ecs.config"
    assert shell
    file.write_text("ECS_ENABLE_GPU_SUPPORT=true\n")
    subprocess.run([shell, "-c", script.replace("/etc/ecs/ecs.config", str(file))], check=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


@pytest.mark.fault(29, 31)
def test_a_machine_has_no_keys_and_runs_nothing_privileged() -> None:
    text = user_data("Demo", "default")
    assert "KEY" not in text
    assert "ECS_DISABLE_PRIVILEGED=true" in text


@pytest.mark.parametrize("name", ["", "a b", "a$(reboot)", "a\nb", "a'b", 'a"b', "é", "x" * 256])
def test_names_that_would_mean_something_to_a_shell_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        user_data(name, "default")
    with pytest.raises(UsageError):
        user_data("Demo", name)


# -- Machines without a fleet file --------------------------------------------------------------------------


def template(*lines: str, **more: Any) -> dict[str, Any]:
    return launch_template(
        config_of(*lines), ACCOUNT, "ami-0123abcd", run="run1", token="t", user_data="#!/bin/sh\n", **more
    )


def fleet(*lines: str, zones: str = "ab") -> dict[str, Any]:
    subnets = [Subnet(f"subnet-{number}", zone) for number, zone in enumerate(zones)]
    return ec2_fleet_request(
        config_of(*lines), subnets, template_id="lt-1", template_version="1", run="run1", now=0.0, token="t"
    )


@pytest.mark.fault(32)
def test_metadata_need_a_token_that_reaches_containers() -> None:
    options = template("COMMAND = 'x'")["LaunchTemplateData"]["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 2)


@pytest.mark.fault(60)
@pytest.mark.parametrize("token", ["required", "optional"])
def test_only_machines_of_an_image_with_its_own_worker_answer_without_a_token(
    token: str, tmp_path: Path
) -> None:
    assert template()["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "optional"
    ours = start_script(config_of("COMMAND = 'x'"))
    assert ours == user_data("Demo", "default")
    lines = ("AWS_BUCKET = 'my-bucket'", "AWS_REGION = 'eu-west-1'")
    calls = recorded(start_script(config_of(*lines)), tmp_path, token)
    change = (
        "aws ec2 modify-instance-metadata-options --region eu-west-1 --instance-id i-0123456789abcdef0"
        " --http-tokens optional --http-put-response-hop-limit 2"
    )
    assert (change in calls) is (token == "required")
    assert calls[-1] == f"mount-s3 --read-only --allow-other --region eu-west-1 my-bucket {MOUNT_FOLDER}"


def recorded(script: str, folder: Path, token: str) -> list[str]:
    """The calls that the start script makes, with programs that only write them down."""
    programs = folder / "bin"
    programs.mkdir()
    imds = 'case "$*" in *api/token) echo t;; *-token:*) echo i-0123456789abcdef0;; *) exit {};; esac'
    for name in ("yum", "aws", "mount-s3", "mkdir", "sleep", "curl"):
        answer = imds.format(22 if token == "required" else 0) if name == "curl" else ""
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{answer}\n')
        (programs / name).chmod(0o755)
    text = script.replace("/etc/ecs/ecs.config", str(folder / "ecs.config"))
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", text], check=True, env={"PATH": path})
    return (folder / "calls").read_text().splitlines()


@pytest.mark.fault(44)
def test_the_template_has_one_disk_as_large_as_wanted() -> None:
    [disk] = template("EBS_VOL_SIZE = 50")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert (disk["DeviceName"], disk["Ebs"]["VolumeSize"]) == ("/dev/xvda", 50)
    [disk] = template("EBS_VOL_SIZE = 22", image=Image(smallest=30))["LaunchTemplateData"][
        "BlockDeviceMappings"
    ]
    assert disk["Ebs"] == {"VolumeSize": 30, "VolumeType": "gp3", "DeleteOnTermination": True}


@pytest.mark.fault(43)
def test_addresses_of_a_templates_machines() -> None:
    groups = ["sg-1", "sg-2", "sg-1"]
    assert template(security_groups=groups)["LaunchTemplateData"]["SecurityGroupIds"] == ["sg-1", "sg-2"]
    data = template("ASSIGN_IP = False", security_groups=groups)["LaunchTemplateData"]
    [face] = data["NetworkInterfaces"]
    assert (face["AssociatePublicIpAddress"], face["Groups"]) == (False, ["sg-1", "sg-2"])
    assert "SecurityGroupIds" not in data


@pytest.mark.fault(12)
def test_template_and_fleet_are_tagged_and_the_fleet_ends() -> None:
    found = template("SSH_KEY_NAME = 'lab.pem'")
    assert found["LaunchTemplateName"] == "ds-Demo-run1"
    assert found["LaunchTemplateData"]["KeyName"] == "lab"
    assert b64decode(found["LaunchTemplateData"]["UserData"]) == b"#!/bin/sh\n"
    tags = found["LaunchTemplateData"]["TagSpecifications"]
    assert [each["ResourceType"] for each in tags] == ["instance", "volume"]
    assert {"Key": "ds:run", "Value": "run1"} in tags[0]["Tags"]
    request = fleet("MAX_RUN_HOURS = 2")
    assert (request["ValidUntil"], request["TerminateInstancesWithExpiration"]) == (
        "1970-01-01T02:00:00Z",
        True,
    )
    assert request["TagSpecifications"][0]["ResourceType"] == "fleet"


@pytest.mark.parametrize(("percent", "on_demand"), [(0, None), (20, 2), (25, 2), (100, 9)])
def test_a_share_of_the_machines_is_on_demand(percent: int, on_demand: int | None) -> None:
    request = fleet("CLUSTER_MACHINES = 9", f"ON_DEMAND_PERCENT = {percent}")
    size = {"TotalTargetCapacity": 9, "DefaultTargetCapacityType": "spot"}
    shares = (
        {}
        if on_demand is None
        else {"OnDemandTargetCapacity": on_demand, "SpotTargetCapacity": 9 - on_demand}
    )
    assert request["TargetCapacitySpecification"] == size | shares


@pytest.mark.fault(45)
def test_the_fleet_takes_any_type_in_any_zone_at_the_whole_price() -> None:
    request = fleet(
        "MACHINE_TYPE = ['m5.large', 'm6i.large', 'm5.large']",
        "MACHINE_PRICE = 0.0375",
        "CLUSTER_MACHINES = 9",
    )
    assert request["SpotOptions"]["AllocationStrategy"] == "price-capacity-optimized"
    assert request["TargetCapacitySpecification"]["TotalTargetCapacity"] == 9
    overrides = request["LaunchTemplateConfigs"][0]["Overrides"]
    assert [(each["InstanceType"], each["SubnetId"]) for each in overrides] == [
        ("m5.large", "subnet-0"), ("m5.large", "subnet-1"),
        ("m6i.large", "subnet-0"), ("m6i.large", "subnet-1"),
    ]  # fmt: skip
    assert {each["MaxPrice"] for each in overrides} == {"0.0375"}
    assert "MaxPrice" not in fleet()["LaunchTemplateConfigs"][0]["Overrides"][0]


def test_a_zone_counts_once_as_a_fleet_refuses_double_pools() -> None:
    assert len(fleet(zones="aabca")["LaunchTemplateConfigs"][0]["Overrides"]) == 3


def test_what_no_fleet_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="no subnet"):
        fleet(zones="")
    with pytest.raises(UsageError, match="MACHINE_TYPE: 101 types in 3 zones"):
        fleet(f"MACHINE_TYPE = {[f'm5.x{number}' for number in range(101)]}", zones="abc")


# -- The plan -----------------------------------------------------------------------------------------------


def actions(want: tuple[Resource, ...], found: list[Resource]) -> list[str]:
    return [step.text for step in compare(want, found) if step.action is not Action.NOTHING]


@pytest.mark.parametrize("line", ["", "COMMAND = 'x'", "MOUNT_BUCKET = True"])
def test_what_is_there_as_wanted_is_left_alone(line: str) -> None:
    want = wanted(line)
    assert actions(want, list(want)) == []
    assert compare(want, want)[0].text == "keep queue DemoDeadMessages"
    assert actions(want, [described(each) for each in want]) == []


def described(resource: Resource) -> Resource:
    """As AWS gives it back: in another order, with fields of its own, and empty ones."""
    settings = json.loads(json.dumps(resource.settings))
    if resource.kind is Kind.TASK_DEFINITION:
        settings |= {
            "revision": 3,
            "status": "ACTIVE",
            "placementConstraints": [],
            "volumes": settings.get("volumes", []),
        }
        settings["containerDefinitions"].reverse()
        for each in settings["containerDefinitions"]:
            each |= {"portMappings": [], "volumesFrom": [], "dependsOn": each.get("dependsOn", [])}
            each.get("environment", []).reverse()
            each.setdefault("linuxParameters", {})["tmpfs"] = []
            each["linuxParameters"].setdefault("capabilities", {"drop": []})
            del each["privileged"]
    if "RedrivePolicy" in settings:
        settings["RedrivePolicy"] = settings["RedrivePolicy"].replace(": ", ":").replace('"100"', "100")
    return resource._replace(settings=settings, tags={**resource.tags, "team": "x"})


def test_a_first_run_makes_everything() -> None:
    texts = [step.text for step in compare(wanted(), [])]
    assert texts[0] == "create queue DemoDeadMessages"
    assert len(texts) == 8
    assert all(text.startswith("create ") for text in texts)


@pytest.mark.fault(35)
def test_names_are_compared_whole() -> None:
    others = [each._replace(name=f"lab-{each.name}") for each in wanted()]
    others += [each._replace(name=f"{each.name}2") for each in wanted()]
    others += [each._replace(name=each.name.lower() + "_") for each in wanted()]
    assert len(actions(wanted(), others)) == 8


@pytest.mark.fault(18)
def test_a_queue_follows_the_config() -> None:
    changed = actions(wanted("SQS_MESSAGE_VISIBILITY = 600"), list(wanted()))
    assert changed == [
        "update queue DemoQueue: VisibilityTimeout 120 → 600",
        "update queue DemoQueue-carried: VisibilityTimeout 120 → 600",
    ]
    old = [
        each._replace(settings={**each.settings, "MessageRetentionPeriod": "345600"}) for each in wanted()[:1]
    ]
    assert "update queue DemoDeadMessages: MessageRetentionPeriod 345600 → 1209600" in actions(wanted(), old)


def test_a_new_task_brings_the_service_to_it() -> None:
    assert actions(wanted("MEMORY = 9000"), list(wanted())) == [
        "update task definition DemoTask: containerDefinitions.Demo.environment,"
        " containerDefinitions.Demo.memory 15457 → 9000",
        "update service DemoService: taskDefinition",
    ]
    old = [each._replace(settings={**each.settings, "taskDefinition": "DemoTask:3"}) for each in wanted()]
    assert actions(wanted(), old)[-1] == "update service DemoService: taskDefinition DemoTask:3 → DemoTask"


def test_what_an_earlier_task_had_and_this_one_has_not_goes() -> None:
    found = list(wanted("COMMAND = 'x'"))
    changes = actions(wanted(), found)
    task = next(each for each in changes if each.startswith("update task definition DemoTask"))
    assert "containerDefinitions.Demo." in task and "volumes" in task


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "left",
    [
        {"privileged": True},
        {"entryPoint": ["sh"]},
        {"linuxParameters": {"devices": [{"hostPath": "/dev/x"}]}},
    ],
)
def test_a_privileged_task_of_an_earlier_system_is_replaced(left: dict[str, Any]) -> None:
    (what,) = left
    task = one(Kind.TASK_DEFINITION)
    [main] = task.settings["containerDefinitions"]
    linux = {**main["linuxParameters"], **left.get("linuxParameters", {})}
    old = {**task.settings, "containerDefinitions": [{**main, **left, "linuxParameters": linux}]}
    changes = actions(wanted(), [task._replace(settings=old)])
    assert any(
        each.startswith(f"update task definition DemoTask: containerDefinitions.Demo.{what}")
        for each in changes
    )


@pytest.mark.fault(29)
def test_keys_in_an_old_task_definition_do_not_stay() -> None:
    task = one(Kind.TASK_DEFINITION)
    [main] = task.settings["containerDefinitions"]
    variables = [*main["environment"], {"name": "AWS_SECRET_ACCESS_KEY", "value": "s"}]
    old = {**task.settings, "containerDefinitions": [{**main, "environment": variables}]}
    told = "update task definition DemoTask: containerDefinitions.Demo.environment"
    assert told in actions(wanted(), [task._replace(settings=old)]), "and no value"


def test_a_later_run_tags_what_is_the_apps_and_not_what_others_share() -> None:
    texts = actions(wanted(run="run2"), list(wanted()))
    assert [text for text in texts if "cluster" in text or "log group" in text] == []
    assert "update queue DemoQueue: tag ds:run run1 → run2" in texts
    keep = [each._replace(settings={"retentionInDays": 3650}, tags={}) for each in wanted() if each.shared]
    assert not any("log group" in text or "cluster" in text for text in actions(wanted(), keep))


def test_aws_knows_every_field_that_is_sent() -> None:
    for line in ("", "COMMAND = 'x'", "MOUNT_BUCKET = True", "ASSIGN_IP = False"):
        valid(
            "ec2",
            "CreateLaunchTemplateRequest",
            template(line, "SSH_KEY_NAME = 'k'", security_groups=["sg-1"]),
        )
        valid("ec2", "CreateFleetRequest", fleet(line, "MACHINE_PRICE = 0.1"))
        valid("ecs", "RegisterTaskDefinitionRequest", one(Kind.TASK_DEFINITION, line).settings)
        service = one(Kind.SERVICE, line)
        valid(
            "ecs",
            "CreateServiceRequest",
            {"serviceName": service.name, **service.settings, **service.initial},
        )


def valid(service: str, shape: str, sent: Any) -> None:
    loaders = pytest.importorskip("botocore.loaders")
    validate = pytest.importorskip("botocore.validate")
    model = pytest.importorskip("botocore.model")
    known = model.ServiceModel(loaders.Loader().load_service_model(service, "service-2"), service)
    report = validate.ParamValidator().validate(sent, known.shape_for(shape))
    assert not report.has_errors(), report.generate_report()
