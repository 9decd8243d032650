"""Runs on a real Slurm cluster: jobs end to end, and what clusters do to them."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from apptaining import APPTAINER, stand_in
from clusters import Cluster, ClusterProject, own_cluster, wait_until
from services import require

pytestmark = pytest.mark.real


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Iterator[ClusterProject]:
    found = ClusterProject(tmp_path / "project", cluster)
    found.folder.mkdir()
    yield found
    for log in found.state().glob("logs/*.log"):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def test_the_steps_one_by_one_and_a_second_start_adds_pilots(project: ClusterProject) -> None:
    project.config(CLUSTER_MACHINES=1)
    project.ds("setup")
    project.ds("submit", project.numbered(60, 0.5))
    project.ds("start")
    project.ds("start", "--wait", 0)
    wait_until(lambda: len(project.cluster.jobs()) == 2, "two pilots")
    status = project.status()
    assert status["state"] == "running"
    project.ds("monitor", timeout=120)
    project.is_complete(60)
    project.leaves_nothing()


def test_pilots_whose_time_is_over_requeue_themselves_and_go_on(project: ClusterProject) -> None:
    project.config(SLURM_PARTITION="short", SLURM_TIME="1")
    project.ds("setup")
    project.ds("submit", project.numbered(60, 5))
    project.ds("start", timeout=90)
    done = project.ds("monitor", timeout=400)
    assert "60 succeeded" in done.stdout
    project.is_complete(60)
    ends = project.cluster.run("sacct", "-X", "-n", "-P", "-D", "-o", "State")
    assert "REQUEUED" in ends
    starts = Counter(project.starts())
    assert sum(starts.values()) - 60 <= 8, "what a pilot's end interrupts is little"
    assert project.status()["jobs"]["dead"] == 0
    project.leaves_nothing()


@pytest.mark.fault(75)
def test_pilots_end_where_the_queue_is_damaged_and_a_start_rebuilds_it(project: ClusterProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(40, 0.5))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.outputs()) > 5, "jobs to end")
    (first, *_) = sorted(project.state().glob("2*/log-*"))
    first.write_bytes(b"#" * first.stat().st_size)
    os.kill(project.heads()[0], signal.SIGKILL)
    wait_until(lambda: not project.pilots(), "pilots to end", 60)
    assert "the queue is damaged" in project.ds("monitor", code=1, timeout=60).stderr
    done = {job["id"] for job in project.job_lines() if job["state"] == "succeeded"}
    assert "40 jobs again" in project.ds("start", timeout=90).stderr
    project.ds("monitor", timeout=120)
    project.is_complete(40)
    assert all(job["attempts"] == 1 for job in project.job_lines() if job["id"] in done)
    project.leaves_nothing(killed=True)


def test_preempted_pilots_give_back_their_jobs_and_come_again(project: ClusterProject) -> None:
    project.config(SLURM_PARTITION="preempt", CLUSTER_MACHINES=2, DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(100, 1))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) > 8, "jobs to run")
    command = ["sbatch", "-p", "main", "-N4", "-n4", "-c4", "--exclusive", "-t1", "-o", "/dev/null"]
    project.cluster.run(*command, "--wrap", "sleep 6")
    wait_until(lambda: "PENDING" in project.cluster.jobs("%T", "-p", "preempt"), "pilots to be preempted", 60)
    done = project.ds("monitor", timeout=240)
    assert "100 succeeded" in done.stdout
    project.is_complete(100)
    assert all(job["attempts"] == 1 for job in project.job_lines()), "preemption uses up no attempt"
    project.leaves_nothing()


def test_a_limit_of_two_jobs_at_a_time_holds_pilots_back_and_is_explained(project: ClusterProject) -> None:
    project.config(SLURM_QOS="tight", SLURM_ACCOUNT="lab", CLUSTER_MACHINES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(120, 0.3))
    started = project.ds("start", "--wait", 0.2)
    assert "2 of 4 machines have come" in started.stderr
    assert Counter(project.cluster.jobs()) == {"RUNNING": 2, "PENDING": 2}
    assert "a limit of your account or QOS holds it back" in project.ds("status").stdout
    project.ds("monitor", timeout=120)
    project.is_complete(120)
    project.leaves_nothing()


def test_a_node_that_goes_down_loses_no_job(project: ClusterProject) -> None:
    project.config(CLUSTER_MACHINES=4, DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(160, 1))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) > 16, "jobs to run")
    project.cluster.run("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    project.cluster.run("scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=test")
    project.ds("monitor", timeout=300)
    project.is_complete(160)
    project.leaves_nothing()


def test_a_node_whose_daemon_is_killed_loses_no_job(project: ClusterProject) -> None:
    """Its processes go on: who holds a job is for leases to say, not for Slurm."""
    project.config(CLUSTER_MACHINES=2, DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(200, 1))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) > 8, "jobs to run")
    node = project.cluster.jobs("%N")[0]
    os.kill(project.cluster.slurmd(node), signal.SIGKILL)
    project.ds("monitor", code=None, timeout=300)
    project.cluster.up()
    project.is_complete(200)


def test_a_drain_and_a_stop_at_once(project: ClusterProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(100, 2))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) >= 4, "jobs to run")
    project.ds("stop", timeout=60)
    assert project.cluster.jobs() == []
    begun = len(project.starts())
    assert len(project.outputs()) == begun, "what ran has finished"
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) >= begun + 4, "jobs to run")
    project.ds("stop", "--now", timeout=60)
    wait_until(lambda: not project.processes(), "processes to end")
    assert project.status()["jobs"]["waiting"] >= 80
    project.leaves_nothing()


def test_a_time_limit_above_the_partitions_is_found_before_and_taken_back(project: ClusterProject) -> None:
    project.config(SLURM_PARTITION="short", SLURM_TIME="30", DOCKER_CORES=1)
    checked = project.ds("check", code=1)
    assert "above the limit of partition short" in checked.stdout
    project.ds("setup")
    project.ds("submit", project.numbered(5))
    refused = project.ds("start", code=1, timeout=60)
    assert "SLURM_TIME is above the partition's limit" in refused.stderr
    assert project.cluster.jobs() == []
    project.leaves_nothing()


REFUSED = [
    ("SLURM_PARTITION", "nope"),
    ("SLURM_ACCOUNT", "nope"),
    ("SLURM_QOS", "nope"),
    ("SLURM_CONSTRAINT", "nope"),
    ("SLURM_GRES", "nope:1"),
    ("MEMORY", 999_999),
    ("SLURM_EXTRA", ["--nonsense"]),
]


def test_what_slurm_refuses_is_said_with_its_fix_before_and_at_start(project: ClusterProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(3))
    for key, value in REFUSED:
        project.config(**{key: value})
        assert key in project.ds("check", code=1).stdout
        refused = project.ds("start", code=1).stderr
        what, _, fix = refused.partition("error: ")[2].partition("fix:")
        assert what.startswith("sbatch was refused"), refused
        assert key in fix
    project.config()
    assert project.status()["jobs"]["waiting"] == 3
    project.ds("cleanup", "--yes")


def test_jobs_of_mixed_needs_are_packed_into_pilots_with_gpus_of_their_own(project: ClusterProject) -> None:
    (smi := project.scratch.with_name("bin") / "nvidia-smi").parent.mkdir()
    smi.write_text("#!/bin/sh\necho 0; echo 1\n")  # as Slurm names no GPU that is no device of the node
    smi.chmod(0o755)
    project.environment["PATH"] = f"{smi.parent}:{project.environment['PATH']}"
    told = "$SLURMD_NODENAME {need} $DS_CPUS ,$CUDA_VISIBLE_DEVICES"
    project.config(
        COMMAND=f"echo {told} $(date +%s.%N) > {{output_dir}}/n; sleep 0.5; date +%s.%N >> {{output_dir}}/n",
        DOCKER_CORES=4,
        SLURM_GRES="gpu:fake:2",
        RESOURCES={"gpus": "{need}", "cpus": "max(1, {need})"},
    )
    needs = [1, 1, 2, 0, 1, 2, 0, 1, 0, 0]
    project.ds("run", project.jobs({"n": n, "need": need} for n, need in enumerate(needs)), timeout=120)
    users: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for text in project.outputs().values():
        node, need, cpus, gpus, begun, ended = text.split()
        ids = gpus[1:].split(",") if gpus[1:] else []
        assert (len(ids), int(cpus)) == (int(need), max(1, int(need)))
        for what, count in [*((each, 1) for each in ids), ("cpus", int(cpus))]:
            users.setdefault((node, what), []).extend([(float(begun), count), (float(ended), -count)])
    assert {what for _, what in users} == {"0", "1", "cpus"}
    most = {key: max(accumulate(count for _, count in sorted(each))) for key, each in users.items()}
    assert all(count == 1 for (_, what), count in most.items() if what != "cpus"), most
    assert 2 < max(most.values()) <= 4, "more than one job at a time, and no more than the pilot has"
    refused = project.ds("submit", project.jobs([{"n": 99, "need": 3}]), code=2).stderr
    assert "needs 3 processors, 3 GPUs, and a pilot has 4 processors, 300 MB, 2 GPUs" in refused
    project.leaves_nothing()


def test_a_controller_that_is_silent_is_named_and_jobs_go_on(project: ClusterProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(300, 0.5))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) > 4, "jobs to run")
    project.status()
    controller = int((project.cluster.folder / "state/slurmctld.pid").read_text())
    os.kill(controller, signal.SIGSTOP)
    try:
        before = len(project.starts())
        wait_until(lambda: len(project.starts()) > before + 4, "jobs to go on")
        refused = project.ds("start", code=1, timeout=120).stderr
        assert "the Slurm controller does not answer" in refused
        shown = project.ds("status", timeout=60).stdout
        assert "2 of 2 running" in shown
    finally:
        os.kill(controller, signal.SIGCONT)
    project.ds("monitor", timeout=120)
    project.is_complete(300)
    assert Counter(project.starts()) == Counter(range(300))
    project.leaves_nothing()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"SLURM_EXTRA": ["--export=PYTHONHOME=/no/python"]}, "no Python frame"),
        ({"SLURM_EXTRA": ["--export=PYTHONHOME=/no/python", "--output=/dev/null"]}, "do the nodes have"),
    ],
)
def test_pilots_that_cannot_begin_are_explained(
    project: ClusterProject, keys: dict[str, object], said: str
) -> None:
    project.config(**keys)
    project.ds("setup")
    project.ds("submit", project.numbered(3))
    project.ds("start", "--wait", 0)
    ended = project.ds("monitor", code=1, timeout=120).stderr
    assert "all pilots have ended" in ended
    assert said in ended
    project.config()
    project.ds("start", timeout=60)
    project.ds("monitor", timeout=60)
    project.is_complete(3)
    project.leaves_nothing()


def test_commands_on_two_login_nodes_at_once(project: ClusterProject) -> None:
    """The second one has a mount of its own, which knows no lock of the first one."""
    require("bindfs")
    other = copy(project)
    mounted = 'bindfs "$0" "$0" && cd "$0" && exec "$@"'
    other.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", mounted, str(project.folder)]
    nodes = [project, other]

    def at_once(*args: object) -> list[str]:
        begun = [(node.start(*args), node) for node in nodes]
        said = [process.communicate(timeout=180) for process, _ in begun]
        assert all("Traceback" not in err for _, err in said), said
        assert any(process.returncode == 0 for process, _ in begun), said
        return [err for _, err in said]

    project.config()
    at_once("setup")
    project.numbered(60, 0.2)
    at_once("submit", project.folder / "files/jobs.json")
    at_once("start", "--wait", 0)
    assert len(project.cluster.jobs()) in (2, 4)
    at_once("monitor")
    project.is_complete(60)
    assert Counter(project.starts()) == Counter(range(60))
    at_once("cleanup", "--yes")
    project.leaves_nothing()


def test_setup_runs_on_the_node_and_pilots_pause_while_it_fails(project: ClusterProject) -> None:
    there = project.folder / "there"
    project.config(
        CLUSTER_MACHINES=1,
        SETUP=[f"cat {there}", "export SAID=loaded"],
        COMMAND='echo "$SAID" > {output_dir}/n',
    )
    project.ds("setup")
    project.ds("submit", project.numbered(4))
    project.ds("start", timeout=60)
    said = f"SETUP: cat {there}: exit code 1: cat: {there}: No such file"
    wait_until(lambda: said in project.ds("status").stdout, "the line that fails", 30)
    assert (project.status()["jobs"]["waiting"], project.status()["attempts"]) == (4, 0)
    there.touch()
    project.ds("monitor", timeout=120)
    assert {*project.outputs().values()} == {"loaded\n"}
    assert project.status()["attempts"] == 4
    project.leaves_nothing()


def test_jobs_run_in_an_image_that_is_converted_once_for_all_nodes(project: ClusterProject) -> None:
    """By a stand-in for Apptainer, which a line of SETUP brings as a module would."""
    place = stand_in(project.folder.parent / "module", "apptainer", APPTAINER)
    project.config(
        DOCKERHUB_TAG="lab/cp:4",
        SETUP=[f"export PATH={place.parent}:$PATH"],
        COMMAND='echo "$OWN" > {output_dir}/n',
        ENVIRONMENT={"OWN": "a b"},
    )
    checked = project.ds("check", code=None).stdout
    assert "lab/cp:4 is not on this machine yet" in checked and "ds setup pulls it, by apptainer" in checked
    project.ds("run", project.numbered(20), timeout=120)
    assert project.outputs() == dict.fromkeys(range(20), "a b\n")
    calls = place.with_name("apptainer.calls").read_text().splitlines()
    assert sum(call.startswith("pull ") for call in calls) == 1
    assert sum(" exec " in call for call in calls) == 20
    project.leaves_nothing()


@pytest.fixture
def plain_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster without accounting, where any user may submit."""
    with own_cluster(DS_CLUSTER_DBD="0") as cluster:
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        yield cluster


def _rights(path: Path) -> int:
    with suppress(FileNotFoundError):  # a status is replaced every few seconds
        return stat.S_IMODE(path.stat().st_mode)
    return 0


OTHERS_PYTHON = "/usr/bin/python3"
"""One that other users may run: this one may lie in the home of root."""


def test_without_accounting_a_run_is_the_same_for_another_user_too(
    plain_cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    place = TemporaryDirectory(prefix="ds-users-")  # each session of pytest closes its own
    request.addfinalizer(place.cleanup)
    Path(place.name).chmod(0o755)
    projects = []
    for user in (os.getuid(), 65534):
        folder = Path(place.name, str(user), "project")
        folder.mkdir(parents=True)
        project = ClusterProject(folder, plain_cluster)
        project.config()
        project.numbered(20, 0.2)
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        project.prefix = [*become, "sh", "-c", f'shift; exec {OTHERS_PYTHON} "$@"', "sh"]
        project.environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        for each in (folder, *folder.rglob("*"), project.scratch):
            os.chown(each, user, user)
        projects.append(project)
    own, others = projects
    request.addfinalizer(lambda: [run.kill() or run.communicate() for run in runs])
    runs = [project.start("run", project.folder / "files/jobs.json") for project in projects]
    wait_until(lambda: all(len(project.starts()) > 2 for project in projects), "jobs of both users")
    for project in projects:
        assert stat.S_IMODE(project.state().stat().st_mode) == 0o700
        queue = [each for each in project.state().rglob("*") if each.suffix != ".log"]
        assert [each for each in queue if _rights(each) & 0o077] == []
    own.prefix, mine = others.prefix, own.prefix
    refused = own.ds("status", code=1).stderr
    assert "belongs to the user root" in refused or "Permission denied" in refused
    own.prefix = mine
    for run, project in zip(runs, projects, strict=True):
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        project.is_complete(20)
        project.leaves_nothing()


def test_a_bad_node_gets_no_more_pilots_and_charges_no_job(project: ClusterProject) -> None:
    bad = project.folder / "bad"
    bad.write_text("none")
    command = (
        f'test "$SLURMD_NODENAME" != "$(cat {bad})" && sleep {{seconds}} && echo {{n}} > {{output_dir}}/n'
    )
    project.config(COMMAND=command, SLURM_EXTRA=["--exclusive"], JOB_RETRIES=3)
    project.ds("setup")
    project.ds("submit", project.numbered(120, 0.3))
    project.ds("start", timeout=90)
    wait_until(lambda: project.status()["jobs"]["succeeded"] > 4, "jobs to succeed")
    node, _ = sorted(project.cluster.jobs("%N"))
    bad.write_text(node)
    monitor = project.ds("monitor", timeout=120)
    assert f"bad machine {node}: " in monitor.stderr
    assert [each["machine"] for each in project.status()["excluded"]] == [node]
    project.is_complete(120)
    lives = [file.name.split("-", 4) for file in project.state().rglob("lives/*")]
    ours = [each[4] for each in sorted(lives)]
    assert ours.count(node) == 1 and len(ours) >= 3, lives
    project.leaves_nothing()
