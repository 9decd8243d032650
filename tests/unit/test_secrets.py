"""Where secrets lie, what a config may say of them, and that no log has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.aws.ecs.desired import InjectedWorker, desired
from distributed_something.aws.ecs.resources import Resource
from distributed_something.aws.iam.policies import Used, trusted
from distributed_something.aws.iam.roles import Role, Where, account_of
from distributed_something.aws.shape import MachineShape
from distributed_something.errors import UsageError
from distributed_something.inputs.checks.findings import work_findings
from distributed_something.inputs.config import Config, config_of, load_config, values_given
from distributed_something.inputs.secrets import read_secrets
from distributed_something.worker.attempt.mask import Mask

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:lab-AbCdEf"


def config(folder: Path, secrets: dict[str, str], more: str = "") -> Config:
    text = f"APP_NAME = 'App'\nDOCKERHUB_TAG = 'lab/image'\nCOMMAND = 'true'\nSECRETS = {secrets!r}\n{more}"
    (folder / "config.py").write_text(text)
    return load_config(folder)


def wanted(known: Config) -> tuple[Resource, ...]:
    worker = InjectedWorker("lab/worker")
    account = account_of(known, "123456789012")
    return desired(known, account, MachineShape(4, 16_000), run="r", injected=worker)


@pytest.mark.parametrize("place", ["token", "ssm:", "env:a b", "secretsmanager:lab", "https://x", "file:"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match="says not where a secret lies"):
        config(tmp_path, {"TOKEN": place})


def test_secrets_are_read_on_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from a file\n")
    file.chmod(0o600)
    known = config(tmp_path, {"A": "env:OUTER", "B": f"file:{file}", "C": "ssm:/lab/c"})
    read = read_secrets(known, {"OUTER": "from outside", "C": "given by hand"})
    assert read == {"A": "from outside", "B": "from a file", "C": "given by hand"}


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("env:OUTER", "the environment variable OUTER is not set"),
        ("ssm:/lab/t", "only AWS reads 'ssm:/lab/t', and here the environment variable TOKEN is not set"),
        ("file:/absent", "No such file"),
        ("file:{folder}/open", "other users may read"),
        ("file:{folder}/empty", "is empty"),
    ],
)
def test_a_secret_that_is_missing_is_named(tmp_path: Path, place: str, why: str) -> None:
    for name, mode in (("open", 0o644), ("empty", 0o600)):
        (tmp_path / name).write_text("x" if name == "open" else "")
        (tmp_path / name).chmod(mode)
    with pytest.raises(UsageError, match=why):
        read_secrets(config(tmp_path, {"TOKEN": place.format(folder=tmp_path)}), {})


def test_workers_elsewhere_learn_where_secrets_lie_and_no_value(tmp_path: Path) -> None:
    known = config(tmp_path, {"TOKEN": "env:OUTER"})
    assert config_of(values_given(known), "run.json").secrets == {"TOKEN": "env:OUTER"}


def test_ecs_reads_secrets_by_reference(tmp_path: Path) -> None:
    known = config(tmp_path, {"A": "ssm:/lab/a", "B": f"secretsmanager:{ARN}"}, "AWS_REGION = 'eu-west-1'\n")
    (task,) = [each for each in wanted(known) if each.name == "AppTask"]
    assert task.settings["containerDefinitions"][-1]["secrets"] == [
        {"name": "A", "valueFrom": "arn:aws:ssm:eu-west-1:123456789012:parameter/lab/a"},
        {"name": "B", "valueFrom": ARN},
    ]


def test_the_role_of_ecs_may_read_just_those(tmp_path: Path) -> None:
    where = Where("123456789012", "eu-west-1")
    known = config(tmp_path, {"A": "ssm:/lab/a", "B": f"secretsmanager:{ARN}:key::"})
    used = Used.of(known, where)
    roles = {each.role: each.policies() for each in trusted(where, used)}
    policy = roles[Role.EXECUTION]["secrets"]
    found = Used.by_policies({}, policy, "aws")
    assert {*found.secrets} == {"arn:aws:ssm:eu-west-1:123456789012:parameter/lab/a", ARN}
    assert "secrets" not in roles[Role.TASK]
    assert trusted(where, used.joined(found)) == trusted(where, used)


def test_aws_cannot_read_what_lies_on_this_machine(tmp_path: Path) -> None:
    known = config(tmp_path, {"A": "env:OUTER"})
    with pytest.raises(UsageError, match="tasks on AWS cannot read 'env:OUTER'"):
        wanted(known)


def test_a_plain_key_that_looks_like_a_secret_gets_a_warning(tmp_path: Path) -> None:
    known = config(tmp_path, {}, "GITHUB_TOKEN = 'abc'\nENVIRONMENT = {'THREADS': '2'}\n")
    assert [each.what for each in work_findings(known) if "plain text" in each.what] == [
        "GITHUB_TOKEN: if it is a secret, it is plain text: tasks, files and logs would show it"
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [b"the token is hunter22, yes"],
        [b"the token is hun", b"ter22, yes"],
        [*(bytes([each]) for each in b"the token is hunter22, yes")],
    ],
)
def test_no_secret_gets_into_a_log_however_it_arrives(parts: list[bytes]) -> None:
    written: list[bytes] = []
    mask = Mask(written.append, [b"hunter22", b"no"])
    for part in parts:
        mask(part)
    mask.flush()
    assert b"".join(written) == b"the token is ***, yes"


def test_a_text_that_only_begins_as_a_secret_is_kept() -> None:
    written: list[bytes] = []
    mask = Mask(written.append, [b"hunter22"])
    mask(b"a hunt")
    assert written == [b"a "]
    mask.flush()
    assert b"".join(written) == b"a hunt"


@pytest.mark.parametrize("secrets", [[b"hunter2", b"hunter2:full"], [b"abcd", b"cdef", b"hunter2:full"]])
@pytest.mark.parametrize(
    "text", [b"key=hunter2:full abcdef", b"hunter2:fulabcd", b"abcdabcdcdefhunter2:full"]
)
def test_a_secret_is_hidden_as_well_in_parts_as_in_one(secrets: list[bytes], text: bytes) -> None:
    whole = list[bytes]()
    mask = Mask(whole.append, secrets)
    mask(text)
    mask.flush()
    for cut in range(1, len(text)):
        written = list[bytes]()
        mask = Mask(written.append, secrets)
        mask(text[:cut])
        mask(text[cut:])
        mask.flush()
        assert b"".join(written) == b"".join(whole)
        assert not any(secret in b"".join(written) for secret in secrets)


def test_a_secret_is_hidden_in_the_reason_of_a_failure() -> None:
    mask = Mask(lambda _: None, [b"sesame-open"])
    assert mask.hide("é: ?token=sesame-open&x") == "é: ?token=***&x"
    assert mask.hide("cut off in sesame-o") == "cut off in ***"
