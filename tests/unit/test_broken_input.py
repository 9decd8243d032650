"""Whatever is in a file or a message that is read back: never a traceback, and nothing whole is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distributed_something.aws.message import Message, NotAJob, parse, poison
from distributed_something.errors import UsageError
from distributed_something.inputs.config import parse_config
from distributed_something.inputs.fleetfile import advice, fleet_problems, parse_fleet
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.job import Cause, Job, State
from distributed_something.ledger import Fold, RunPaths, SegmentReader, job_bodies, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.runs.record import RunRecord, read_record
from distributed_something.runs.runfile import read_run_file, write_run_file
from distributed_something.worker.files.done import Rules, look
from distributed_something.worker.files.manifest import Manifest, OutputFile

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILES = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PATHS = RunPaths("App", "run1")

# A choice among awkward values is ten times as quick as drawing them, so that hundreds are tried in a second
VALUES = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 10**30, -0.0, 1e308, float("nan"), float("inf"), "", " ", "a", "\n",
        "\r", "\0", "\ud800", "\ufffe", "\u2028", "٣", "²", "1e9", "9" * 5000, "../x", "/x", "[1", "'", "{a}",
        "App", [], [[]], [None], ["a", 1], [{}], ["\r"], {}, {"": ""}, {"a": None}, {"a": [1]},
        {"APP_NAME": "App"}, [{"name": "a.txt", "size": -1, "sha256": None}],
    ]
)  # fmt: skip


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The whole with a piece of it replaced by something, or cut off."""
    place = st.integers(0, len(whole))
    replaced = st.builds(
        lambda at, length, instead: whole[:at] + instead + whole[at + length :],
        place, st.integers(0, 20), st.binary(max_size=8),
    )  # fmt: skip
    return replaced | place.map(lambda end: whole[:end]) | st.binary(max_size=60)


def changed(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The whole with something else under one of its names."""
    return st.builds(lambda name, value: {**whole, name: value}, st.sampled_from(sorted(whole)), VALUES)


def one_line(error: UsageError) -> None:
    """What is said is one line, and there is a fix."""
    assert error.fix and len(error.what.splitlines()) == 1, error.what


# -- The run record

RECORD = RunRecord(
    "App", "run1", "aws", "default", "AppQueue", "data", "App", 1_700_000_000_000,
    fleets=("sfr-1", "sfr-2"), resources=("queue AppQueue",),
)  # fmt: skip
RECORD_JSON = RECORD.to_json()


@MANY
@given(changed(json.loads(RECORD_JSON)))
def test_a_record_with_any_value_is_read_or_refused(facts: dict[str, Any]) -> None:
    try:
        found = RunRecord.from_json(json.dumps(facts), "x")
    except UsageError as error:
        one_line(error)
    else:
        assert RunRecord.from_json(found.to_json(), "x") == found


@FILES
@given(content=damaged(RECORD_JSON.encode()))
@example(content=b"\xff")
@example(content=b"[" * 100_000)
def test_a_record_file_with_any_damage_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    try:
        read_record(path)
    except UsageError as error:
        one_line(error)


# -- Messages

MESSAGE = Message(Job("0123456789abcdef", 7, b'{"group":{"a":1}}'), attempt=2, run="run1")
TEXTS = st.text(max_size=12) | st.sampled_from(["1", "-1", "1e9", "٣", "²", "9" * 5000, "exit", "[1", '"x"'])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["DsJob", "DsIndex", "DsRun", "DsAttempt", "DsCause", "DsDetail", "DsCarried", "Other"]),
    st.fixed_dictionaries({}, optional={"StringValue": TEXTS, "BinaryValue": st.binary(max_size=4)}),
)


@MANY
@given(st.text(max_size=30) | VALUES.map(json.dumps), ATTRIBUTES, st.booleans())
@example("[" * 100_000, {}, False)
@example("{}", {"DsAttempt": {"StringValue": "9" * 5000}}, False)
@example("{}", {"DsAttempt": {"StringValue": "²"}}, False)
def test_any_message_is_a_job_or_is_kept_as_it_came(
    body: str, attributes: dict[str, Any], dead: bool
) -> None:
    received = {"Body": body, "MessageAttributes": attributes}
    try:
        found = parse(received, dead=dead)
    except NotAJob as why:
        assert not dead
        found = poison(received, why)
        assert (found.job.body.decode(), found.cause) == (body, Cause.INPUT_MISSING)
    assert found.job.id and found.attempt >= 0
    found.dead_job()
    found.entry(0)


@MANY
@given(
    body=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=3),
    index=st.integers(0, 10**12),
    attempt=st.integers(1, 10**6),
    cause=st.none() | st.sampled_from(list(Cause)),
    detail=st.text(max_size=40),
)
def test_a_message_comes_back_as_it_was_sent(
    body: dict[str, Any], index: int, attempt: int, cause: Cause | None, detail: str
) -> None:
    job = Job("0123456789abcdef", index, json.dumps(body).encode())
    sent = Message(job, attempt, "run1", cause, detail if cause else "", "c")
    entry = sent.entry(0)
    received = {"Body": entry["MessageBody"], "MessageAttributes": entry["MessageAttributes"]}
    assert parse(received, dead=cause is not None) == sent


# -- run.json


@FILES
@given(data=st.data())
def test_a_run_file_with_any_damage_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    write_run_file(store, parse_config("APP_NAME = 'App'\nMEMORY = 4096\n"), "aws", "run1")
    whole = store.read(PATHS.root + "run.json")
    facts = json.loads(whole)
    broken = changed(facts) | changed(facts["config"]).map(lambda config: {**facts, "config": config})
    store.write(
        PATHS.root + "run.json",
        data.draw(damaged(whole) | broken.map(lambda each: json.dumps(each).encode())),
    )
    try:
        found = read_run_file(store, "App", "run1")
    except UsageError as error:
        one_line(error)
    else:
        assert (found.app, found.run, found.config.app_name) == ("App", "run1", "App")


# -- Manifests

MANIFEST = Manifest(
    "0123456789abcdef", "run1", 1, "w", "2026-11-22T14:16:06Z", (OutputFile("a.txt", 3, "0" * 64),)
)
KEY = "out/.ds/0123456789abcdef.json"


@MANY
@given(damaged(MANIFEST.to_json()) | changed(json.loads(MANIFEST.to_json())).map(json.dumps).map(str.encode))
@example(b"[" * 100_000)
def test_any_manifest_is_one_or_none(content: bytes) -> None:
    found = Manifest.from_json(content)
    assert found is None or all(file.name is not None for file in found.files)


@FILES
@given(content=damaged(MANIFEST.to_json()))
@example(content=MANIFEST.to_json())
def test_a_damaged_manifest_never_proves_outputs_that_are_not_there(content: bytes, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write(KEY, content)
    proved = look(store, "out", MANIFEST.job, Rules(), dict).skip
    found = Manifest.from_json(content)
    assert not proved or (found is not None and not found.files)


# -- Ledger segments

JOBS = [Job(f"{number:016x}", number, b'{"group":{"n":%d}}' % number) for number in range(3)]
EVENTS = b"".join(
    b'{"t":%d,"event":"succeeded","id":"%s","attempt":1}\n' % (number, job.id.encode())
    for number, job in enumerate(JOBS)
)


@FILES
@given(before=st.binary(max_size=80), cuts=st.lists(st.integers(0, 300), max_size=3))
def test_a_segment_that_grows_piece_by_piece_is_read_once_and_whole(
    before: bytes, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    whole = before.replace(b"\n", b"").replace(b"\r", b"") + b"\n" + EVENTS
    reader, fold = SegmentReader(store, PATHS.events), Fold(store, PATHS)
    lines: list[bytes] = []
    at = 0
    for end in [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]:
        store.append(PATHS.events + "w.jsonl", whole[at:end])
        lines += reader.new_lines()
        fold.update()
        at = end
    assert lines == whole.splitlines()
    assert [fold.jobs[job.id].state for job in JOBS] == [State.SUCCEEDED] * 3


@FILES
@given(broken=st.binary(max_size=60))
def test_broken_lines_of_a_job_list_lose_no_other_job(
    broken: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    write_jobs(store, PATHS.jobs + "a.jsonl", JOBS)
    store.append(PATHS.jobs + "b.jsonl", broken + b"\n")
    found = dict(job_bodies(store, PATHS))
    assert {job.id: json.loads(job.body) for job in JOBS}.items() <= found.items()
    assert {job.id for job in JOBS} <= Fold(store, PATHS).update().jobs.keys()


# -- What users write

FLEET = json.dumps(
    {
        "IamFleetRole": "arn:aws:iam::123456789012:role/aws-ec2-spot-fleet-tagging-role",
        "TargetCapacity": 1,
        "SpotPrice": "0.1",
        "LaunchSpecifications": [
            {
                "ImageId": "ami-0123456789abcdef0",
                "InstanceType": "m5.large",
                "SubnetId": "subnet-0123abcd",
                "IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"},
            }
        ],
    }
)
JOB_FILE = (
    '{"_comment": "x", "input": "in", "groups": [{"Plate": "P1", "n": 1}, {"Plate": "P 2"}], "z": null}'
)
CONFIG = "APP_NAME = 'A'\nMEMORY = 2 * 1024\nMACHINE_TYPE = ['m5.large']\nX = f'{APP_NAME}-b'\n"


def reads_fleet(content: bytes, _: Path) -> None:
    fleet = parse_fleet(content.decode(), "fleet.json")
    advice(fleet)
    fleet_problems(fleet, "fleet.json")


def reads_config(content: bytes, _: Path) -> None:
    parse_config(content.decode())


def reads_jobs(content: bytes, folder: Path) -> None:
    path = folder / "jobs.json"
    path.write_bytes(content)
    for job in JobFile(path).jobs():
        assert isinstance(job.keys, dict)


@pytest.mark.parametrize(
    ("whole", "read"),
    [(FLEET, reads_fleet), (CONFIG, reads_config), (JOB_FILE, reads_jobs)],
    ids=["fleet", "config", "jobs"],
)
@FILES
@given(data=st.data())
def test_a_file_with_any_damage_is_read_or_refused(
    whole: str, read: Callable[[bytes, Path], None], data: st.DataObject, tmp_path: Path
) -> None:
    content = data.draw(damaged(whole.encode()))
    if read is not reads_jobs:
        content = content.decode(errors="ignore").encode()
    try:
        read(content, tmp_path)
    except UsageError as error:
        one_line(error)
