"""Hosts by ssh: how many are wanted, and what a shell there is given. Real ones: tests/real/test_hosts.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from distributed_something.cluster.explain import details, why_pending
from distributed_something.cluster.hosts.check import host_findings
from distributed_something.cluster.hosts.scheduler import HostsScheduler
from distributed_something.cluster.hosts.ssh import SAYS, ask
from distributed_something.cluster.pilots import SILENT, Pilot
from distributed_something.inputs.config import Config, parse_config


def config(**keys: object) -> Config:
    given = {"APP_NAME": "App", "ENGINE": "ssh", "COMMAND": "true", **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"HOSTS": ["a", "b", "c"]}, 3),
        ({"HOSTS": ["a", "b", "c"], "CLUSTER_MACHINES": 2}, 2),
        ({"HOSTS": ["a", "a"]}, 1),
        ({"HOSTS": ["a"], "CLUSTER_MACHINES": 2}, 1),
        ({"HOSTS": ["a", "b"], "ENGINE": "local"}, 1),
        ({}, 0),
    ],
)
def test_all_hosts_are_wanted_unless_there_is_a_limit(keys: dict[str, object], wanted: int) -> None:
    assert config(**keys).machines_wanted == wanted


def test_a_slip_in_the_key_is_named() -> None:
    with pytest.raises(Exception, match="unknown key HOTS: did you mean HOSTS"):
        config(HOTS=["a"])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `ssh` that runs the script here, as a host's shell would, and notes its own arguments."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/given\necho welcome\n. {tmp_path}/host\n')
    ssh.chmod(0o755)
    (tmp_path / "host").write_text("exec sh -s")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path


def test_nothing_of_a_project_is_an_argument_of_ssh_and_odd_names_stay_whole(program: Path) -> None:
    folder = program / "it's $(touch pwned) `x`"
    folder.mkdir()
    assert ask(["node1"], folder, ["see", str(folder)], {"TOKEN": "it's"})["node1"]["seen"] is True
    given = (program / "given").read_text().splitlines()
    assert given[-3:] == ["--", "node1", "exec /bin/sh -s"]
    assert "-oBatchMode=yes" in given
    assert not any("pwned" in each or "it's" in each for each in given)
    assert not [*program.rglob("pwned")]


@pytest.mark.parametrize(
    ("host", "what", "fix"),
    [
        ("echo lost >&2; echo 'me@h: Permission denied (publickey).' >&2; exit 255",
         "node1 cannot be reached: me@h: Permission denied (publickey).", "ssh-copy-id node1"),
        ("echo 'Host key verification failed.' >&2; exit 255",
         "node1 cannot be reached: Host key verification failed.", "`ssh node1` once by hand"),
        ("exit 255", "node1 cannot be reached: it said nothing", "see what `ssh node1 true` says"),
        ("echo 'This account is not available.'; exit 1", "node1: This account is not available.", "see"),
        ("echo 'cannot fork' >&2; exit 1", "node1: cannot fork", f"`ssh node1 {sys.executable} --version`"),
        (f"""echo '{SAYS}{json.dumps({"lacks": "proc"})}'""", "node1 is no Linux machine", "from HOSTS"),
    ],
)  # fmt: skip
def test_what_a_host_lacks_is_one_line_with_a_fix(program: Path, host: str, what: str, fix: str) -> None:
    (program / "host").write_text(host)
    found = ask(["node1"], program, ["see", "x"])["node1"]
    assert found.what == what
    assert fix in found.fix


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_a_host_with_another_user_is_found_by_check(program: Path) -> None:
    (program / "host").write_text(f"chown 65534 {program}/project/.tmp-*; exec sh -s")
    (program / "project").mkdir()
    (found,) = host_findings(program / "project", config(HOSTS=["node1"]))
    assert "node1 has another user (" in found.what
    assert "@node1'" in found.fix


def test_without_ssh_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask(["node1"], tmp_path, ["see", "x"])["node1"].what == "no program ssh on this computer"


def test_silent_pilots_are_shown_with_what_ssh_said_and_explained_where_none_answers(tmp_path: Path) -> None:
    waiting = HostsScheduler(tmp_path, config()).waiting
    silent = Pilot("a1", True, SILENT, "node1 cannot be reached: No route to host", "node1")
    waits = why_pending([silent], 0, waiting)
    assert waits is not None
    assert waits.why.startswith("1 pilot is silent: ")
    assert waits.why.endswith("(node1 cannot be reached: No route to host)")
    assert details([silent], 0, waits) == [
        ("pilot a1", "on node1, silent: node1 cannot be reached: No route to host")
    ]
