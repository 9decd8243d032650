"""What container engines are asked for, which one is found, and a run by a stand-in for Apptainer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apptaining import APPTAINER, stand_in
from conftest import DsProject
from distributed_something.errors import DsError
from distributed_something.system.containers.apptainer import Apptainer
from distributed_something.system.containers.box import Box, Mount
from distributed_something.system.containers.docker import Docker, Podman
from distributed_something.system.containers.find import engine_for

BOX = Box(
    "lab/image:1",
    [Mount("/p", "/p", read_only=True), Mount("/p/.ds/w/1", "/p/.ds/w/1"), Mount('/a,b:"c', "/bucket")],
    Path("/p/.ds/w/0.container"),
    "/state",
    "worker-1",
    given={"A": "1 2"},
    secrets={"TOKEN": "xyz"},
    options=("--env-file", "/f"),
    hidden="/p/.ds",
    nvidia="0,1",
    cpu_shares=512,
    memory=64,
    name="ds-1",
    folder="/p/.ds/w/1/work",
    own={"DS_ATTEMPT": "2"},
    argv=["sh", "-c", "x"],
)
OWNER = f"{os.getuid()}:{os.getgid()}"
DOCKERS = [
    *("run", "--name", "ds-1", "--pull=never", "--init", "--network", "host"),
    *("--cidfile", "/p/.ds/w/0.cid", "--env-file", "/f"),
    *("--env", "TOKEN", "--cpu-shares", "512", "--mount", '"type=bind","src=/p","dst=/p","readonly"'),
    *("--mount", '"type=bind","src=/a,b:""c","dst=/bucket"'),
    *("--mount", '"type=tmpfs","dst=/p/.ds","tmpfs-mode=0755"'),
    *("--mount", '"type=bind","src=/p/.ds/w/1","dst=/p/.ds/w/1"', "GPUS"),
    *("--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--pids-limit", "4096", "--user", OWNER),
    *("FURTHER", "--label", "distributed-something.state=/state"),
    *("--label", "distributed-something.worker=worker-1", "--workdir", "/p/.ds/w/1/work"),
    *("--env", "DS_ATTEMPT=2", "--memory", "64m", "--memory-swap", "64m"),
    *("--entrypoint", "sh", "--", "lab/image:1", "-c", "x"),
]


@pytest.mark.parametrize(
    ("engine", "gpus", "further"),
    [
        (Docker("/bin/docker"), ["--gpus", '"device=0,1"'], []),
        (
            Podman("/bin/podman"),
            ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"],
            [*([] if os.getuid() == 0 else ["--userns", "keep-id"]), "--security-opt", "label=disable"],
        ),
    ],
)
def test_what_docker_and_podman_are_asked_for(engine: Docker, gpus: list[str], further: list[str]) -> None:
    wanted = list[str]()
    for word in DOCKERS:
        copied = '"type=tmpfs"' in word and engine.name == "podman"
        wanted += {"GPUS": gpus, "FURTHER": further}.get(word, [f'{word},"notmpcopyup"' if copied else word])
    assert engine.words(BOX) == ([engine.program, *wanted], {"TOKEN": "xyz"})


def test_what_apptainer_is_asked_for() -> None:
    words, variables = Apptainer("/bin/apptainer", Path("/p")).words(BOX)
    image = Apptainer("", Path("/p")).file("lab/image:1")
    assert words == [
        *("/bin/apptainer", "--quiet", "exec", "--containall", "--no-privs", "--no-eval"),
        *("--workdir", "/p/.ds/w/0.tmp", "--pwd", "/p/.ds/w/1/work", "--nv"),
        *("--mount", '"type=bind","src=/p","dst=/p","ro"'),
        *("--mount", '"type=bind","src=/a,b:""c","dst=/bucket"'),
        *("--mount", '"type=bind","src=/p/.ds/w/0.mask","dst=/p/.ds","ro"'),
        *("--mount", '"type=bind","src=/p/.ds/w/1","dst=/p/.ds/w/1"'),
        *(str(image), "sh", "-c", "x"),
    ]
    assert variables == {
        "APPTAINERENV_A": "1 2",
        "APPTAINERENV_DS_ATTEMPT": "2",
        "APPTAINERENV_TOKEN": "xyz",
        "APPTAINERENV_CUDA_VISIBLE_DEVICES": "0,1",
    }
    amd = BOX._replace(nvidia="", amd=True)
    words, variables = Apptainer("/opt/singularity", Path("/p")).words(amd)
    assert "--rocm" in words and "--nv" not in words
    assert variables["SINGULARITYENV_TOKEN"] == "xyz"
    assert Apptainer("", Path("/p")).file("images/cp.sif") == Path("/p/images/cp.sif")


@pytest.mark.parametrize(
    ("there", "names", "found"),
    [
        (["docker", "podman", "apptainer"], ["docker", "podman", "apptainer"], "docker"),
        (["docker", "podman", "apptainer"], ["apptainer", "podman", "docker"], "apptainer"),
        (["podman", "singularity"], ["apptainer"], "singularity"),
        (["docker!", "podman"], ["docker", "podman", "apptainer"], "podman"),
    ],
)
def test_the_first_engine_that_answers_is_taken(
    tmp_path: Path, there: list[str], names: list[str], found: str
) -> None:
    for each in there:
        text = "#!/bin/sh\nexit 1\n" if each.endswith("!") else "#!/bin/sh\necho 1\n"
        stand_in(tmp_path, each.rstrip("!"), text)
    engine = engine_for("lab/image:1", names, tmp_path, str(tmp_path))
    assert getattr(engine, "program", "") == str(tmp_path / found)


def test_without_an_engine_each_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(DsError, match="there is no Docker or Apptainer here"):
        engine_for("lab/image:1", ["docker", "apptainer"], tmp_path, str(tmp_path))
    stand_in(tmp_path, "docker", "#!/bin/sh\necho no daemon >&2; exit 1\n")
    with pytest.raises(DsError, match="docker version: no daemon"):
        engine_for("lab/image:1", ["docker", "apptainer"], tmp_path, str(tmp_path))


def test_podman_asks_docker_hub_as_docker_does() -> None:
    engine = Podman("podman")
    names = {
        "ubuntu:22.04": "docker.io/library/ubuntu:22.04",
        "lab/image": "docker.io/lab/image",
        "ghcr.io/lab/image:1": "ghcr.io/lab/image:1",
        "localhost:5000/x": "localhost:5000/x",
    }
    assert {name: engine._in_registry(name) for name in names} == names


@pytest.fixture
def apptainer(project: DsProject, tmp_path: Path) -> DsProject:
    """A project that finds a stand-in for Apptainer, by a line of SETUP as a module would bring it."""
    place = stand_in(tmp_path / "apptainer", "apptainer", APPTAINER)
    return project.config(
        DOCKERHUB_TAG="lab/cp:4",
        CONTAINERS="apptainer",
        SETUP=f"export PATH={place.parent}:$PATH",
        COMMAND='echo "$OWN" "$DS_ATTEMPT" {n} > {output_dir}/{n}.txt; exit {code}',
        OUTPUT="out/{n}",
        ENVIRONMENT={"OWN": "a b"},
        MEMORY=100,
        JOB_RETRIES=1,
    )


def calls(project: DsProject) -> list[str]:
    return (project.folder.parent / "apptainer/apptainer.calls").read_text().splitlines()


def test_a_run_by_a_stand_in_for_apptainer_converts_the_image_once(apptainer: DsProject) -> None:
    jobs = apptainer.jobs([{"n": 0}, {"n": 1}], code=0)
    checked = apptainer.ds("check").stdout
    assert "lab/cp:4 is not on this machine yet" in checked
    assert "apptainer sets jobs no limit" in checked
    for _ in range(2):
        apptainer.ds("run", jobs)
    (file,) = (apptainer.folder / ".ds/images").iterdir()
    (pull,) = [each for each in calls(apptainer) if each.startswith("pull")]
    assert pull.endswith(" docker://lab/cp:4")
    assert file.read_text() == "of docker://lab/cp:4\n"
    assert (apptainer.folder / "data/out/1/1.txt").read_text() == "a b 1 1\n"
    (line, _) = apptainer.job_lines()
    assert line["max_rss_bytes"], "a container is a process of ours: what it used is known"
    assert not [*(apptainer.folder / ".ds").rglob("*.mask"), *(apptainer.folder / ".ds").rglob("*.tmp")]


@pytest.mark.parametrize(("code", "cause"), [(7, "exit"), (137, "signal"), (255, "exit")])
def test_how_a_container_of_apptainer_ended(apptainer: DsProject, code: int, cause: str) -> None:
    apptainer.ds("run", apptainer.jobs([{"n": 0}], code=code), code=3)
    assert [line["cause"] for line in apptainer.job_lines()] == [cause]


def test_an_image_that_cannot_be_pulled_leaves_no_file(apptainer: DsProject) -> None:
    (apptainer.folder.parent / "apptainer/apptainer.refuses").touch()
    refused = apptainer.ds("setup", code=1).stderr
    assert "the image lab/cp:4 cannot be pulled: apptainer pull: FATAL:   no such image" in refused
    assert [*(apptainer.folder / ".ds/images").iterdir()] == []


def test_a_file_that_is_no_image_is_named(apptainer: DsProject) -> None:
    text = (apptainer.folder / "config.py").read_text().replace("lab/cp:4", "images/cp.sif")
    (apptainer.folder / "config.py").write_text(text)
    assert "images/cp.sif: No such file" in apptainer.ds("setup", code=1).stderr
    (apptainer.folder / "images").mkdir()
    (apptainer.folder / "images/cp.sif").write_text("of mine\n")
    apptainer.ds("run", apptainer.jobs([{"n": 0}], code=0))


def test_an_image_without_an_engine_is_refused_on_a_cluster_too(project: DsProject) -> None:
    project.environment["PATH"] = str(stand_in(project.folder / "bin", "nothing").parent)
    project.config(ENGINE="slurm", DOCKERHUB_TAG="lab/image:1", COMMAND="true")
    for command in ("check", "setup"):
        failed = project.ds(command, code=1)
        assert "there is no Apptainer or Podman or Docker here" in failed.stdout + failed.stderr
    project.config(ENGINE="slurm", DOCKERHUB_TAG="lab/image:1", COMMAND="true", CONTAINERS=False)
    project.ds("setup")
