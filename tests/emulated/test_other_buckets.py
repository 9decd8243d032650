"""Buckets that are not ours: who asks, who pays, which ACL, and what `ds check` says of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import services
from conftest import DsProject
from distributed_something.errors import DsError
from distributed_something.inputs.checks.findings import Finding, Severity
from distributed_something.inputs.config import Config, parse_config
from distributed_something.s3.access import Access
from distributed_something.s3.buckets import Stores
from distributed_something.s3.rights import rights_findings, spots_of
from strict_s3 import ROLE_KEY, Asked, StrictS3, strict_s3

ROLE = "arn:aws:iam::123456789012:role/reader"
Serve = Callable[[Callable[[Asked], bool]], StrictS3]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    services.require("moto")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", services.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", services.SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda may: stack.enter_context(strict_s3(may))


def config(server: StrictS3, **keys: object) -> Config:
    given = {"APP_NAME": "App", "ENGINE": "local", "COMMAND": "true", "S3_ENDPOINT": server.endpoint, **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


def stores(server: StrictS3, folder: Path, said: list[str] | None = None, **keys: object) -> Stores:
    from distributed_something.local.store import FolderStore

    say = (said if said is not None else []).append
    return Access(config(server, **keys), say=say, retry_seconds=2.0).joined(FolderStore(folder))


def use(found: Stores, folder: Path) -> None:
    """Every kind of request that reading makes."""
    assert [file.key for file in found.list("s3://theirs/in/")] == ["s3://theirs/in/a"]
    assert found.read("s3://theirs/in/a") == b"text"
    assert found.stat(["s3://theirs/in/a"])[0] is not None
    found.fetch("s3://theirs/in/a", folder / "a")
    assert (folder / "a").read_bytes() == b"text"


def test_who_reads_a_bucket_pays_if_the_config_says_so(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda asked: asked.pays)
    server.objects["theirs/in/a"] = b"text"
    use(stores(server, tmp_path / "data", REQUESTER_PAYS="theirs"), tmp_path)
    with pytest.raises(DsError, match="access denied"):
        stores(server, tmp_path / "data").read("s3://theirs/in/a")
    with pytest.raises(DsError, match="access denied"):
        stores(server, tmp_path / "data", REQUESTER_PAYS="others").read("s3://theirs/in/a")


def test_a_bucket_is_asked_by_its_role_and_no_other(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda asked: (asked.key == ROLE_KEY) == (asked.bucket == "theirs"))
    server.objects |= {"theirs/in/a": b"text", "mine/b": b"mine"}
    found = stores(server, tmp_path / "data", BUCKET_ROLES={"theirs": ROLE})
    use(found, tmp_path)
    found.write("s3://theirs/out/x", b"1")
    assert found.read("s3://mine/b") == b"mine"
    assert server.roles == [ROLE]


def test_a_role_that_is_refused_is_named(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda _: True)
    with pytest.raises(DsError, match=r"BUCKET_ROLES: taking the role .*role/refused for s3://theirs"):
        role = f"{ROLE.rpartition('/')[0]}/refused"
        stores(server, tmp_path, BUCKET_ROLES={"theirs": role}).read("s3://theirs/in/a")
    assert server.asked == []


@pytest.mark.parametrize("signed_in", [True, False])
def test_a_public_bucket_is_read_without_a_signature(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signed_in: bool
) -> None:
    server = serve(lambda asked: not asked.key and asked.verb in ("list", "read"))
    server.objects["theirs/in/a"] = b"text"
    if not signed_in:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said: list[str] = []
    found = stores(server, tmp_path / "data", said)
    use(found, tmp_path)
    assert said == ["s3://theirs is read without a signature: only so it may be read here"]
    with pytest.raises(DsError, match="access denied" if signed_in else "no AWS credentials"):
        found.write("s3://theirs/out", b"1")


def test_a_bucket_that_credentials_may_read_is_asked_with_them(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda _: True)
    server.objects["theirs/in/a"] = b"text"
    said: list[str] = []
    use(stores(server, tmp_path / "data", said), tmp_path)
    assert said == [] and {asked.key for asked in server.asked} == {services.ACCESS}


def test_outputs_in_the_bucket_of_others_get_the_acl(serve: Serve, tmp_path: Path) -> None:
    acl = "bucket-owner-full-control"
    server = serve(lambda asked: asked.verb != "write" or asked.acl == acl)
    found = stores(server, tmp_path / "data", OUTPUT_ACL=acl)
    (tmp_path / "x").write_bytes(b"result")
    found.publish(tmp_path / "x", "s3://theirs/out/x")
    assert found.write_if_absent("s3://theirs/out/m", b"1") and not found.write_if_absent(
        "s3://theirs/out/m", b"2"
    )
    assert server.objects == {"theirs/out/x": b"result", "theirs/out/m": b"1"}


PLACES = {"INPUTS": ["s3://theirs/in/{P}.tif"], "OUTPUT": "s3://drop/out/{P}"}


def checked(server: StrictS3, **keys: object) -> dict[str, Finding]:
    found = config(server, **{**PLACES, **keys})
    return {
        finding.what.split(": ")[0]: finding
        for finding in rights_findings(found, Access(found, retry_seconds=2.0))
    }


def test_check_says_what_may_be_done_by_trying_it(serve: Serve) -> None:
    server = serve(lambda _: True)
    server.objects["theirs/in/a.tif"] = b"x"
    found = checked(server)
    assert found["s3://theirs/in/"].what == "s3://theirs/in/: you may list and read"
    assert found["s3://drop/out/"].what == "s3://drop/out/: you may list, write, read and remove"
    assert dict(found["s3://theirs/in/"].facts) == {
        "bucket": "theirs",
        "as": "you",
        "list": True,
        "read": True,
    }
    assert [*server.objects] == ["theirs/in/a.tif"]


@pytest.mark.parametrize(
    ("verb", "where", "said", "severity"),
    [
        ("list", "theirs/in/", "you may not list, by s3:ListBucket", Severity.WARNING),
        ("read", "theirs/in/", "you may not read, by s3:GetObject", Severity.ERROR),
        ("write", "drop/out/", "you may not write, by s3:PutObject", Severity.ERROR),
        ("read", "drop/out/", "you may not read, by s3:GetObject", Severity.ERROR),
        ("remove", "drop/out/", "you may not remove, by s3:DeleteObject; what was tried", Severity.ERROR),
    ],
)
def test_check_names_the_one_right_that_is_missing(
    serve: Serve, verb: str, where: str, said: str, severity: Severity
) -> None:
    server = serve(lambda asked: not (asked.verb == verb and asked.bucket == where.partition("/")[0]))
    server.objects["theirs/in/a.tif"] = b"x"
    finding = checked(server)[f"s3://{where}"]
    assert said in finding.what and finding.severity is severity
    assert f"arn:aws:s3:::{where.partition('/')[0]}" in finding.fix and "BUCKET_ROLES" in finding.fix


def test_check_says_that_an_acl_is_refused_and_not_the_writing(serve: Serve) -> None:
    server = serve(lambda asked: not asked.acl)
    finding = checked(server, OUTPUT_ACL="public-read")["s3://drop/out/"]
    assert "you may write, but not with OUTPUT_ACL = 'public-read', by s3:PutObjectAcl" in finding.what
    assert server.objects == {}


def test_check_says_nothing_of_reading_where_nothing_lies(serve: Serve) -> None:
    found = checked(serve(lambda _: True))
    assert found["s3://theirs/in/"].what.endswith("may list; nothing lies there, so reading was not tried")


def test_check_names_the_role_and_anyone(serve: Serve) -> None:
    server = serve(lambda asked: asked.key == ROLE_KEY if asked.bucket == "drop" else not asked.key)
    server.objects["theirs/in/a.tif"] = b"x"
    found = checked(server, BUCKET_ROLES={"drop": ROLE})
    assert found["s3://theirs/in/"].what == "s3://theirs/in/: anyone, without a signature, may list and read"
    assert found["s3://drop/out/"].what.startswith(f"s3://drop/out/: the role {ROLE} may list, write")


def test_a_server_that_ignores_conditions_is_refused(serve: Serve, project: DsProject) -> None:
    server = serve(lambda _: True)
    answer = server.answer
    server.answer = lambda method, path, headers, body: answer(  # type: ignore[method-assign]
        method, path, {name: value for name, value in headers.items() if not name.startswith("if-")}, body
    )
    project.environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    project.config(COMMAND="true", STORE="s3://lab/x", S3_ENDPOINT=server.endpoint)
    jobs = project.jobs([{"n": 1}])
    refused = project.ds("run", jobs, code=1).stderr
    assert "error: s3://lab: its server ignores If-None-Match: two workers could publish one job" in refused
    assert "ignores If-None-Match" in project.ds("check", jobs, code=1).stdout
    assert not [name for name in server.objects if "probe" in name or "/jobs/" in name]


def test_places_are_known_as_far_as_the_config_says_them() -> None:
    text = "APP_NAME = 'A'\nENGINE = 'local'\nCOMMAND = 'true'\n"
    text += (
        "INPUTS = ['s3://b/in/{x}', 's3://{any}/x', 'in/{x}', 's3://b/g.fa -> g']\nOUTPUT = 's3://c/{x}'\n"
    )
    assert [spot.address for spot in spots_of(parse_config(text))] == ["s3://b/in/", "s3://b/g.fa", "s3://c/"]
