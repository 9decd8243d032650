"""The story of a run: its figures, what they suggest, and a page that anyone can open."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_something import __version__
from distributed_something.engine import Cost, Machines
from distributed_something.inputs.config import parse_config
from distributed_something.ledger import Fold, RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.report.advice import advise
from distributed_something.report.build import build_report, write_report
from distributed_something.report.failures import group_failures
from distributed_something.report.page import render
from distributed_something.report.plots import throughput_plot
from distributed_something.report.statistics import (
    BINS,
    BUCKETS,
    Throughput,
    histogram,
    quantiles,
    throughput,
)
from distributed_something.runs.provenance import note_config, note_job_file, note_worker, what_ran
from distributed_something.runs.snapshot import take
from distributed_something.system.containers.docker import Docker
from synthetic import RUN, write_run

CONFIG = "APP_NAME = 'App'\nENGINE = 'local'\nDOCKER_CORES = 2\nMEMORY = 8000\nSECRET_KEY = 'hush'\n"
values = st.floats(1e-6, 1e9)


def report_of(folder: Path, jobs: int, cost: Cost | None = None, **more: Any) -> tuple[dict[str, Any], str]:
    paths = write_run(folder, "App", jobs)
    store = FolderStore(folder / "data")
    fold = Fold(store, paths).update()
    snapshot = take(
        fold, app="App", engine="local", run=paths.run, machines=Machines(cost=cost), counts=None, now=2e9
    )._replace(**more)
    groups = group_failures(store, paths, fold.jobs.values())
    config = parse_config(CONFIG)
    report = build_report(snapshot, fold, groups, config, what_ran(store, paths, config))
    page = store.read(write_report(store, paths, report)).decode()
    assert json.loads(store.read(paths.root + "report.json")) == json.loads(json.dumps(report))
    return report, page


class Tags(HTMLParser):
    """Every tag and every attribute of a page; each tag that is opened is closed again."""

    VOID = frozenset({"meta", "br", "path", "rect", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_of_a_large_run_is_small_and_asks_for_nothing(tmp_path: Path) -> None:
    report, page = report_of(tmp_path, 20_000)
    assert (
        len(page) < 60_000
    )  # and it does not grow: everything in it is a sum, a bin or one of the first few
    assert report["jobs"]["dead"] == 400
    assert [group["jobs"] for group in report["failures"]] == [134, 133, 133]
    tags = Tags(page)
    assert not {"script", "link", "img", "iframe", "form", "object"} & tags.tags
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_a_report_tells_where_the_time_went(tmp_path: Path) -> None:
    report, page = report_of(tmp_path, 1000)
    time = report["time"]
    good = time["in"] + time["running"] + time["out"]
    assert time["in"] == pytest.approx(good * 0.2)
    assert time["out"] == pytest.approx(good * 0.1)
    assert time["failed"] > 0
    assert sum(report["throughput"]["jobs"]) == sum(report["histograms"]["seconds"]["counts"]) == 1000
    assert "Where the time went" in page
    assert report["memory_asked_bytes"] == 4000 * 2**20
    assert "asked for a job" in page


def test_a_report_names_the_cost_of_a_job_where_it_is_known(tmp_path: Path) -> None:
    report, page = report_of(tmp_path, 100, Cost(4.9))
    assert report["cost_per_job_usd"] == pytest.approx(0.05)
    assert "$4.90" in page
    assert report_of(tmp_path / "free", 100)[0]["cost_per_job_usd"] is None


def test_a_report_does_not_tell_secrets(tmp_path: Path) -> None:
    report, page = report_of(tmp_path, 10)
    assert report["what"]["environment"] == ["SECRET_KEY"]
    assert "hush" not in page + json.dumps(report)


def test_a_report_tells_which_files_and_which_workers_ran(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text('{"groups": []}')
    store, paths = FolderStore(tmp_path / "data"), RunPaths("App", RUN)
    note_job_file(store, paths, jobs)
    note_job_file(store, paths, jobs)  # submitted again: the same file
    note_job_file(store, paths, tmp_path / "gone.json")
    container = {"Image": "lab/image:1", "ImageID": "sha256:" + "ab" * 32, "Limits": {"CPU": 2}}
    for _ in range(3):
        note_worker(store, paths, container)
    note_worker(store, paths, {})
    report, page = report_of(tmp_path, 10)
    sha = hashlib.sha256(jobs.read_bytes()).hexdigest()
    assert report["what"]["job_files"] == [{"name": "jobs.json", "sha256": sha, "bytes": 14}]
    images = {each.get("image_digest") for each in report["what"]["workers"]}
    assert images == {"sha256:" + "ab" * 32, None} and len(report["what"]["workers"]) == 2
    assert {each["version"] for each in report["what"]["workers"]} == {__version__}
    assert f"sha256 {sha}" in page and "image lab/image:1@sha256:abab" in page


def test_workers_of_this_machine_are_told_of_without_having_written_anything(tmp_path: Path) -> None:
    report, page = report_of(tmp_path, 10)
    (worker,) = report["what"]["workers"]
    assert worker["python"].startswith("3.") and "image" not in worker
    assert f"Python {worker['python']}" in page


def test_what_somebody_else_put_beside_is_no_error(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path / "data"), RunPaths("App", RUN)
    for name, text in (("a", b"["), ("b", b"[]"), ("c", b"\xff"), ("d", b'{"version": "9"}')):
        store.write(f"{paths.root}ran/workers/{name}.json", text)
    report, page = report_of(tmp_path, 10)
    assert report["what"]["workers"] == [{"version": "9"}] and "distributed-something 9" in page


@pytest.mark.parametrize(
    ("says", "digest"),
    [
        ("lab/image@sha256:aa\nother/image@sha256:cc\nsha256:bb", "sha256:aa"),
        ("sha256:bb", "sha256:bb"),
        ("", None),
    ],
)
def test_the_digest_of_an_image_is_its_registrys_or_else_its_own(
    tmp_path: Path, says: str, digest: str | None
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n[ '{says}' ] || exit 1\nprintf '%s\\n' '{says}'\n")
    program.chmod(0o755)
    assert Docker(str(program)).digest("lab/image") == digest


def test_what_a_job_said_is_text_and_nothing_else(tmp_path: Path) -> None:
    report, _ = report_of(tmp_path, 100)
    bad = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"
    report["failures"] = [{"cause": bad, "jobs": 1, "dead": 1, "example": bad, "ids": [bad]}]
    report["what"]["config"] = {bad: bad}
    report["app"] = report["engine"] = bad
    tags = Tags(render(report))
    assert not {"script", "img"} & tags.tags
    assert "onerror" not in tags.attributes


def test_a_run_without_any_job_has_a_report_too(tmp_path: Path) -> None:
    Tags(report_of(tmp_path, 0)[1])


def counted(ends: list[float]) -> Callable[[float, float], Counter[int]]:
    return lambda start, bucket: Counter(max(int((end - start) / bucket), 0) for end in ends)


@given(st.lists(values), st.floats(0, 1e6), st.floats(0.001, 1e7))
def test_every_end_is_in_one_bucket(ends: list[float], start: float, span: float) -> None:
    ends = sorted(start + end % span for end in ends)
    found = throughput(len(ends), start, start + span, counted(ends))
    assert sum(found["jobs"]) == len(ends)
    assert len(found["jobs"]) <= BUCKETS + 2


def test_the_last_bucket_of_a_plot_is_as_high_as_the_rate_was() -> None:
    steady = throughput(951, 0.0, 95.1, counted([(n + 0.5) / 10 for n in range(951)]))
    assert (steady["bucket_s"], steady["last_s"]) == (2, pytest.approx(1.1))
    heights = [float(height) for height in re.findall(r'<rect.* height="([0-9.]+)"/>', _one_a_line(steady))]
    assert len(heights) == 48
    assert min(heights) > 0.95 * max(heights)


def _one_a_line(found: Throughput) -> str:
    return throughput_plot(found, str).replace(">", ">\n")


@given(st.lists(values, min_size=1))
def test_every_value_is_in_one_bin(found: list[float]) -> None:
    bins = histogram(found)
    assert bins is not None
    assert sum(bins["counts"]) == len(found)
    assert len(bins["counts"]) <= 2 * BINS
    assert bins["edges"] == sorted(bins["edges"])
    assert bins["edges"][0] <= min(found) * 1.001
    assert max(found) <= bins["edges"][-1] * 1.001


@given(st.lists(values, min_size=1))
def test_quantiles_are_in_order(found: list[float]) -> None:
    spread = quantiles(found)
    assert spread is not None
    assert spread["min"] <= spread["median"] <= spread["p95"] <= spread["max"]


def suggestions(
    text: str, causes: dict[str, int] | None = None, cores: int | None = None, **figures: Any
) -> dict[str, int | str]:
    """What is suggested after jobs of 10 s, 5 s of them computing, with 1,000 MB."""
    base = {
        "seconds": quantiles([10.0] * 8),
        "cpu_seconds": quantiles([5.0] * 8),
        "max_rss_bytes": quantiles([1000 * 2**20] * 8),
    }
    config = parse_config(f"APP_NAME = 'App'\nJOB_TIMEOUT = 60\n{text}")
    found = advise(config, config.docker_cores or 2, {**base, **figures}, causes or {}, cores)
    return {advice.key: advice.suggested for advice in found}


def test_memory_is_suggested_from_the_largest_job_and_the_slots() -> None:
    assert suggestions("DOCKER_CORES = 1\nMEMORY = 16000\nCPU_SHARES = 512")["MEMORY"] == 1280
    assert "MEMORY" not in suggestions("DOCKER_CORES = 1\nMEMORY = 1500\nCPU_SHARES = 512")
    assert suggestions("DOCKER_CORES = 4")["MEMORY"] == 5120


def test_jobs_that_ran_out_of_memory_need_more() -> None:
    assert suggestions("DOCKER_CORES = 1\nMEMORY = 1500", {"out-of-memory": 3})["MEMORY"] == 3000


def test_processors_are_suggested_from_how_busy_the_jobs_kept_them() -> None:
    found = suggestions("DOCKER_CORES = 2\nCPU_SHARES = 8192")
    assert (found["CPU_SHARES"], found["DOCKER_CORES"]) == (1024, 4)
    busy = quantiles([10.0] * 8)
    assert "DOCKER_CORES" not in suggestions("DOCKER_CORES = 2", cpu_seconds=busy)


def test_only_what_the_engine_uses_is_suggested() -> None:
    local = "ENGINE = 'local'\nDOCKER_CORES = 2\nMEMORY = 16000\nCPU_SHARES = 8192\n"
    local += "SQS_MESSAGE_VISIBILITY = 43200\n"
    slept = quantiles([0.01] * 8)
    assert suggestions(local, cores=2, cpu_seconds=slept) == {}
    assert suggestions(local, cores=6, cpu_seconds=slept) == {"DOCKER_CORES": 6}
    assert suggestions("DOCKERHUB_TAG = 'a/b'\n" + local, cores=2).keys() == {"MEMORY", "CPU_SHARES"}


def test_the_report_says_what_a_key_was_for_how_many_attempts(tmp_path: Path) -> None:
    paths, store = RunPaths("App", RUN), FolderStore(tmp_path / "data")
    for when, limit in ((0.0, 3), (1.0, 3), (1_700_000_005.0, 60)):
        config = parse_config(f"APP_NAME = 'App'\nENGINE = 'local'\nJOB_TIMEOUT = {limit}\n")
        note_config(store, paths, config, when)
    report, page = report_of(tmp_path, 200)
    first, second = report["what"]["configs"]
    assert (first["config"]["JOB_TIMEOUT"], second["config"]["JOB_TIMEOUT"]) == (3, 60)
    assert first["attempts"] + second["attempts"] == report["attempts"]
    assert first["attempts"] > 100
    assert f"3 ({first['attempts']} attempts), then 60 ({second['attempts']} attempts)" in page
    assert "<dd>local</dd>" in page  # what has not changed is said once


def test_a_long_visibility_and_a_missing_time_limit_are_pointed_out() -> None:
    found = suggestions("SQS_MESSAGE_VISIBILITY = 43200\nJOB_TIMEOUT = 0")
    assert (found["SQS_MESSAGE_VISIBILITY"], found["JOB_TIMEOUT"]) == (120, 60)
    assert not {"SQS_MESSAGE_VISIBILITY", "JOB_TIMEOUT"} & suggestions("").keys()


RENTED = (
    "ENGINE = 'aws'\nAWS_BUCKET = 'bucket'\nDOCKERHUB_TAG = 'a/b'\nTASKS_PER_MACHINE = 1\nDOCKER_CORES = 2\n"
)


@pytest.mark.parametrize(
    ("types", "memory_gib", "suggested"),
    [
        (["r5.xlarge", "r6i.2xlarge"], 0.5, "c5.xlarge, c6i.2xlarge"),  # half a core busy: 1.25 GiB a core
        (["c5.xlarge"], 1.5, "m5.xlarge"),
        (["m5.xlarge"], 3.0, "r5.xlarge"),
        (["m5.xlarge"], 1.5, None),
        (["m5.xlarge"], 30.0, None),  # no usual type has so much
        (["g5.xlarge"], 0.5, None),  # chosen for something else
        (["m5.xlarge", "g5.xlarge"], 0.5, None),
    ],
)
def test_types_are_suggested_by_the_memory_of_a_busy_core(
    types: list[str], memory_gib: float, suggested: str | None
) -> None:
    memory = quantiles([memory_gib * 2**30] * 8)
    found = suggestions(f"{RENTED}MACHINE_TYPE = {types!r}", max_rss_bytes=memory)
    assert found.get("MACHINE_TYPE") == suggested
    assert "MACHINE_TYPE" not in suggestions(
        f"ENGINE = 'local'\nMACHINE_TYPE = {types!r}", max_rss_bytes=memory
    )


def test_a_larger_disk_is_suggested_where_it_was_full_or_nearly() -> None:
    assert "EBS_VOL_SIZE" not in suggestions(f"{RENTED}EBS_VOL_SIZE = 30", disk_bytes=1e9)
    assert suggestions(f"{RENTED}EBS_VOL_SIZE = 30", disk_bytes=10e9)["EBS_VOL_SIZE"] == 22 + 25
    assert suggestions(f"{RENTED}EBS_VOL_SIZE = 30", {"disk-full": 2}, disk_bytes=1e6)["EBS_VOL_SIZE"] == 60
