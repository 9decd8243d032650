"""The stock start script's steps in a container, made from the task definition and user data that we make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_something.aws.ec2.requests.userdata import MOUNT_FOLDER, start_script
from distributed_something.aws.ecs.desired import desired
from distributed_something.aws.ecs.resources import Kind
from distributed_something.aws.iam.policies import Used, trusted
from distributed_something.aws.iam.roles import Role, Where, account_of
from distributed_something.aws.shape import MachineShape
from distributed_something.inputs.config import Config, parse_config
from docking import IMAGE, Docker, docker_engine
from services import require

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.getuid() != 0, reason="only root mounts"),
]

SCRIPT = Path(__file__).parents[1] / "stock_script.sh"
MACHINE = "i-0123456789abcdef0"
WHERE = Where("123456789012", "us-east-1")
ACTIONS = {
    "ec2 create-tags": "ec2:CreateTags",
    "ec2 describe-instance-attribute": "ec2:DescribeInstanceAttribute",
    "cloudwatch put-metric-alarm": "cloudwatch:PutMetricAlarm",
    "s3 cp": "s3:PutObjectAcl",
}
"""What each call of the script needs."""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with docker_engine(tmp_path_factory.getbasetemp().parent) as found:
        yield found


@pytest.fixture
def config() -> Config:
    return parse_config(
        f"APP_NAME = 'Demo'\nDOCKERHUB_TAG = {IMAGE!r}\nAWS_BUCKET = 'lab-bucket'\nDOCKER_CORES = 2\n"
        "MEMORY = 64\n"
    )


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(config: Config, tmp_path: Path) -> Iterator[Path]:
    """A folder that stands for a machine: its user data has run there, with the bucket mounted by FUSE."""
    require("bindfs")
    bucket, mounted, programs = tmp_path / "bucket", tmp_path / "mounted", tmp_path / "host"
    bucket.mkdir()
    (bucket / "input.txt").write_text("pixels")
    program(programs, "curl", "exit 0")
    program(programs, "mount-s3", f'for last; do :; done; bindfs -r {bucket} "$last"')
    script = start_script(config).replace(MOUNT_FOLDER, str(mounted))
    script = script.replace("/etc/ecs/ecs.config", str(tmp_path / "ecs.config"))
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", script], check=True, env={"PATH": path}, stdout=subprocess.DEVNULL)
    mounts = [each.split()[1:3] for each in Path("/proc/mounts").read_text().splitlines()]
    assert [str(mounted), "fuse"] in mounts or [str(mounted), "fuse.bindfs"] in mounts
    yield tmp_path
    subprocess.run(["umount", mounted], check=True)


def granted() -> set[str]:
    """What the role of such tasks may do."""
    used = Used(("lab-bucket",), images=True)
    (role,) = [each for each in trusted(WHERE, used) if each.role is Role.IMAGE_TASK]
    return {action for grants in role.groups.values() for grant in grants for action in grant.actions}


def recorders(folder: Path) -> None:
    """The programs of the image: they write down how they are called, and answer as AWS would."""
    note = 'echo "{} $*" >> /calls/calls'
    allowed = "|".join(f'"{call}"' for call, action in ACTIONS.items() if action in granted())
    refuse = f'case "$1 $2" in {allowed}) ;; *) echo AccessDenied >&2; exit 254;; esac'
    answer = '[ "$2" = describe-instance-attribute ] && echo vol-1'
    upload = '[ "$1" = s3 ] && cat "$3" >> /calls/uploaded'
    program(folder, "aws", "\n".join([note.format("aws"), refuse, answer, upload, "true"]))
    program(folder, "curl", f"{note.format('curl')}\necho {MACHINE}")
    program(folder, "s3fs", f'{note.format("s3fs")}\n[ "$(cat /tmp/keys)" = : ] && exit 1')


@pytest.mark.fault(27, 60)
def test_the_stock_start_script_finds_what_it_needs(docker: Docker, config: Config, machine: Path) -> None:
    shape, account = MachineShape(vcpus=2, memory_mib=4096), account_of(config, WHERE.number)
    made = desired(config, account, shape, run="run1", injected=None)
    (definition,) = [dict[str, Any](each.settings) for each in made if each.kind is Kind.TASK_DEFINITION]
    (container,) = definition["containerDefinitions"]
    (volume,) = definition["volumes"]
    (mount,) = container["mountPoints"]
    assert volume["host"]["sourcePath"] == MOUNT_FOLDER
    calls, programs = machine / "calls", machine / "bin"
    calls.mkdir()
    recorders(programs)
    docker(
        *("run", "--rm", "--network=none"),
        *(f"--env={each['name']}={each['value']}" for each in container["environment"]),
        f"--volume={machine / 'mounted'}:{mount['containerPath']}:ro",
        *(f"--volume={calls}:/calls", f"--volume={programs}:/opt/bin:ro", f"--volume={SCRIPT}:/run.sh:ro"),
        *("--env=PATH=/opt/bin:/bin", "--entrypoint=/bin/sh", container["image"], "/run.sh"),
    )
    said = (calls / "calls").read_text().splitlines()
    assert said[0] == "curl -s http://169.254.169.254/latest/meta-data/instance-id"
    assert f"aws ec2 create-tags --resources {MACHINE} --tags Key=Name,Value=DemoWorker" in said
    assert said.count("aws ec2 create-tags --resources vol-1 --tags Key=Name,Value=DemoWorker") == 2
    assert any(each.startswith("s3fs lab-bucket /home/ubuntu/bucket") for each in said), (
        "it fails, harmlessly"
    )
    copies = [each for each in said if each.startswith("aws s3 cp")]
    assert [each.rpartition("out/")[2] for each in copies] == [
        "1.txt --acl bucket-owner-full-control",
        "2.txt --acl bucket-owner-full-control",
    ]
    assert (calls / "uploaded").read_text() == "pixels" * 2, "read from the mount"
    assert not {"cloudwatch:PutMetricAlarm"} & granted(), "its alarm ends machines that download"
