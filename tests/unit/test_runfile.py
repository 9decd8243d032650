"""run.json: a config travels to the workers, without what is nobody else's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.errors import UsageError
from distributed_something.inputs.config import parse_config
from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.runs.runfile import read_run_file, write_run_file

CONFIG = """
APP_NAME = 'App'
AWS_PROFILE = 'mine'
SSH_KEY_NAME = 'mine.pem'
AWS_REGION = 'eu-west-1'
MACHINE_TYPE = ['m5.large', 'm6i.large']
MACHINE_PRICE = 0.25
CHECK_IF_DONE_BOOL = 'true'
EXPECTED_NUMBER_FILES = '3'
NECESSARY_STRING = 7
COMMAND = 'convert {Plate} "{output_dir}"/ö.png'
INPUTS = '{input}/{Plate}.tif'
ENVIRONMENT = {'TOKEN': 'secret-of-mine'}
OWN_KEY = 'another-secret'
"""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_the_config_comes_back_as_it_was_but_for_the_environment(store: FolderStore) -> None:
    config = parse_config(CONFIG)
    write_run_file(store, config, "aws", "run1")
    found = read_run_file(store, "App", "run1").config
    gone = {"AWS_PROFILE", "SSH_KEY_NAME", "ENVIRONMENT"}
    left = config._replace(aws_profile="", ssh_key_name="", environment={}, extra={})
    assert found == left._replace(given=config.given - gone)
    assert "EXPECTED_NUMBER_FILES" in found.given


@pytest.mark.fault(29)
def test_no_value_of_the_environment_is_written_down(store: FolderStore) -> None:
    write_run_file(store, parse_config(CONFIG), "aws", "run1")
    text = store.read("runs/App/run1/run.json").decode()
    assert "secret" not in text and "mine" not in text


def test_setting_up_again_replaces_the_config(store: FolderStore) -> None:
    for minutes in (1, 2):
        write_run_file(store, parse_config(f"APP_NAME='App'\nJOB_TIMEOUT={minutes} * 60"), "aws", "run1")
    assert read_run_file(store, "App", "run1").config.job_timeout == 120


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "missing"),
        (b"{", "does not describe a run"),
        (b"[]", "does not describe a run"),
        (b'{"app":"App","run":"run1","version":"1"}', "does not describe a run"),
        (b'{"app":"App","run":"run1","version":"1","config":{"APP_NAME":"App","NEW":1}}', "unknown key"),
        (b'{"app":"App","run":"run1","version":"1","config":{"APP_NAME":"a b"}}', "APP_NAME"),
        (b'{"app":"App","run":"run2","version":"1","config":{"APP_NAME":"App"}}', "another run"),
    ],
)
def test_what_is_no_run_file_is_refused_in_one_line(
    store: FolderStore, text: bytes | None, said: str
) -> None:
    if text is not None:
        store.write(RunPaths("App", "run1").root + "run.json", text)
    with pytest.raises(UsageError) as error:
        read_run_file(store, "App", "run1")
    assert said in error.value.what and "\n" not in error.value.what and error.value.fix
