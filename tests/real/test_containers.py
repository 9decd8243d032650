"""Jobs in real containers, of an image that has no Python, as a user of the engine `local` has them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import DsProject, until
from docking import IMAGE, Docker, docker_engine

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with docker_engine(tmp_path_factory.getbasetemp().parent) as found:
        yield found


@pytest.fixture
def boxed(project: DsProject, docker: Docker) -> Iterator[DsProject]:
    """A project that finds the engine; no container of it is left afterwards."""
    project.environment |= docker.environment
    yield project
    if (project.folder / "config.py").exists():
        project.ds("stop", "--now", code=None)
    assert docker.containers(project.folder) == []


def of_image(project: DsProject, **keys: object) -> DsProject:
    return project.config(**{"DOCKERHUB_TAG": IMAGE, "JOB_RETRIES": 1, **keys})


def test_containers_see_the_shared_inputs_and_cannot_change_them(boxed: DsProject) -> None:
    of_image(
        boxed,
        COMMAND="cp {shared_dir}/fa {output_dir}/fa; chmod u+w {shared_dir}/fa || echo N > {shared_dir}/fa"
        " || echo kept",
        SHARED_INPUTS=["genome/"],
        OUTPUT="out/{n}",
    )
    (boxed.folder / "data/genome").mkdir(parents=True)
    (boxed.folder / "data/genome/fa").write_text("ACGT")
    boxed.ds("run", boxed.jobs([{"n": 1}]))
    assert (boxed.folder / "data/out/1/fa").read_text() == "ACGT"
    assert "kept" in boxed.ds("logs", "0").stdout


def test_a_job_set_runs_in_containers_of_an_image_without_python(boxed: DsProject) -> None:
    of_image(
        boxed,
        COMMAND="test ! -e /usr/bin && cp {input_dir}/{n}.txt {output_dir}/'a b.txt'"
        " && grep -q \\\"n\\\":{n} $DS_JOB && echo $THREADS $OWN >> {output_dir}/'a b.txt' && env",
        INPUTS=["in/{n}.txt"],
        OUTPUT="out/{n}",
        ENVIRONMENT={"THREADS": "3", "OWN": "two\nlines"},
        MEMORY=64,
        CPU_SHARES=512,
    )
    boxed.environment["SECRET_OF_THE_HOST"] = "leaked"
    assert f"{IMAGE} is here" in boxed.ds("check").stdout
    (boxed.folder / "data/in").mkdir(parents=True)
    for n in range(6):
        (boxed.folder / f"data/in/{n}.txt").write_text(f"{n}\n")
    boxed.ds("run", boxed.jobs({"n": n} for n in range(6)))
    for n in range(6):
        made = boxed.folder / f"data/out/{n}/a b.txt"
        assert made.read_text() == f"{n}\n3 two lines\n"
        assert made.stat().st_uid == os.getuid()
    printed = boxed.ds("logs", "0").stdout
    assert "DS_ATTEMPT=1" in printed and "leaked" not in printed
    assert not list((boxed.folder / ".ds").rglob("*.env"))


@pytest.mark.fault(31)
def test_a_container_has_no_capability_no_new_privileges_and_a_limit_of_processes(boxed: DsProject) -> None:
    rights = "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"
    command = f"{rights}; cat /sys/fs/cgroup/{{each}}pids.max || true"
    of_image(boxed, COMMAND=command, OUTPUT="")
    boxed.ds("run", boxed.jobs([{"each": ""}, {"each": "pids/"}]))
    printed = boxed.ds("logs", "0").stdout.splitlines()
    assert {f"CapEff:\t{'0' * 16}", f"CapBnd:\t{'0' * 16}", "NoNewPrivs:\t1"} <= set(printed)
    assert "4096" in boxed.ds("logs", "0").stdout + boxed.ds("logs", "1").stdout


def test_a_job_in_a_container_does_not_see_the_keys_of_the_project(boxed: DsProject) -> None:
    of_image(
        boxed, COMMAND='find "$DS_PROJECT_DIR"/.ds -type f && cat "$DS_PROJECT_DIR"/config.py', OUTPUT=""
    )
    (boxed.folder / ".ds").mkdir(exist_ok=True)
    (boxed.folder / ".ds" / "dashboard-App.json").write_text("token")
    boxed.ds("run", boxed.jobs([{"n": 1}]))
    printed = boxed.ds("logs", "0").stdout
    assert "job.json" in printed and "COMMAND" in printed
    assert "dashboard" not in printed and "queue.db" not in printed


def test_a_job_that_needs_more_memory_than_it_may_have(boxed: DsProject) -> None:
    hungry = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    of_image(boxed, COMMAND=f"{hungry} || exit {{code}}", MEMORY=32)
    boxed.ds("run", boxed.jobs([{"code": 9}, {"code": 137}]), code=3)
    for line in boxed.job_lines():
        assert line["cause"] == "out-of-memory" and line["max_rss_bytes"] is None
    assert "MEMORY = 32" in boxed.ds("logs", "0").stdout


def test_an_attempt_after_one_that_ran_out_of_memory_gets_more(boxed: DsProject) -> None:
    hungry = "dd if=/dev/zero of=/dev/null bs=200M count=1 || exit {code}"
    of_image(boxed, COMMAND=hungry, MEMORY=32, MEMORY_RETRY=4, JOB_RETRIES=3, BACKOFF=0)
    boxed.ds("run", boxed.jobs([{"code": 9}]))
    (line,) = boxed.job_lines()
    assert (line["state"], line["attempts"]) == ("succeeded", 3)
    assert line["detail"] == "it was given 512 MB of memory"
    assert "attempt 3 is given 512 MB of memory" in boxed.ds("logs", "0").stdout


@pytest.mark.fault(22, 24)
def test_how_a_command_in_a_container_ended(boxed: DsProject) -> None:
    scripts = ["exit 7", "kill -SEGV $$", "sleep 600 & exit 0", "trap '' TERM; while :; do sleep 9; done"]
    of_image(boxed, COMMAND='sh "$DS_PROJECT_DIR"/{n}.sh', JOB_TIMEOUT=5, DOCKER_CORES=4)
    for n, script in enumerate(scripts):
        (boxed.folder / f"{n}.sh").write_text(script)
    boxed.ds("run", boxed.jobs({"n": n} for n in range(4)), code=3)
    found = [(line["cause"], line["exit_code"]) for line in boxed.job_lines()]
    assert found == [("exit", 7), ("signal", None), (None, 0), ("timeout", None)]


def test_a_program_that_the_image_lacks(boxed: DsProject) -> None:
    of_image(boxed, COMMAND="no-such-program {n}")
    boxed.ds("run", boxed.jobs([{"n": 1}]), code=3)
    (line,) = boxed.job_lines()
    assert (line["cause"], line["exit_code"]) == ("exit", 127)
    assert "no-such-program" in boxed.ds("logs", "0").stdout


def test_the_project_is_there_to_read_and_the_bucket_where_old_images_look(boxed: DsProject) -> None:
    of_image(
        boxed,
        COMMAND='sh "$DS_PROJECT_DIR/own.sh" {n} > {output_dir}/x; ! touch "$DS_PROJECT_DIR/own.sh"',
        OUTPUT="out",
        MOUNT_BUCKET=True,
    )
    (boxed.folder / "own.sh").write_text('cat /home/ubuntu/bucket/"$1"\n')
    (boxed.folder / "data").mkdir()
    (boxed.folder / "data/in.txt").write_text("seen")
    boxed.ds("run", boxed.jobs([{"n": "in.txt"}]))
    assert (boxed.folder / "data/out/x").read_text() == "seen"


def test_project_files_travel_into_containers_and_nothing_else_of_the_project(boxed: DsProject) -> None:
    of_image(
        boxed,
        COMMAND='sh "$DS_PROJECT_DIR/own.sh"; ls "$DS_PROJECT_DIR"; ! touch "$DS_PROJECT_DIR/own.sh"',
        FILES=["own.sh"],
    )
    (boxed.folder / "own.sh").write_text("echo travelled\n")
    (boxed.folder / "secret.txt").write_text("")
    boxed.ds("run", boxed.jobs([{"n": 1}]))
    assert {"travelled", "own.sh"} <= {*boxed.ds("logs", "0").stdout.splitlines()}  # streams in any order


def test_a_container_gets_its_secrets_by_name(boxed: DsProject) -> None:
    secret = "hunter22-of-this-test"
    boxed.environment["OUTER"] = secret
    of_image(boxed, COMMAND="echo token=$TOKEN; test {n} = 1", SECRETS={"TOKEN": "env:OUTER"})
    boxed.ds("run", boxed.jobs([{"n": 1}]))
    assert "token=***" in boxed.ds("logs", "0").stdout
    files = [path for path in boxed.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_stop_now_ends_the_container_and_its_job_goes_back(boxed: DsProject, docker: Docker) -> None:
    of_image(boxed, COMMAND="sleep {n}", DOCKER_CORES=1)
    for step in (["setup"], ["submit", boxed.jobs([{"n": 600}])], ["start"]):
        boxed.ds(*step)
    until(lambda: docker.containers(boxed.folder), "a container")
    boxed.ds("stop", "--now")
    assert docker.containers(boxed.folder) == []
    assert boxed.status()["jobs"] | {"waiting": 1, "failed": 0} == boxed.status()["jobs"]


def test_nothing_is_left_when_everything_of_ours_is_killed(boxed: DsProject, docker: Docker) -> None:
    of_image(boxed, COMMAND="sleep {n}", DOCKER_CORES=1)
    jobs = boxed.jobs([{"n": 600}])
    for step in (["setup"], ["submit", jobs], ["start"]):
        boxed.ds(*step)
    until(lambda: docker.containers(boxed.folder), "a container")
    machine = boxed.machine()
    for pid in [machine["pid"], *machine["workers"].values()]:
        os.kill(pid, signal.SIGSTOP)
    for pid in [machine["pid"], *machine["workers"].values()]:
        os.kill(pid, signal.SIGKILL)
    assert docker.containers(boxed.folder)
    boxed.ds("stop", "--now", code=None)
    assert docker.containers(boxed.folder) == []


def test_a_killed_worker_s_container_is_taken_away_and_its_job_runs_again(
    boxed: DsProject, docker: Docker
) -> None:
    of_image(boxed, COMMAND="echo $DS_WORKER; test -e {flag} || sleep 600", DOCKER_CORES=1)
    flag = boxed.folder / "flag"
    for step in (["setup"], ["submit", boxed.jobs([{"flag": str(flag)}])], ["start"]):
        boxed.ds(*step)
    until(lambda: docker.containers(boxed.folder), "a container")
    flag.touch()
    (first,) = docker.containers(boxed.folder)
    os.kill(*boxed.machine()["workers"].values(), signal.SIGKILL)
    boxed.ds("monitor")
    assert first not in docker.containers(boxed.folder)
    (line,) = boxed.job_lines()
    assert line["state"] == "succeeded" and line["attempts"] == 1


@pytest.mark.fault(74)
@pytest.mark.parametrize(("step", "given"), [("setup", {}), ("run", {}), ("run", {"CONTAINERS": True})])
def test_a_container_engine_is_missed_before_anything_is_queued(
    project: DsProject, step: str, given: dict[str, bool]
) -> None:
    of_image(project, COMMAND="true {n}", **given)
    only = project.folder / "bin"
    only.mkdir()
    for name in ("docker", "true"):
        (only / name).symlink_to(str(shutil.which(name)))
    project.environment |= {"DOCKER_HOST": "unix:///nowhere/d.sock", "PATH": str(only)}
    jobs = project.jobs([{"n": 1}])
    said = project.ds(step, *([jobs] if step == "run" else []), code=1).stderr
    assert IMAGE in said and "CONTAINERS = False" in said
    assert not (project.folder / ".ds/App/queue.db").exists()
    assert "CONTAINERS = False" in project.ds("check", code=1).stdout
    of_image(project, COMMAND="true {n}", CONTAINERS=False)
    assert "1 succeeded" in project.ds("run", jobs).stdout


def test_an_image_that_is_not_here_and_nowhere_else(boxed: DsProject) -> None:
    of_image(boxed, COMMAND="true {n}", DOCKERHUB_TAG="localhost:1/no/image:1")
    said = boxed.ds("run", boxed.jobs([{"n": 1}]), code=1).stderr
    assert "pulling the image localhost:1/no/image:1" in said
    assert "cannot be pulled" in said and "fix: correct DOCKERHUB_TAG" in said


def test_status_asks_no_engine(project: DsProject, tmp_path: Path) -> None:
    of_image(project, COMMAND="true {n}", CONTAINERS=False)
    project.ds("run", project.jobs([{"n": 1}]))
    of_image(project, COMMAND="true {n}")
    called = tmp_path / "called"
    fake = tmp_path / "bin/docker"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {called}\n")
    fake.chmod(0o755)
    project.environment["PATH"] = f"{fake.parent}:{os.environ['PATH']}"
    project.ds("status")
    project.ds("jobs")
    assert not called.exists()


@pytest.fixture
def front(boxed: DsProject, tmp_path: Path) -> Callable[[str], None]:
    """Has the project find a `docker` of the test before the real one; the first lines of it, if given."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    real = shutil.which("docker")

    def write(first: str) -> None:
        beside = program.with_suffix(".new")
        beside.write_text(f'#!/bin/sh\n{first}\nexec {real} "$@"\n')
        beside.chmod(0o755)
        beside.replace(program)

    write("")
    boxed.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    return write


@pytest.mark.fault(65)
@pytest.mark.parametrize(
    "trouble",
    [
        "sleep 600",
        "echo 'Cannot connect to the Docker daemon at unix:///d.sock. Is it running?' >&2; exit 125",
        "[ $1 != run ] || { echo 'error during connect: EOF' >&2; exit 125; }",
    ],
    ids=["hangs", "refuses", "refuses to run, and answers"],
)
def test_a_container_engine_that_is_away_charges_no_job(
    boxed: DsProject, front: Callable[[str], None], trouble: str
) -> None:
    of_image(boxed, COMMAND="echo {n}", OUTPUT="", JOB_TIMEOUT=45 if "sleep" in trouble else 600)
    boxed.ds("setup")
    boxed.ds("submit", boxed.jobs({"n": n} for n in range(6)))
    boxed.ds("start")
    until(lambda: boxed.status()["jobs"]["succeeded"] == 6, "all jobs to succeed")
    boxed.ds("submit", boxed.jobs({"n": n} for n in range(6, 9)))
    front(trouble)
    boxed.ds("submit", boxed.jobs({"n": n} for n in range(9, 60)))
    said = "paused: the container engine"
    until(lambda: said in (boxed.status()["why_idle"] or ""), "the pause to be shown", 90)
    front("")
    until(lambda: boxed.status()["jobs"]["succeeded"] == 60, "all jobs to succeed", 120)
    assert boxed.status()["attempts"] == 60


@pytest.mark.fault(65)
def test_an_engine_that_is_killed_under_its_jobs_charges_none(boxed: DsProject, tmp_path: Path) -> None:
    """The engine's own command loses the container: it ends at once, with a code that is not the job's."""
    of_image(boxed, COMMAND="sleep 3; echo {n}", OUTPUT="")
    lost = 'if [ $1 = run ] && ! [ -e {flag} ]; then touch {flag}; timeout 1 {real} "$@"; exit 125; fi'
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    real = shutil.which("docker")
    first = lost.format(flag=tmp_path / "flag", real=real)
    program.write_text(f'#!/bin/sh\n{first}\nexec {real} "$@"\n')
    program.chmod(0o755)
    boxed.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    boxed.ds("run", boxed.jobs({"n": n} for n in range(3)), timeout=120)
    assert (tmp_path / "flag").exists()
    assert [line["attempts"] for line in boxed.job_lines()] == [1, 1, 1]
