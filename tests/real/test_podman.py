"""Jobs in containers by Podman, as a user of the engine `local` has them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conftest import DsProject, until
from docking import IMAGE, Podman, podman_engine
from services import alone

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """One test process at a time has it: two storages in use at once hold each other up."""
    with (
        alone(tmp_path_factory.getbasetemp().parent / "podman-alone"),
        podman_engine() as found,
    ):
        yield found


@pytest.fixture
def boxed(project: DsProject, podman: Podman) -> Iterator[DsProject]:
    """A project that finds the engine; no container of it is left afterwards."""
    project.environment |= podman.environment
    yield project
    project.ds("stop", "--now", code=None)
    assert podman.containers(project.folder) == []


def of_image(project: DsProject, **keys: object) -> DsProject:
    return project.config(**{"DOCKERHUB_TAG": IMAGE, "CONTAINERS": "podman", "JOB_RETRIES": 1, **keys})


def test_jobs_see_their_files_and_variables_and_no_others(boxed: DsProject) -> None:
    of_image(
        boxed,
        COMMAND="test ! -e /usr/bin && cp {input_dir}/{n}.txt {output_dir}/'a b.txt'"
        " && grep -q \\\"n\\\":{n} $DS_JOB && echo $OWN >> {output_dir}/'a b.txt'"
        ' && ls -A "$DS_PROJECT_DIR"/.ds && ! touch "$DS_PROJECT_DIR"/config.py && env',
        INPUTS=["in/{n}.txt"],
        OUTPUT="out/{n}",
        ENVIRONMENT={"OWN": "two\nlines"},
        MEMORY=64,
        CPU_SHARES=512,
    )
    (boxed.folder / ".ds").mkdir()
    (boxed.folder / ".ds/dashboard-App.json").write_text("token")
    boxed.environment["SECRET_OF_THE_HOST"] = "leaked"
    assert f"{IMAGE} is here; jobs run in containers of it, by podman" in boxed.ds("check").stdout
    (boxed.folder / "data/in").mkdir(parents=True)
    for n in range(4):
        (boxed.folder / f"data/in/{n}.txt").write_text(f"{n}\n")
    boxed.ds("run", boxed.jobs({"n": n} for n in range(4)), timeout=120)
    for n in range(4):
        made = boxed.folder / f"data/out/{n}/a b.txt"
        assert made.read_text() == f"{n}\ntwo lines\n"
        assert made.stat().st_uid == os.getuid()
    printed = boxed.ds("logs", "0").stdout
    assert "DS_ATTEMPT=1" in printed
    assert "leaked" not in printed and "dashboard" not in printed
    assert not list((boxed.folder / ".ds").rglob("*.env"))


def test_a_container_has_no_rights_and_a_limit_of_processes_and_memory(boxed: DsProject) -> None:
    of_image(
        boxed,
        MEMORY=32,
        COMMAND="grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; cat /sys/fs/cgroup/pids.max"
        " /sys/fs/cgroup/pids/pids.max; dd if=/dev/zero of=/dev/null bs=200M count=1 && echo too much",
    )
    boxed.ds("run", boxed.jobs([{"n": 1}]), code=3)
    printed = boxed.ds("logs", "0").stdout
    none = "0" * 16
    assert {f"CapEff:\t{none}", f"CapBnd:\t{none}", "NoNewPrivs:\t1", "4096"} <= {*printed.splitlines()}
    assert "too much" not in printed


def test_how_a_command_ended(boxed: DsProject) -> None:
    scripts = ["exit 7", "kill -SEGV $$", "sleep 600 & exit 0", "trap '' TERM; while :; do sleep 9; done"]
    of_image(boxed, COMMAND='sh "$DS_PROJECT_DIR"/{n}.sh', JOB_TIMEOUT=20, DOCKER_CORES=2)
    for n, script in enumerate(scripts):
        (boxed.folder / f"{n}.sh").write_text(script)
    boxed.ds("run", boxed.jobs({"n": n} for n in range(4)), code=3, timeout=180)
    found = [(line["cause"], line["exit_code"]) for line in boxed.job_lines()]
    assert found == [("exit", 7), ("signal", None), (None, 0), ("timeout", None)]


def test_a_container_of_a_worker_that_was_killed_is_removed(boxed: DsProject, podman: Podman) -> None:
    of_image(boxed, COMMAND="echo x >> {output_dir}/n; sleep {seconds}", OUTPUT="out/{n}", DOCKER_CORES=1)
    boxed.ds("setup")
    boxed.ds("submit", boxed.jobs([{"n": 1}], seconds=600))
    boxed.ds("start")
    until(lambda: podman.containers(boxed.folder), "a container", 60)
    before = podman.containers(boxed.folder)
    os.kill(next(iter(boxed.machine()["workers"].values())), 9)
    until(lambda: podman.containers(boxed.folder) not in (before, []), "another container alone", 60)
    boxed.ds("stop", "--now", timeout=120)


def test_an_image_that_is_nowhere_is_named_with_its_registry(boxed: DsProject) -> None:
    of_image(boxed, COMMAND="true", DOCKERHUB_TAG="127.0.0.1:9/lab/none:1")
    refused = boxed.ds("setup", code=1, timeout=120).stderr
    assert "the image 127.0.0.1:9/lab/none:1 cannot be pulled: podman pull: " in refused
