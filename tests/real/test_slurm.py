"""Runs on a real Slurm cluster: jobs end to end, and what clusters do to them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import Cluster, ClusterProject, own_cluster, wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def project(cluster: Cluster, tmp_path: Path) -> Iterator[ClusterProject]:
    found = ClusterProject(tmp_path / "project", cluster)
    found.folder.mkdir()
    yield found
    for log in found.state().glob("logs/*.log"):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def is_complete(project: ClusterProject, count: int) -> None:
    """Every job has its output, and `ds` says so."""
    assert project.outputs() == {n: f"{n}\n" for n in range(count)}
    assert project.status()["jobs"]["succeeded"] == count


def leaves_nothing(project: ClusterProject, *, killed: bool = False) -> None:
    """What a killed process left on its node's own disk, the next one of its kind removes."""
    project.ds("cleanup", "--yes", timeout=120)
    assert not project.state().exists()
    wait_until(lambda: not project.processes(), "processes to end", 30)
    assert project.cluster.jobs() == []
    if not killed:
        assert [*project.scratch.iterdir()] == []


def test_a_run_from_the_first_step_to_the_last(project: ClusterProject) -> None:
    project.config()
    done = project.ds("run", project.numbered(100), timeout=120)
    assert "100 succeeded" in done.stdout
    is_complete(project, 100)
    assert Counter(project.starts()) == Counter(range(100))
    assert project.cluster.jobs() == []
    leaves_nothing(project)


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
    is_complete(project, 60)
    leaves_nothing(project)


def test_workers_heads_and_pilots_are_killed_and_every_job_is_done(project: ClusterProject) -> None:
    project.config(CLUSTER_MACHINES=3)
    project.ds("setup")
    project.ds("submit", project.numbered(240, 0.3))
    project.ds("start", timeout=90)
    killed = 0

    def kill(pids: list[int]) -> None:
        nonlocal killed
        os.kill(pids[0], signal.SIGKILL)
        killed += 1

    for _ in range(2):
        wait_until(project.heads, "a head", 30)
        kill(project.heads())
        time.sleep(2)
        workers = [pid for pid in project.pilots() if _parent(pid) in project.pilots()]
        kill(workers)
        time.sleep(2)
    pilots = [pid for pid in project.pilots() if _parent(pid) not in project.pilots()]
    kill(pilots)
    done = project.ds("monitor", timeout=240)
    assert "240 succeeded" in done.stdout
    is_complete(project, 240)
    starts = Counter(project.starts())
    assert set(starts) == set(range(240))
    assert sum(starts.values()) - 240 <= killed * 4, "only what a kill explains runs again"
    leaves_nothing(project, killed=True)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def test_a_run_whose_terminal_closes_is_taken_up_by_monitor(project: ClusterProject) -> None:
    project.config()
    run = project.start("run", project.numbered(80, 1.5), start_new_session=True)
    wait_until(lambda: len(project.starts()) > 5, "jobs to run")
    os.killpg(run.pid, signal.SIGHUP)
    run.communicate(timeout=30)
    before = len(project.starts())
    wait_until(lambda: len(project.starts()) >= min(before + 5, 80), "jobs to go on")
    project.ds("monitor", timeout=120)
    is_complete(project, 80)
    assert Counter(project.starts()) == Counter(range(80))
    leaves_nothing(project, killed=True)


def test_pilots_whose_time_is_over_requeue_themselves_and_go_on(project: ClusterProject) -> None:
    project.config(SLURM_PARTITION="short", SLURM_TIME="1")
    project.ds("setup")
    project.ds("submit", project.numbered(60, 5))
    project.ds("start", timeout=90)
    done = project.ds("monitor", timeout=400)
    assert "60 succeeded" in done.stdout
    is_complete(project, 60)
    ends = project.cluster.run("sacct", "-X", "-n", "-P", "-D", "-o", "State")
    assert "REQUEUED" in ends
    starts = Counter(project.starts())
    assert sum(starts.values()) - 60 <= 8, "what a pilot's end interrupts is little"
    assert project.status()["jobs"]["dead"] == 0
    leaves_nothing(project)


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
    is_complete(project, 100)
    assert all(job["attempts"] == 1 for job in project.job_lines()), "preemption uses up no attempt"
    leaves_nothing(project)


def test_a_limit_of_two_jobs_at_a_time_holds_pilots_back_and_is_explained(project: ClusterProject) -> None:
    project.config(SLURM_QOS="tight", SLURM_ACCOUNT="lab", CLUSTER_MACHINES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(120, 0.3))
    started = project.ds("start", "--wait", 0.2)
    assert "2 of 4 machines have come" in started.stderr
    assert Counter(project.cluster.jobs()) == {"RUNNING": 2, "PENDING": 2}
    assert "a limit of your account or QOS holds it back" in project.ds("status").stdout
    project.ds("monitor", timeout=120)
    is_complete(project, 120)
    leaves_nothing(project)


def test_a_node_that_goes_down_loses_no_job(project: ClusterProject) -> None:
    project.config(CLUSTER_MACHINES=4, DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.numbered(160, 1))
    project.ds("start", timeout=90)
    wait_until(lambda: len(project.starts()) > 16, "jobs to run")
    project.cluster.run("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    project.cluster.run("scontrol", "update", "NodeName=node2", "State=DRAIN", "Reason=test")
    project.ds("monitor", timeout=300)
    is_complete(project, 160)
    leaves_nothing(project)


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
    is_complete(project, 200)


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
    leaves_nothing(project)


def test_a_time_limit_above_the_partitions_is_found_before_and_taken_back(project: ClusterProject) -> None:
    project.config(SLURM_PARTITION="short", SLURM_TIME="30", DOCKER_CORES=1)
    checked = project.ds("check", code=1)
    assert "above the limit of partition short" in checked.stdout
    project.ds("setup")
    project.ds("submit", project.numbered(5))
    refused = project.ds("start", code=1, timeout=60)
    assert "SLURM_TIME is above the partition's limit" in refused.stderr
    assert project.cluster.jobs() == []
    leaves_nothing(project)


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
    is_complete(project, 300)
    assert Counter(project.starts()) == Counter(range(300))
    leaves_nothing(project)


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
    is_complete(project, 3)
    leaves_nothing(project)


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
    leaves_nothing(project)


def test_without_accounting_a_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_cluster(DS_CLUSTER_DBD="0") as cluster:
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        folder = tmp_path / "project"
        folder.mkdir()
        project = ClusterProject(folder, cluster)
        project.config()
        project.ds("run", project.numbered(20), timeout=120)
        is_complete(project, 20)
        leaves_nothing(project)
