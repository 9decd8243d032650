"""The worker injected into real containers of an image that has no Python and no C library."""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import DsProject, until
from distributed_something.aws.ecs.desired import InjectedWorker
from distributed_something.errors import DsError
from distributed_something.system.containers.docker import WORKER_FOLDER
from distributed_something.worker import bundle
from docking import IMAGE, Docker, docker_engine
from tasks import Run, new_run, until_done

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with docker_engine(tmp_path_factory.getbasetemp().parent) as found:
        yield found


@pytest.fixture(scope="module")
def worker_image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that `ds image worker` builds."""
    project = DsProject(tmp_path_factory.mktemp("image"))
    project.config(COMMAND="true {n}").environment |= docker.environment
    tag = f"worker-{uuid.uuid4().hex[:8]}:1"
    assert project.ds("image", "worker", "--tag", tag, timeout=300).stdout.strip() == tag
    return tag


@contextmanager
def task(docker: Docker, run: Run, image: str, *options: str, command: tuple[str, ...]) -> Iterator[str]:
    """A container that runs `ds worker` for a run, as ECS would; its name."""
    name = f"task-{uuid.uuid4().hex[:8]}"
    theirs = ("APP_NAME", "SQS_QUEUE_URL", "DOCKER_CORES", "DS_RUN", "SECONDS_TO_START")
    given = run.environment(DS_SCRATCH="/tmp").items()
    variables = [f"--env={key}={value}" for key, value in given if key.startswith("AWS_") or key in theirs]
    entry = ("--entrypoint", command[0], image, *command[1:])
    docker("run", "--detach", "--init", "--name", name, "--network=host", *variables, *options, *entry)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, code=None)


def test_the_worker_is_copied_into_a_task_and_runs_jobs_there(docker: Docker, worker_image: str) -> None:
    run = new_run(
        [{"n": n} for n in range(4)],
        COMMAND="test ! -e /usr && cat /proc/1/comm > {output_dir}/{n}",
        OUTPUT="out/{n}",
    )
    injected = InjectedWorker(worker_image)
    volume = docker("volume", "create").strip()
    brought = f"--volume={volume}:{WORKER_FOLDER}"
    copy = ("--entrypoint", injected.copy[0], worker_image, *injected.copy[1:])
    options = (f"{brought}:ro", "--user=1234", "--read-only", "--tmpfs=/tmp:exec,mode=1777")
    try:
        docker("run", "--rm", "--network=none", "--memory=128m", brought, *copy)
        with task(docker, run, IMAGE, *options, command=injected.start) as name:
            until_done(run, 4, 60)
            docker("stop", "--time", "20", name)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        docker("volume", "rm", "--force", volume, code=None)
    assert all(record.state == "succeeded" for record in run.fold().jobs.values())
    assert run.store.read("out/3/3").strip() in (b"docker-init", b"tini")


def test_the_user_s_image_with_the_worker_in_it_calls_functions_too(
    docker: Docker, project: DsProject
) -> None:
    project.environment |= docker.environment
    tag = f"combined-{uuid.uuid4().hex[:8]}:1"
    project.config(COMMAND="true {n}", DOCKERHUB_TAG=IMAGE)
    made = project.ds("image", "build", "--tag", tag, timeout=300)
    assert made.stdout.strip() == tag and "WORKER_IMAGE = 'own'" in made.stderr
    run = new_run([{"n": 1}], COMMAND="echo {n} > {output_dir}/a", OUTPUT="out")
    with task(docker, run, tag, command=("ds", "worker")):
        until_done(run, 1, 60)
    (project.folder / "mine.py").write_text(
        "def process(job, output_dir):\n    (output_dir / 'a').write_text(str(job['n'] / (job['n'] - 2)))\n"
    )
    python = f"FROM {tag}\nRUN ln -s {WORKER_FOLDER}/bin/python3 /bin/python3\n"
    docker("build", "--quiet", "--network=host", "--tag", f"{tag}-python", "-", stdin=python.encode())
    project.config(
        HANDLER="mine:process", DOCKERHUB_TAG=f"{tag}-python", OUTPUT="out/{n}", JOB_RETRIES=1, DOCKER_CORES=1
    )
    project.ds("run", project.jobs([{"n": 1}, {"n": 2}]), code=3)
    assert (project.folder / "data/out/1/a").read_text() == "-1.0"
    assert "ZeroDivisionError" in project.ds("logs", "1").stdout


def test_a_rehearsal_s_tasks_are_containers_where_the_image_is_here(
    docker: Docker, project: DsProject
) -> None:
    project.environment |= docker.environment
    project.config(
        ENGINE="rehearsal",
        COMMAND="test ! -e /usr && echo {n} > {output_dir}/x && sleep 0.2",
        OUTPUT="out/{n}",
        DOCKERHUB_TAG=IMAGE,
        MACHINE_TYPE=["m5.large"],
        CLUSTER_MACHINES=2,
        DOCKER_CORES=2,
        MEMORY=512,
        CPU_SHARES=512,
        SQS_MESSAGE_VISIBILITY=10,
    )
    done = project.ds("run", project.jobs({"n": n} for n in range(12)), timeout=300)
    assert "processes of this machine" not in done.stderr
    assert "12 succeeded" in done.stdout
    assert all((project.folder / f"data/out/{n}/x").read_text() == f"{n}\n" for n in range(12))
    until(lambda: not docker.containers(project.folder), "the containers to go")


@pytest.mark.fault(80)
@pytest.mark.skipif(os.getuid() != 0, reason="a caller who is not root keeps its own user")
def test_where_root_rehearses_the_image_s_user_runs_the_jobs_as_in_ecs(
    docker: Docker, project: DsProject
) -> None:
    project.environment |= docker.environment
    tag = f"with-user-{uuid.uuid4().hex[:8]}:1"
    docker("build", "--quiet", "--tag", tag, "-", stdin=f"FROM {IMAGE}\nUSER 1234:4321\n".encode())
    project.config(
        ENGINE="rehearsal",
        COMMAND="id -u > {output_dir}/user && id -g >> {output_dir}/user && cp {input_dir}/{n} {output_dir}/",
        INPUTS=["in/{n}"],
        OUTPUT="out/{n}",
        DOCKERHUB_TAG=tag,
        MACHINE_TYPE=["m5.large"],
        MEMORY=512,
        CPU_SHARES=512,
    )
    (project.folder / "data/in").mkdir(parents=True)
    for n in range(3):
        (project.folder / f"data/in/{n}").write_text(f"{n}")
    done = project.ds("run", project.jobs({"n": n} for n in range(3)), timeout=300)
    assert "processes of this machine" not in done.stderr
    for n in range(3):
        assert (project.folder / f"data/out/{n}/user").read_text() == "1234\n4321\n"
        assert (project.folder / f"data/out/{n}/{n}").read_text() == f"{n}"
    until(lambda: not docker.containers(project.folder), "the containers to go")
    assert not [each for each in (project.folder / ".ds").rglob("*") if each.lstat().st_uid == 1234]


def test_an_image_whose_entry_point_is_the_reference_s_worker_still_runs(
    docker: Docker, project: DsProject, tmp_path: Path
) -> None:
    project.environment |= docker.environment
    tag = f"reference-{uuid.uuid4().hex[:8]}:1"
    project.config(COMMAND="true {Well}", DOCKERHUB_TAG=IMAGE)
    project.ds("image", "build", "--tag", tag, timeout=300)  # for its Python and boto3
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(Path(__file__).parents[1] / "reference_worker.py", context)
    entry = json.dumps([f"{WORKER_FOLDER}/bin/python3", "-I", "/reference_worker.py"])
    (context / "Dockerfile").write_text(
        f"FROM {tag}\nCOPY reference_worker.py /\nENTRYPOINT {entry}\nCMD []\n"
    )
    docker("build", "--quiet", "--tag", tag, str(context))
    project.config(
        ENGINE="rehearsal",
        DOCKERHUB_TAG=tag,
        MACHINE_TYPE=["m5.large"],
        CLUSTER_MACHINES=1,
        TASKS_PER_MACHINE=2,
        MEMORY=512,
        SQS_MESSAGE_VISIBILITY=60,
        FIRST_FAILS="A2",
        MOUNT_BUCKET=True,
    )
    (project.folder / "data/in").mkdir(parents=True)
    for n in range(6):
        (project.folder / f"data/in/A{n}.txt").write_text(f"{n} ")
    jobs = project.jobs(({"Well": f"A{n}"} for n in range(6)), input="in", output="out")
    assert "6 unproven" in project.ds("run", jobs, timeout=300).stdout
    for n in range(6):
        assert (project.folder / f"data/out/A{n}.txt").read_text() == f"{n} App"
    assert (project.folder / "data/tried/A2").exists()
    assert project.status()["jobs"] | {"total": 6, "succeeded": 6} == project.status()["jobs"]
    assert {line["state"] for line in project.job_lines()} == {"succeeded"}


def test_a_killed_rehearsal_leaves_no_container(docker: Docker, project: DsProject) -> None:
    project.environment |= docker.environment
    project.config(
        ENGINE="rehearsal", COMMAND="sleep {n}", DOCKERHUB_TAG=IMAGE, MACHINE_TYPE=["m5.large"], MEMORY=512
    )
    try:
        for step in (["setup"], ["submit", project.jobs([{"n": 600}])], ["start"]):
            project.ds(*step, timeout=120)
        until(lambda: docker.containers(project.folder), "a task's container")
        facts = json.loads((project.folder / ".ds/App.rehearsal/rehearsal.json").read_text())
        os.kill(facts["pid"], signal.SIGKILL)
        until(lambda: not docker.containers(project.folder), "the container to go")
    finally:
        project.ds("cleanup", "--yes", code=None, timeout=120)


def test_a_rehearsal_says_why_its_tasks_are_processes(docker: Docker, project: DsProject) -> None:
    project.environment |= docker.environment
    project.config(
        ENGINE="rehearsal", COMMAND="true {n}", DOCKERHUB_TAG="no/such-image:1", MACHINE_TYPE=["m5.large"]
    )
    try:
        said = project.ds("setup", timeout=120).stderr
    finally:
        project.ds("cleanup", "--yes", code=None, timeout=120)
    assert "not containers: the image no/such-image:1 is not on this machine" in said


def test_a_worker_is_complete_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DsError, match="could not be put together"):
        bundle.make(tmp_path / "file" / "worker")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
