"""Projects whose store is a bucket of a real S3 server, on the engines that need no account."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import services
from conftest import DsProject, until

pytestmark = pytest.mark.real

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.S3Server]:
    with services.Servers(tmp_path_factory.getbasetemp().parent) as servers:
        yield servers.get("seaweedfs")


@pytest.fixture
def client(server: services.S3Server) -> Any:
    import boto3

    return boto3.client("s3", **server.client_options)


class Bucket:
    """A prefix of a bucket that a project has as its store."""

    def __init__(self, server: services.S3Server, client: Any) -> None:
        self.name, self.prefix = services.bucket(server), f"lab/{secrets.token_hex(4)}"
        self.keys = {"STORE": f"s3://{self.name}/{self.prefix}/", "S3_ENDPOINT": server.endpoint}
        self._client = client

    def put(self, key: str, data: bytes) -> None:
        """Write an object below the prefix."""
        self._client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=data)

    def read(self, key: str) -> bytes:
        """An object below the prefix."""
        answer = self._client.get_object(Bucket=self.name, Key=f"{self.prefix}/{key}")
        return bytes(answer["Body"].read())

    def names(self, below: str = "") -> list[str]:
        """The objects below the prefix."""
        found = self._client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/{below}")
        return [each["Key"].removeprefix(f"{self.prefix}/") for each in found.get("Contents", ())]


@pytest.fixture
def bucket(server: services.S3Server, client: Any, project: DsProject) -> Bucket:
    """The project's own place; `ds` finds its credentials where every program looks for them."""
    for name in [name for name in project.environment if name.startswith("AWS_")]:
        del project.environment[name]
    given = server.environment
    project.environment |= {name: given[name] for name in KEYS}
    project.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    return Bucket(server, client)


def test_a_local_run_keeps_everything_in_a_bucket(project: DsProject, bucket: Bucket) -> None:
    command = "echo says {Name}; tr a-z A-Z < {input_dir}/{Name}.txt > {output_dir}/up; test {Name} != bad"
    project.config(COMMAND=command, INPUTS="in/{Name}.txt", OUTPUT="out/{Name}", JOB_RETRIES=1, **bucket.keys)
    names = ["a", "b", "bad"]
    for name in names:
        bucket.put(f"in/{name}.txt", b"text")
    jobs = project.jobs([{"Name": name} for name in names])
    project.ds("check", jobs)
    done = project.ds("run", jobs, code=3)
    assert f"report: {bucket.keys['STORE']}runs/App/" in done.stderr + done.stdout
    assert bucket.read("out/a/up") == b"TEXT"
    assert len(bucket.names("out/a/.ds/")) == 1 and bucket.names("out/bad/") == []
    assert not (project.folder / "data").exists()
    status = project.status()
    assert (status["jobs"]["succeeded"], status["jobs"]["dead"]) == (2, 1)
    job = next(line["id"] for line in project.job_lines() if line["output"] == "out/a")
    assert project.ds("logs", job).stdout == "says a\n"

    project.config(
        COMMAND=command.replace("bad", "x"), INPUTS="in/{Name}.txt", OUTPUT="out/{Name}", **bucket.keys
    )
    project.ds("retry")
    project.ds("start")
    project.ds("monitor")
    assert bucket.read("out/bad/up") == b"TEXT"
    project.ds("report")
    project.ds("cleanup", "--yes")
    assert project.status()["jobs"]["succeeded"] == 3
    written = [path for path in project.folder.rglob("*") if path.is_file()]
    assert not [path for path in written if services.SECRET.encode() in path.read_bytes()]


def test_killed_workers_lose_nothing_in_a_bucket(project: DsProject, bucket: Bucket) -> None:
    command = "sleep 0.2; echo {Name} > {output_dir}/n"
    jobs = project.config(COMMAND=command, OUTPUT="out/{Name}", **bucket.keys).jobs(
        {"Name": str(n)} for n in range(30)
    )
    project.ds("setup")
    project.ds("submit", jobs)
    project.ds("start")
    until(lambda: bucket.names("out/"), "a first output")
    for _ in range(2):
        killed = next(iter(project.machine()["workers"].values()))
        os.kill(killed, signal.SIGKILL)
        until(lambda pid=killed: pid not in project.machine()["workers"].values(), "another worker")
    os.kill(project.machine()["pid"], signal.SIGKILL)
    project.ds("monitor")
    assert [bucket.read(f"out/{n}/n") for n in range(30)] == [f"{n}\n".encode() for n in range(30)]
    status = project.status()
    assert status["jobs"]["succeeded"] == 30 and status["interruptions"] > 0


@pytest.mark.parametrize("engine, needs", [("slurm", "cluster"), ("ssh", "hosts")])
def test_a_run_by_pilots_keeps_everything_in_a_bucket(
    engine: str, needs: str, request: pytest.FixtureRequest, project: DsProject, bucket: Bucket
) -> None:
    there = request.getfixturevalue(needs)
    if engine == "slurm":
        project.environment |= {"SLURM_CONF": there.environment["SLURM_CONF"]}
    else:  # hosts have credentials of their own
        project.environment |= {"PATH": there.environment["PATH"]}
        given = [f"{name.lower()} = {project.environment[name]}" for name in KEYS]
        (there.folder / "aws").write_text("\n".join(["[default]", *given]))
    command = "tr a-z A-Z < {input_dir}/{Name}.txt > {output_dir}/up"
    keys = {**bucket.keys, "INPUTS": "in/{Name}.txt", "OUTPUT": "out/{Name}", "CLUSTER_MACHINES": 2}
    hosts = {"HOSTS": ["node1", "node2"]} if engine == "ssh" else {}
    project.config(ENGINE=engine, COMMAND=command, **keys, **hosts)
    names = [f"n{number}" for number in range(12)]
    for name in names:
        bucket.put(f"in/{name}.txt", name.encode())
    done = project.ds("run", project.jobs({"Name": name} for name in names), timeout=180)
    assert "12 succeeded" in done.stdout
    assert [bucket.read(f"out/{name}/up") for name in names] == [name.upper().encode() for name in names]
    assert not (project.folder / "data").exists()
    project.ds("cleanup", "--yes", timeout=120)


def test_a_project_of_folders_reads_and_writes_other_buckets(
    project: DsProject, server: services.S3Server, bucket: Bucket
) -> None:
    place = f"s3://{bucket.name}/{bucket.prefix}"
    keys = {"INPUTS": f"{place}/in/{{Name}}.txt", "OUTPUT": f"{place}/out/{{Name}}"}
    project.config(
        COMMAND="cp {input_dir}/* {output_dir}/copy",
        S3_ENDPOINT=server.endpoint,
        CHECK_IF_DONE_BOOL=True,
        **keys,
    )
    bucket.put("in/a.txt", b"theirs")
    jobs = project.jobs([{"Name": "a"}])
    project.ds("run", jobs)
    assert bucket.read("out/a/copy") == b"theirs"
    assert (project.folder / "data/runs/App").is_dir()
    again = project.ds("run", jobs)
    assert "1 skipped" in again.stdout + again.stderr


@pytest.fixture
def public(client: Any) -> str:
    """A bucket that anyone may read, with a file."""
    with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket="ds-public")
    client.put_object(Bucket="ds-public", Key="in/a.txt", Body=b"for all")
    return "s3://ds-public"


def test_a_public_bucket_is_read_without_an_account(
    project: DsProject, server: services.S3Server, public: str
) -> None:
    for name in [name for name in project.environment if name.startswith("AWS_")]:
        del project.environment[name]
    project.environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(project.folder)}
    command = "cat {input_dir}/* > {output_dir}/copy"
    keys = {"INPUTS": f"{public}/in/{{Name}}.txt", "OUTPUT": "out/{Name}", "S3_ENDPOINT": server.endpoint}
    jobs = project.config(COMMAND=command, **keys).jobs([{"Name": "a"}])
    checked = project.ds("check", jobs).stdout
    assert f"{public}/in/: anyone, without a signature, may list and read" in checked
    done = project.ds("run", jobs)
    assert f"{public} is read without a signature" in done.stderr
    assert (project.folder / "data/out/a/copy").read_bytes() == b"for all"


def test_check_names_the_right_that_is_missing(project: DsProject, bucket: Bucket) -> None:
    project.environment["AWS_ACCESS_KEY_ID"] += "-few"
    bucket.put("in/a", b"x")
    place = f"s3://{bucket.name}/{bucket.prefix}"
    checked = project.config(COMMAND="true", **bucket.keys).ds("check", code=1).stdout
    assert f"{place}/: you may not write, by s3:PutObject" in checked
    keys = {"INPUTS": f"{place}/in/{{n}}", "S3_ENDPOINT": bucket.keys["S3_ENDPOINT"]}
    assert f"{place}/in/: you may list and read" in project.config(COMMAND="true", **keys).ds("check").stdout


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"ENGINE": "aws", "S3_ENDPOINT": "https://minio.lab:9000"}, "S3_ENDPOINT: ENGINE = 'aws' uses S3"),
        ({"ENGINE": "aws", "STORE": "s3://lab/x"}, "keeps what runs need in AWS_BUCKET"),
        ({"ENGINE": "rehearsal", "STORE": "s3://lab/x"}, "keeps its pretend bucket in a folder"),
        ({"STORE": "s3://lab/x", "MOUNT_BUCKET": True}, "MOUNT_BUCKET: "),
        ({"STORE": "s3://lab/../x"}, "STORE: 's3://lab/../x' is neither a folder nor s3://bucket/prefix"),
        ({"STORE": "s3://"}, "STORE: 's3://' is neither"),
        ({"S3_ENDPOINT": "minio.lab:9000"}, "S3_ENDPOINT: 'minio.lab:9000' is no address"),
        ({"S3_ENDPOINT": "https://me:secret@minio.lab"}, "is no address"),
    ],
)
def test_what_an_engine_cannot_have_is_refused(project: DsProject, keys: dict[str, Any], what: str) -> None:
    refused = project.config(COMMAND="true", **keys).ds("check", code=2).stderr
    assert what in refused and "fix: " in refused
