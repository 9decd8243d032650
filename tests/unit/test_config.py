"""The config: what is read, what is refused, and what the user is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_something.errors import USAGE, UsageError
from distributed_something.inputs.config import (
    KEYS,
    Config,
    Kind,
    check_value,
    load_config,
    parse_config,
    values_given,
)
from distributed_something.inputs.literal import read_assignments

OLD_FILE = """\
# Settings that a person edits

APP_NAME = 'CellCounts'            # everything is named after it

# IMAGE:
DOCKERHUB_TAG = 'someone/cell-counts:1.2'

# ACCOUNT:
AWS_REGION = 'us-east-1'
AWS_PROFILE = 'default'
SSH_KEY_NAME = 'your-key-file.pem'
AWS_BUCKET = 'your-bucket-name'
SOURCE_BUCKET = 'bucket-name'
WORKSPACE_BUCKET = 'bucket-name'
DESTINATION_BUCKET = 'bucket-name'
UPLOAD_FLAGS = ''

# MACHINES:
ECS_CLUSTER = 'default'
CLUSTER_MACHINES = 3
TASKS_PER_MACHINE = 1
MACHINE_TYPE = ['m5.xlarge']
MACHINE_PRICE = 0.20
EBS_VOL_SIZE = 30                  # GB
DOWNLOAD_FILES = 'False'
ASSIGN_IP = 'True'

# CONTAINERS:
DOCKER_CORES = 4
CPU_SHARES = DOCKER_CORES * 1024
MEMORY = 15000                     # MB
SECONDS_TO_START = 3*60

# QUEUES:
SQS_QUEUE_NAME = APP_NAME + 'Queue'
SQS_MESSAGE_VISIBILITY = 1*60
SQS_DEAD_LETTER_QUEUE = 'user_DeadMessages'

# LOGS:
LOG_GROUP_NAME = APP_NAME

# MONITORING:
AUTO_MONITOR = 'True'
CREATE_DASHBOARD = 'True'
CLEAN_DASHBOARD = 'True'

# DONE ALREADY?
CHECK_IF_DONE_BOOL = 'False'
EXPECTED_NUMBER_FILES = 7
MIN_FILE_SIZE_BYTES = 1
NECESSARY_STRING = ''

# OWN KEYS:
USE_PLUGINS = 'False'
PLUGINS_COMMIT = 'False'
REQUIREMENTS = ''
"""

TOML_FILE = """\
APP_NAME = "Demo"
MEMORY = 2000
CREATE_DASHBOARD = true
INPUTS = "{Plate}.tif"
THREADS = 4

[ENVIRONMENT]
LEVEL = 2
"""


def parse(*lines: str) -> Config:
    return parse_config("\n".join(["APP_NAME = 'Demo'", *lines]))


def refusal(text: str, name: str = "config.py") -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_config(text, name)
    error = caught.value
    assert error.exit_code == USAGE
    assert "\n" not in error.what + error.fix
    assert error.fix
    return error


def refused(*lines: str) -> UsageError:
    return refusal("\n".join(["APP_NAME = 'Demo'", *lines]))


@pytest.mark.fault(48)
def test_a_whole_file_of_the_reference_is_read():
    config = parse_config(OLD_FILE)
    assert config.app_name == config.log_group_name == "CellCounts"
    assert config.machine_type == ("m5.xlarge",)
    assert (config.docker_cores, config.cpu_shares, config.memory) == (4, 4096, 15000)
    assert (config.seconds_to_start, config.sqs_message_visibility) == (180, 60)
    assert config.sqs_queue_name == "CellCountsQueue"
    assert config.ssh_key_name == "your-key-file.pem"
    assert config.engine == "aws"
    assert config.extra == {
        "SOURCE_BUCKET": "bucket-name",
        "WORKSPACE_BUCKET": "bucket-name",
        "DESTINATION_BUCKET": "bucket-name",
        "UPLOAD_FLAGS": "",
        "DOWNLOAD_FILES": "False",
        "USE_PLUGINS": "False",
        "PLUGINS_COMMIT": "False",
        "REQUIREMENTS": "",
    }


@pytest.mark.fault(48)
def test_booleans_in_strings_are_booleans():
    config = parse_config(OLD_FILE)
    assert (config.create_dashboard, config.auto_monitor, config.assign_ip) == (True, True, True)
    assert config.check_if_done_bool is False


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("True", True),
        ("'True'", True),
        ("'true'", True),
        ("False", False),
        ("'False'", False),
        ("'false'", False),
    ],
)
def test_every_way_to_write_a_boolean(written, value):
    assert parse(f"CREATE_DASHBOARD = {written}").create_dashboard is value


@pytest.mark.fault(48)
@pytest.mark.parametrize("written", ["'yes'", "1", "''", "['True']"])
def test_what_is_no_boolean_is_refused(written):
    error = refused(f"CREATE_DASHBOARD = {written}")
    assert error.what.startswith("config.py:2: CREATE_DASHBOARD: ")
    assert error.fix == "write CREATE_DASHBOARD = True or CREATE_DASHBOARD = False"


def test_an_app_name_is_enough():
    config = parse()
    assert (config.cluster_machines, config.tasks_per_machine, config.docker_cores) == (1, 1, None)
    assert (config.sqs_queue_name, config.sqs_dead_letter_queue) == ("DemoQueue", "DemoDeadMessages")
    assert (config.job_timeout, config.job_retries, config.max_run_hours) == (0, 3, 24)
    assert (config.store, config.inputs, config.environment, config.extra) == ("data", (), {}, {})
    assert config.mount_bucket is False
    assert config.given == {"APP_NAME"}


def test_the_same_toml_means_the_same():
    config = parse_config(TOML_FILE, "config.toml")
    assert (config.memory, config.create_dashboard, config.inputs) == (2000, True, ("{Plate}.tif",))
    assert config.worker_environment() == {"THREADS": "4", "LEVEL": "2"}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("APP_NAME + '-x'", "Demo-x"),
        ("f'{APP_NAME}-{2 * 3:03d}-{APP_NAME!r:>8}'", "Demo-006-  'Demo'"),
        ("f'{3.14159:{1 + 5}.{2}f}'", "  3.14"),
        ("f'{7:010d}'", "0000000007"),
        ("'%s-%010d' % (APP_NAME, 7)", "Demo-0000000007"),
        ("'ab' * 2", "abab"),
        ("7 // 2 + 7 % 2 - -1", "5"),
        ("2 ** -1 + 1 / 2", "1.0"),
        ("['a', 'b'][0]", "a"),
        ("{'k': 'v'}['k']", "v"),
        ("'a' 'b'", "ab"),
        ("True", "True"),
        ("0.5", "0.5"),
        ("[1, 'two', None]", '[1, "two", null]'),
        ("{'b': (1, 2.5)}", '{"b": [1, 2.5]}'),
        ("{3, 1, 2}", "[1, 2, 3]"),
        ("r'\\d'", "\\d"),
        ("'\\d'", "\\d"),
        ("'Z\u00fcrich'", "Z\u00fcrich"),
    ],
)
def test_expressions_are_worked_out(expression, text):
    assert parse(f"OTHER_KEY = {expression}").extra == {"OTHER_KEY": text}


def test_docstrings_annotations_chains_helpers_and_redefinitions():
    config = parse('"""words"""', "cores: int = 2", "_SHARE = 1024", "DOCKER_CORES = MORE = cores",
                   "MEMORY = 'x'", "MEMORY: int = cores * 500", "CPU_SHARES = cores * _SHARE")  # fmt: skip
    assert (config.docker_cores, config.memory, config.cpu_shares) == (2, 1000, 2048)
    assert config.extra == {"MORE": "2"}


def test_none_is_as_if_not_given():
    config = parse("MEMORY = None", "AWS_PROFILE = None", "OTHER_KEY = None")
    assert (config.memory, config.aws_profile, config.extra) == (None, "", {})
    assert config.given == {"APP_NAME"}


def test_pure_functions_are_computed():
    config = parse("CORES = 4", "MEMORY = min(15000, int(CORES * 3.5e3))", "CPU_SHARES = max([1, 2]) * 1024",
                   "X = str(round(1 / 3, 2)) + 'x' * len('ab')", "Y = round(2.5) + int('7')")  # fmt: skip
    assert (config.memory, config.cpu_shares) == (14000, 2048)
    assert (config.extra["X"], config.extra["Y"]) == ("0.33xx", "9")


@pytest.mark.parametrize(
    "expression",
    ["round(1, -10**9)", "int('9' * 5000)", "int(1e300)", "max()", "len(5)", "int('x')", "min(1, 'a')",
     "str(b'x', 'utf-8')"],
)  # fmt: skip
def test_what_a_function_cannot_compute_is_refused(expression):
    assert refused("", f"OTHER = {expression}").what.startswith("config.py:3: ")


@pytest.mark.fault(70)
def test_the_fix_of_a_number_beyond_its_limit_is_the_limit():
    assert refused("", "SQS_MESSAGE_VISIBILITY = 43201").fix == "write SQS_MESSAGE_VISIBILITY = 43200"
    assert refused("", "EBS_VOL_SIZE = 3").fix == "write EBS_VOL_SIZE = 22"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("OTHER = open('x')", "a call"),
        ("OTHER = min(1, key=2)", "a call"),
        ("OTHER = 'a'.min(1)", "a call"),
        ("OTHER = os.environ", "an attribute"),
        ("import os", "an import"),
        ("from os import path", "an import"),
        ("OTHER = [x for x in 'ab']", "a comprehension"),
        ("OTHER = lambda: 1", "a lambda"),
        ("if True: OTHER = 1", "an if"),
        ("OTHER = 1 if True else 2", "an if"),
        ("for x in 'ab': OTHER = x", "a loop"),
        ("def f(): pass", "a function"),
        ("APP_NAME += 'x'", "a change in place"),
        ("OTHER, MORE = 1, 2", "an assignment to something else than a name"),
        ("APP_NAME[0] = 'x'", "an assignment to something else than a name"),
        ("OTHER: int", "a name without a value"),
        ("OTHER = (y := 1)", "an assignment inside an expression"),
        ("OTHER = {**{}}", "a ** inside a dictionary"),
        ("OTHER = [*'ab']", "a star"),
        ("OTHER = f'{open(1)}'", "a call"),
        ("1 + 1", "this"),
    ],
)
def test_what_is_not_data_is_refused_and_not_run(line, what):
    error = refused("", line)
    assert error.what.startswith(f"config.py:3: {what}")
    assert error.what.endswith(" is not allowed: a config is data, it is not run")
    assert error.fix.startswith("write NAME = value")


@pytest.mark.parametrize(
    "expression",
    [
        "10 ** 10 ** 10",
        "(-7) ** 0.5",
        "10.0 ** 1000",
        "1 / 0",
        "'a' * 10 ** 9",
        "10 ** 9 * 'a'",
        "['a' * 1000] * 10 ** 6",
        "[[]] * 10 ** 7",
        "f'{1:1000000000}'",
        "f'{1:{10 ** 9}}'",
        "f'{1.5:.1000000f}'",
        "f'{1:\u0661\u0660\u0660\u0660\u0660}'",
        "'%1000000000d' % 1",
        "'%.1000000f' % 1",
        "'%*d' % (10 ** 9, 1)",
        "'%((a)b)1000000000d' % {'(a)b': 1}",
        "'%s %s' % 1",
        "1" * 5000,
        "0x" + "f" * 5000,
        "[" * 5000,
        "-" * 100_000 + "1",
        "+".join("1" * 100_000),
        "(" * 250 + ")" * 250,
        "[" * 80 + "]" * 80,
        "'" + "a" * 600_000 + "'",
        "b'bytes'",
        "2j",
        "...",
        "{[]: 1}",
        "'a' + 1",
        "-'a'",
        "[1][5]",
        "{'a': 1}['b']",
        "'\\0'",
        "'\\ud800'",
    ],
)
def test_bombs_and_nonsense_are_refused(expression):
    refused(f"OTHER = {expression}")


def test_a_dotted_key_without_end_is_refused_in_toml():
    found = refusal('APP_NAME = "D"\na' + ".a" * 90_000 + " = 1\n", "config.toml")
    assert found.what == "config.toml:2: this cannot be read: more than 200 dots in a line"


def test_keys_of_toml_have_the_lines_in_which_they_are_first_set():
    lines = ['APP_NAME = "D"', '"AWS_REGION" = "us-east-1"', "", "'DOCKER_CORES' = 2", "ENVIRONMENT.A = 1"]
    text = "\n".join([*lines, "[x]", "y = 1"])
    places = {each.name: each.line for each in read_assignments(text, "config.toml")}
    assert places == {"APP_NAME": 1, "AWS_REGION": 2, "DOCKER_CORES": 4, "ENVIRONMENT": 5, "x": 6}


def test_bombs_in_steps_are_refused():
    refused("a = 'x' * 1000", *["a = a + a"] * 60, "OTHER = a")
    refused("a = []", *["a = [a, a]"] * 40, "OTHER = a")
    refused("a = 9", *["a = a * a"] * 60, "OTHER = a")


def test_a_huge_file_is_refused():
    assert "longer than" in refusal("#" * 1_000_001).what


@pytest.mark.parametrize(
    "text", ["\0", "A = '\ud800'", "APP_NAME = 'x", "APP_NAME = (\n\n", " APP_NAME = 'x'"]
)
def test_what_is_no_python_is_refused(text):
    assert refusal(text).what.startswith("config.py:1: this cannot be read")


def test_names_resolve_in_order():
    assert refused("LOG_GROUP_NAME = where", "where = 'x'").what == (
        "config.py:2: where is used before it is defined (line 3)"
    )
    assert refused("CREATE_DASHBOARD = true").what == "config.py:2: true is not defined"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("MEMORY = '15 GB'", "MEMORY: '15 GB' is not a whole number of MB"),
        ("MEMORY = 0.5", "MEMORY: 0.5 is not a whole number of MB"),
        ("MEMORY = True", "MEMORY: True is not a whole number of MB"),
        ("JOB_TIMEOUT = 1e999", "JOB_TIMEOUT: inf is not a number of seconds"),
        ("JOB_TIMEOUT = -1", "JOB_TIMEOUT: -1 is below 0 seconds"),
        ("JOB_RETRIES = 0", "JOB_RETRIES: 0 is below 1"),
        ("MAX_RUN_HOURS = 0", "MAX_RUN_HOURS: 0 is not above 0 hours"),
        ("EBS_VOL_SIZE = 8", "EBS_VOL_SIZE: 8 is below 22 GB"),
        ("SQS_MESSAGE_VISIBILITY = 12*3600 + 1", "SQS_MESSAGE_VISIBILITY: 43201 is above 43200 seconds"),
        ("JOB_RETRIES = 10 ** 20", f"JOB_RETRIES: {10**20} is above {10**13}"),
        ("ENGINE = 'gcp'", "ENGINE: 'gcp' is none of local, slurm, ssh, aws, rehearsal"),
        ("COMMAND = ['a', 'b']", "COMMAND: ['a', 'b'] is not text"),
        ("HOSTS = ['node1', '-oProxyCommand=touch x']",
         "HOSTS: '-oProxyCommand=touch x' is not the name of a host"),
        ("HOSTS = 'me@-x'", "HOSTS: 'me@-x' is not the name of a host"),
        ("HOSTS = ['a;reboot']", "HOSTS: 'a;reboot' is not the name of a host"),
        ("HOSTS = ['$(reboot)']", "HOSTS: '$(reboot)' is not the name of a host"),
        ("HOSTS = ['../x']", "HOSTS: '../x' is not the name of a host"),
        ("HOSTS = ['a\\nb']", "HOSTS: 'a\\nb' is not the name of a host"),
        ("MACHINE_TYPE = []", "MACHINE_TYPE: is empty"),
        ("MACHINE_TYPE = 'big'", "MACHINE_TYPE: 'big' is not a type of machine"),
        ("INPUTS = [1]", "INPUTS: [1] is not a text or a list of texts"),
        ("STORE = ''", "STORE: is empty"),
        ("STORE = 'a\\0b'", "STORE: 'a\\x00b' has a character that no text can have"),
        ("HANDLER = 'module.function'", "HANDLER: 'module.function' does not look like module:function"),
        ("AWS_REGION = 'us-east-1a'", "AWS_REGION: 'us-east-1a' is not the name of a region"),
        ("AWS_BUCKET = 's3://mine'", "AWS_BUCKET: 's3://mine' is not the bare name of a bucket"),
        ("SQS_QUEUE_NAME = '.'", "SQS_QUEUE_NAME: '.' may have only letters, digits, - and _, 80 at most"),
        ("SQS_DEAD_LETTER_QUEUE = 'arn:x'",
         "SQS_DEAD_LETTER_QUEUE: 'arn:x' is neither the name of a queue nor its ARN"),
        ("ENVIRONMENT = ['A']", "ENVIRONMENT: ['A'] is not a dictionary of names and texts"),
        ("ENVIRONMENT = {'A=B': 1}", "ENVIRONMENT: 'A=B' cannot name an environment variable"),
        ("ENVIRONMENT = {'A': []}", "ENVIRONMENT: the value of 'A' is neither text, number, True nor False"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_with_their_line(line, what):
    error = refused("", line)
    assert error.what == f"config.py:3: {what}"
    assert error.fix.startswith(f"write {line.split()[0]} = ")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("loca", "local"), ("LOCAL", "local"), ("rehersal", "rehearsal"), ("asw", "aws"), ("azure", "aws")],
)
def test_the_fix_of_a_slip_is_the_nearest_value(written, meant):
    assert refused("", f"ENGINE = {written!r}").fix == f"write ENGINE = {meant!r}"


def test_the_fix_shows_a_value_that_would_do():
    assert refused("MEMORY = '15 GB'").fix == "write MEMORY = 15000"
    for key in KEYS:
        assert check_value(key, key.default_for("X") if key.example is None else key.example) is not None


@pytest.mark.parametrize(
    "name", ["''", "'a/b'", "'..'", "'a b'", "'-a'", "'a' * 65", "7", "'a\\n'", "'\u00e9'", "True"]
)
def test_an_unsafe_app_name_is_refused_with_the_reason(name):
    assert refusal(f"APP_NAME = {name}").what.startswith("config.py:1: APP_NAME: ")


def test_a_missing_app_name_is_refused():
    assert refusal("").what == "config.py: APP_NAME is missing: every resource is named after it"


def test_numbers_may_be_written_as_text():
    config = parse(
        "MACHINE_PRICE = '0.13'", "CLUSTER_MACHINES = '2'", "SECONDS_TO_START = 3*60/2", "MEMORY = 3e3"
    )
    assert (config.machine_price, config.cluster_machines, config.seconds_to_start) == (0.13, 2, 90)
    assert config.memory == 3000
    assert isinstance(config.memory, int)


@pytest.mark.fault(20)
@pytest.mark.parametrize(("written", "value"), [("7", "7"), ("0.5", "0.5"), ("'_out'", "_out"), ("''", "")])
def test_a_necessary_string_is_text_even_if_written_as_a_number(written, value):
    assert parse(f"NECESSARY_STRING = {written}").necessary_string == value


def test_lists_texts_and_tables():
    arn = "arn:aws:sqs:some-region:111111100000:DeadMessages"
    config = parse("INPUTS = ['a', 'b']", "MACHINE_TYPE = 'c5.large'", f"SQS_DEAD_LETTER_QUEUE = {arn!r}",
                   "ENVIRONMENT = {'A': 1, 'B': True, 'C': 'x', 'OTHER': 2}", "OTHER = 1")  # fmt: skip
    assert (config.inputs, config.machine_type) == (("a", "b"), ("c5.large",))
    assert config.sqs_dead_letter_queue == arn
    assert config.worker_environment() == {"A": "1", "B": "True", "C": "x", "OTHER": "2"}


def test_command_and_handler_exclude_each_other():
    assert parse("HANDLER = 'pkg.mod:make.run'", "COMMAND = ''").handler == "pkg.mod:make.run"
    error = refused("COMMAND = 'x'", "", "HANDLER = 'm:f'")
    assert error.what == "config.py:4: both COMMAND and HANDLER are given: a job runs one of them"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("MEMROY", "MEMORY"), ("COMAND", "COMMAND"), ("INPUT", "INPUTS"), ("MACHINE_TYPES", "MACHINE_TYPE"),
     ("AWS_REGON", "AWS_REGION"), ("JOB_TIME_OUT", "JOB_TIMEOUT"), ("STOER", "STORE"),
     ("APPNAME", "APP_NAME")],
)  # fmt: skip
def test_a_slip_in_a_key_is_an_error(slip, meant):
    error = refused(f"{slip} = 1")
    assert error.what == f"config.py:2: unknown key {slip}: did you mean {meant}?"
    assert error.fix == f"write {meant}; if the command reads {slip}, put it into ENVIRONMENT"


@pytest.mark.parametrize(
    "name",
    ["SOURCE_BUCKET", "WORKSPACE_BUCKET", "DESTINATION_BUCKET", "UPLOAD_FLAGS", "DOWNLOAD_FILES", "THREADS",
     "CONDA_ENV", "PLUGINS_DIR", "USE_PLUGINS", "UPDATE_PLUGINS", "PLUGINS_COMMIT", "INSTALL_REQUIREMENTS",
     "REQUIREMENTS", "REQUIREMENTS_FILE", "OMP_NUM_THREADS", "OUTPUT_DIR", "INPUT_DIR", "OUTPUT_BUCKET",
     "MEMORY_LIMIT", "SCRIPT_NAME", "MODEL", "MODE", "VERSION", "TIMEOUT", "AWS_DEFAULT_REGION"],
)  # fmt: skip
def test_own_keys_of_an_app_are_handed_on(name):
    assert parse(f"{name} = 'x'").worker_environment() == {name: "x"}


@pytest.mark.parametrize(
    "bad", ["MEMORY = 'x'\nimport os", "MEMORY = 'x'\nJOB_RETRIES = 0", "MEMORY = 'x'\n!"]
)
def test_the_first_error_is_reported(bad):
    line = 3 if bad.endswith("!") else 2  # nothing of a file that does not parse is known
    assert refusal(f"APP_NAME = 'Demo'\n{bad}").what.startswith(f"config.py:{line}: ")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("MEMORY = '15 GB'", "MEMORY: '15 GB' is not a whole number of MB"),
        ("MEMROY = 1", "unknown key MEMROY: did you mean MEMORY?"),
        ("memory = 1", "unknown key 'memory': keys are in capitals"),
        ('"A B" = 1', "'A B' cannot name an environment variable"),
        ('"A\\nB" = 1', "'A\\nB' cannot name an environment variable"),
        ("MEMORY 1", "this cannot be read as TOML: Expected '=' after a key in a key/value pair"),
        ("X = 1" + "0" * 4999, "this cannot be read as TOML: Exceeds the limit"),
        ("X = " + "[" * 5000, "this cannot be read as TOML: "),
        ("a" + ".a" * 150 + " = 1", "this cannot be read as TOML: lists are nested too deeply"),
    ],
)
def test_errors_in_toml_have_lines_too(line, what):
    found = refusal(f'APP_NAME = "Demo"\n\n{line}\n', "config.toml").what
    assert re.match(r"config\.toml:\d+: ", found)
    assert what in found
    assert found.startswith("config.toml:3: ") or "TOML: " in found or "\\" in line


def test_fixes_for_toml_are_toml():
    import tomllib

    for key in KEYS:
        wrong = f"{key.name} = 1979-05-27"
        fix = refusal(wrong, "config.toml").fix.removeprefix("write ").split(" or ")[0].split("; if ")[0]
        assert list(tomllib.loads(fix)) == [key.name]


def test_a_new_short_key_that_does_not_fit_may_be_the_program_s_own():
    found = refusal("APP_NAME = 'x'\nNOTIFY = {'a': 1}")
    assert "NOTIFY: " in found.what
    assert found.fix.endswith("; if NOTIFY is your program's own, put it into ENVIRONMENT")
    assert parse_config("APP_NAME = 'x'\nNOTIFYD = 'mine'").extra == {"NOTIFYD": "mine"}


def test_addresses_of_people_are_not_kept_with_the_run():
    config = parse_config("APP_NAME = 'x'\nNOTIFY = 'https://hooks.slack.com/services/T/B/X'")
    assert "NOTIFY" not in values_given(config)


def test_toml_dates_are_handed_on_as_text():
    assert parse_config('APP_NAME = "D"\nDAY = 1979-05-27', "config.toml").extra == {"DAY": "1979-05-27"}


def test_other_names_of_files_are_refused():
    assert "neither in .py nor in .toml" in refusal("APP_NAME = 'x'", "config.yaml").what


def test_load_reads_the_one_file_there(tmp_path: Path):
    (tmp_path / "config.py").write_bytes(b"\xef\xbb\xbfAPP_NAME = 'Demo'\r\nMEMORY = 100\r\n")
    assert load_config(tmp_path).memory == 100


def test_load_reads_toml(tmp_path: Path):
    (tmp_path / "config.toml").write_text(TOML_FILE)
    assert load_config(tmp_path).app_name == "Demo"


def loading(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(folder)
    assert caught.value.fix
    return caught.value.what


def test_load_wants_exactly_one_file(tmp_path: Path):
    assert loading(tmp_path) == f"{tmp_path}: no config.py and no config.toml here"
    (tmp_path / "config.py").write_text("APP_NAME = 'x'")
    (tmp_path / "config.toml").write_text("APP_NAME = 'x'")
    assert loading(tmp_path) == f"{tmp_path}: both config.py and config.toml are here"


def test_load_refuses_what_is_no_text(tmp_path: Path):
    (tmp_path / "config.py").write_bytes(b"APP_NAME = 'x'\n# \xff\n")
    assert loading(tmp_path) == "config.py:2: this is not UTF-8 text"


def test_load_refuses_a_folder_of_that_name(tmp_path: Path):
    (tmp_path / "config.py").mkdir()
    assert loading(tmp_path) == f"{tmp_path / 'config.py'}: Is a directory"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_key_is_described_and_its_default_is_valid(key):
    assert key.meaning
    assert bool(key.shape) == bool(key.shape_says)
    default = key.default_for("Demo")
    if default is not None:
        assert check_value(key, default) == default
    else:
        assert key.example is not None
    if key.kind in (Kind.TEXT, Kind.LOOSE_TEXT):
        assert isinstance(default, str) or key.required


def test_the_table_and_the_config_have_the_same_fields():
    assert list(Config._fields) == [*(key.field for key in KEYS), "extra", "given"]


def test_the_config_is_frozen_and_a_copy_can_differ():
    config = parse("ENVIRONMENT = {'A': 'b'}")
    with pytest.raises(AttributeError):
        config.engine = "local"  # type: ignore[misc]
    assert config._replace(engine="local").engine == "local"
    assert json.dumps(config._asdict(), default=list)


PIECES = "AZaz_019'\"\\#=+-*/%.,:;()[]{} \n\r\t\0\x0c\ud800\u2028\u00e9"


def survives(text: str, name: str) -> None:
    try:
        parse_config(text, name)
    except UsageError as error:
        assert len(error.what.splitlines()) == 1
        assert error.fix


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60).map(lambda data: data.decode(errors="surrogateescape")),
    st.sampled_from(["config.py", "config.toml"]),
)
@example("APP_NAME = 'x'\n\x0cMEMORY = '\u2028'", "config.py")
def test_any_text_is_read_or_refused(text, name):
    survives(text, name)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(OLD_FILE)), st.integers(0, 12), st.text(PIECES, max_size=6))
def test_any_damage_to_a_file_is_read_or_refused(at, length, instead):
    survives(OLD_FILE[:at] + instead + OLD_FILE[at + length :], "config.py")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(PIECES, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(PIECES, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*(key.name for key in KEYS), "OTHER"]), VALUES)
def test_any_value_of_any_key_is_read_or_refused(name, value):
    survives(f"APP_NAME = 'Demo'\n{name} = {value!r}", "config.py")
