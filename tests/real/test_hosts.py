"""Runs on hosts by ssh: a real sshd on this machine, with two names for it and some that do not work."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from clusters import wait_until
from conftest import until
from distributed_something.worker.attempt.process import marked_processes
from hosting import HostsProject, Sshd

pytestmark = pytest.mark.real


@pytest.fixture
def project(hosts: Sshd, tmp_path: Path) -> Iterator[HostsProject]:
    """A project in a folder whose name is nothing to a shell."""
    found = HostsProject(tmp_path / "it's $(touch pwned); a project", hosts)
    found.folder.mkdir()
    yield found
    for log in found.state().glob("logs/*.log"):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def machines(project: HostsProject) -> str:
    """What `ds status` says of pilots."""
    (project.state() / "pilots.json").unlink(missing_ok=True)  # an answer holds for half a minute
    return project.ds("status").stdout


def test_two_names_of_one_machine_are_two_hosts_with_a_pilot_each(project: HostsProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(60, 0.5))
    project.ds("start")
    assert len(project.first_pilots()) == 2
    assert "has one" in project.ds("start", "--wait", 0).stderr
    assert len(project.first_pilots()) == 2, "there is one pilot a host"
    said = machines(project)
    assert "on node1, since" in said
    assert "on node2, since" in said
    project.ds("monitor", timeout=120)
    project.is_complete(60)
    assert len({line["worker"].split("-")[1] for line in project.job_lines()}) == 2
    assert Counter(project.starts()) == Counter(range(60))
    project.leaves_nothing()


def test_a_limit_of_machines_and_a_host_that_is_down_is_passed_over(project: HostsProject) -> None:
    project.config(HOSTS=["down", "node2", "node1"], CLUSTER_MACHINES=1)
    said = project.ds("run", project.numbered(6), timeout=120)
    assert "no pilot: down cannot be reached: ssh: connect to host 127.0.0.1 port" in said.stderr
    assert "Connection refused; fix: see what `ssh down true` says" in said.stderr
    project.is_complete(6)
    assert len([*project.folder.glob(".ds/App.ssh/logs/*.log")]) == 1, "one pilot was started"
    project.leaves_nothing()


def test_where_no_host_can_be_reached_there_is_one_line_and_nothing_is_lost(project: HostsProject) -> None:
    project.config(HOSTS=["stranger"])
    said = project.ds("run", project.numbered(6), code=1).stderr.splitlines()
    assert "stranger cannot be reached" in said[-2]
    assert said[-2].endswith("Permission denied (publickey).")
    assert "ssh-copy-id stranger" in said[-1]
    assert project.status()["jobs"]["waiting"] == 6
    project.config()
    project.ds("start")
    project.ds("monitor", timeout=120)
    project.is_complete(6)
    project.leaves_nothing()


def test_a_silent_host_is_named_and_its_pilot_is_not_taken_for_ended(
    project: HostsProject, hosts: Sshd
) -> None:
    project.config(HOSTS=["node1"])
    project.ds("setup")
    project.ds("submit", project.numbered(16, 1))
    project.ds("start")
    wait_until(lambda: len(project.starts()) > 2, "jobs to run")
    hosts.answer("node1")
    said = machines(project)
    assert "silent: node1 cannot be reached: ssh: connect to host 127.0.0.1" in said
    assert project.status()["machines"]["running"] == 1
    left = project.ds("cleanup", "--yes", code=4)
    assert "(silent)" in left.stdout + left.stderr
    assert "a pilot may go on: node1 cannot be reached" in left.stderr
    hosts.answer()
    project.ds("monitor", timeout=120)
    project.is_complete(16)
    assert Counter(project.starts()) == Counter(range(16)), "no job was given back"
    project.leaves_nothing(killed=True)


def test_a_killed_pilot_leaves_nothing_running_and_a_start_brings_another(project: HostsProject) -> None:
    """Where Slurm ends all that a job has started, hosts have us alone."""
    project.config(HOSTS=["node1"], COMMAND="sleep {seconds}.0731; echo {n} > {output_dir}/n")
    project.ds("setup")
    project.ds("submit", project.numbered(4, 600))
    project.ds("start")
    mark = b"DS_HOST="
    jobs = [b"sleep\x00600.0731"]
    until(lambda: sum(_runs(*jobs)) >= 2, "jobs to run")
    for pid in [*project.first_pilots(), *project.workers()]:
        os.kill(pid, signal.SIGKILL)
    assert sum(_runs(*jobs)) >= 2, "they are nobody's now"
    machines(project)
    until(lambda: not sum(_runs(*jobs)), "what the killed pilot has left to be ended")
    project.config(HOSTS=["node1"])
    project.ds("start")
    assert len(project.first_pilots()) == 1
    project.ds("stop", "--now")
    project.leaves_nothing(killed=True)
    assert not [pid for pid in marked_processes(mark) if _of(pid, project)]


def _runs(*commands: bytes) -> list[bool]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(any(each in entry.read_bytes() for each in commands))
        except OSError:
            continue
    return found


def _of(pid: int, project: HostsProject) -> bool:
    try:
        return os.fsencode(project.folder) in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_a_bad_host_gets_no_more_pilots_and_another_takes_over(project: HostsProject) -> None:
    bad = project.folder.with_name("bad")
    bad.write_text("none")
    works = f'test "${{DS_HOST##*/}}" != "$(cat {bad})"'
    command = f"{works} && sleep {{seconds}} && echo {{n}} > {{output_dir}}/n"
    project.config(COMMAND=command, HOSTS=["node1", "node2", "node3"], CLUSTER_MACHINES=2)
    project.ds("setup")
    project.ds("submit", project.numbered(100, 1))
    project.ds("start")
    wait_until(lambda: project.status()["jobs"]["succeeded"] > 4, "jobs to succeed")
    bad.write_text("node1")
    assert "bad machine node1: " in project.ds("monitor", timeout=120).stderr
    assert [each["machine"] for each in project.status()["excluded"]] == ["node1"]
    project.is_complete(100)
    hosts = [file.name.rpartition("-")[2] for file in project.state().rglob("lives/*")]
    assert sorted(hosts) == ["node1", "node2", "node3"]
    project.leaves_nothing()


def test_secrets_of_this_terminal_reach_the_hosts_and_no_file(project: HostsProject) -> None:
    secret = "it's; secret"
    hashed = sha256(secret.encode()).hexdigest()
    command = f'printf %s "$TOKEN" | sha256sum | grep -q {hashed} && touch {{output_dir}}/n'
    project.config(SECRETS={"TOKEN": "env:LAB_TOKEN"}, COMMAND=command)
    project.environment["LAB_TOKEN"] = secret
    assert "2 succeeded" in project.ds("run", project.numbered(2), timeout=120).stdout
    files = [each for each in project.folder.rglob("*") if each.is_file()]
    assert not [each for each in files if secret.encode() in each.read_bytes()]
    project.leaves_nothing()


def test_check_tries_each_host_and_says_what_to_do(project: HostsProject) -> None:
    (project.folder / "files").mkdir()
    names = ["node1", "node2", "down", "stranger", "nowhere.invalid", "elsewhere", "bare"]
    project.config(HOSTS=names)
    said = project.ds("check", code=1).stdout
    for wanted in (
        "node1: answers, sees the project, Python 3.",
        "node2: answers, sees the project, Python 3.",
        "down cannot be reached: ssh: connect to host 127.0.0.1 port",
        "stranger cannot be reached:",
        "nowhere.invalid cannot be reached: ssh: Could not resolve hostname",
        "correct HOSTS, or give the name an address in ~/.ssh/config",
        f"elsewhere does not see {project.folder}",
        "put the project into a folder that all hosts share, by one path",
        "bare has no /",
        "install ds into a folder that all hosts share, by one path",
    ):
        assert wanted in said, said
    assert not [*project.folder.glob(".tmp*")]
    assert not [*project.folder.rglob("pwned")]
