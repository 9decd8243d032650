"""`ds jobfile new --from` over a bucket, as a user types it."""

from __future__ import annotations

import json
import secrets

import pytest

import services
from conftest import DsProject


@pytest.fixture
def prefix(tmp_path_factory: pytest.TempPathFactory, project: DsProject) -> object:
    """A folder of a bucket that `ds` reaches: a file for two wells of two plates, but one."""
    import boto3

    with services.Servers(tmp_path_factory.getbasetemp().parent) as servers:
        server = servers.get("moto")
        project.environment |= server.environment
        bucket, prefix = services.bucket(server), secrets.token_hex(4)
        client = boto3.client("s3", **server.client_options)
        for name in ("P1/A01", "P1/B02", "P2/A01"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}.tif", Body=b"x")
        client.put_object(Bucket=bucket, Key=f"{prefix}/notes.txt", Body=b"x")
        yield f"s3://{bucket}/{prefix}"


def test_a_job_for_each_file_of_a_bucket(project: DsProject, prefix: str) -> None:
    project.config(COMMAND="echo {Plate} {Well}")
    path = project.folder / "files.jsonl"
    done = project.ds("jobfile", "new", path, "--from", f"{prefix}/{{Plate}}/{{Well}}.tif")
    groups = [json.loads(line) for line in path.read_text().splitlines()]
    assert groups == [
        {"Plate": "P1", "Well": "A01"},
        {"Plate": "P1", "Well": "B02"},
        {"Plate": "P2", "Well": "A01"},
    ]
    assert "3 files of 4 match" in done.stderr
    assert "1 combination has no file, such as Plate=P2 Well=B02" in done.stderr


def test_a_bucket_that_is_not_there(project: DsProject, prefix: str) -> None:
    project.config(COMMAND="true")
    done = project.ds("jobfile", "new", "x.jsonl", "--from", "s3://no-such-bucket-here/{a}.tif", code=1)
    assert "s3://no-such-bucket-here/: there is no such bucket" in done.stderr
