"""`ds check`, decided: each thing that can be wrong, as a finding, from the config and what AWS answers."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.aws.checks import findings
from distributed_something.aws.iam.account import Found
from distributed_something.aws.iam.policies import Used
from distributed_something.aws.iam.roles import Where
from distributed_something.cli.views.preview import show_findings
from distributed_something.console import Console
from distributed_something.errors import DsError, UsageError
from distributed_something.inputs.checks import findings as check
from distributed_something.inputs.checks.findings import Check, Finding, Room, Severity
from distributed_something.inputs.checks.present import Lookup, Presence, look_for
from distributed_something.inputs.config import Config, parse_config
from distributed_something.inputs.fleetfile import Fleet, parse_fleet
from distributed_something.inputs.handler import parameters_needed
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.inputs.templates.template import CommandTemplate
from distributed_something.local.check import (
    disk_findings,
    folder_findings,
    memory_findings,
    program_findings,
)
from distributed_something.local.store import FolderStore


def config(**keys: object) -> Config:
    given = {"APP_NAME": "App", "AWS_REGION": "eu-west-1", "COMMAND": "true", **keys}
    return parse_config(
        "".join(f"{name} = {value!r}\n" for name, value in given.items() if value is not None)
    )


def worst(found: Iterable[Finding]) -> tuple[Severity, str]:
    """The worst finding, and what it says."""
    every = sorted(found, key=lambda each: list(Severity).index(each.severity))
    return every[0].severity, every[0].what


def type_of(
    name: str, vcpus: int = 4, mib: int = 16_384, kind: str = "x86_64", **more: Any
) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": vcpus},
        "MemoryInfo": {"SizeInMiB": mib},
        "ProcessorInfo": {"SupportedArchitectures": ["i386", kind]},
        "SupportedUsageClasses": ["on-demand", "spot"],
        **more,
    }


# -- Findings as such


@pytest.mark.fault(72)
def test_keys_of_no_meaning_here_are_noticed() -> None:
    own = parse_config("APP_NAME='A'\nBUDGET=5\nMAX_HOURS=2\nENVIRONMENT={'SECRETS': 'x'}\n")
    found = list(check.key_findings(own))
    assert [each.severity for each in found] == [Severity.NOTICE] * 2
    assert found[0].what.startswith("BUDGET: no key of this system")
    assert found[1].fix.startswith("if MAX_RUN_HOURS is meant, write that; ")
    assert check.exit_code(found) == 0


def test_the_exit_code_tells_a_bad_file_from_other_errors() -> None:
    bad = check.refused(UsageError("a", "b"))
    other = check.error("a", "b")
    assert check.exit_code([check.ok("a"), check.warning("a", "b")]) == 0
    assert check.exit_code([other]) == 1
    assert check.exit_code([other, bad]) == 2


def test_a_check_that_cannot_be_made_is_a_finding() -> None:
    def denied() -> Iterable[Finding]:
        yield check.ok("the first half")
        raise DsError("listing: you may not (AccessDenied)", "ask for the right")

    found = check.make_all([Check("the quotas", denied), Check("the rest", lambda: [check.ok("fine")])])
    assert [each.what for each in found] == [
        "the first half",
        "could not check the quotas: listing: you may not (AccessDenied)",
        "fine",
    ]
    assert check.exit_code(found) == 0


def test_findings_are_lines_in_a_pipe_the_worst_first_and_objects_for_programs() -> None:
    found = [check.ok("fine"), check.error("broken", "mend it")]
    out = io.StringIO()
    show_findings(Console(out=out, err=io.StringIO()), found)
    assert out.getvalue().splitlines()[1:] == ["error\tbroken\tmend it", "ok\tfine\t"]
    out = io.StringIO()
    show_findings(Console(json=True, out=out, err=io.StringIO()), found)
    assert json.loads(out.getvalue().splitlines()[1]) == {
        "severity": "error",
        "what": "broken",
        "fix": "mend it",
    }


# -- This machine


@pytest.mark.fault(67)
@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("convert {Plate}.tif x.png", ["convert"]),
        ("THREADS=2 ./run.sh {Plate}", ["./run.sh"]),
        ("'my program' x", []),
        ("{Program} x", []),
        ("set -e; align {Plate} | sort > x", ["align", "sort"]),
        ("cd x && make", []),
        ("for s in 1 2; do measure $s; done; export A=1", ["measure"]),
        ("if test -e x; then a; else ! b; fi", ["test", "a", "b"]),
        ("x=$(list {Plate}); echo $x", ["list", "echo"]),
        ("f() { x; }; f", []),
    ],
)
def test_the_programs_of_a_command_are_those_that_are_programs(command: str, programs: list[str]) -> None:
    assert sorted(CommandTemplate(command).programs) == sorted(programs)


@pytest.mark.fault(67)
def test_a_relative_program_is_looked_for_where_the_job_runs(tmp_path: Path) -> None:
    (tmp_path / "align.sh").touch(0o755)
    found, *_ = program_findings(config(COMMAND="./align.sh {Plate}", ENGINE="local"), tmp_path)
    assert found.severity is Severity.ERROR
    assert found.fix == "write \"$DS_PROJECT_DIR/align.sh\", and FILES = ['align.sh'] to have it travel"


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    missing = program_findings(config(ENGINE="local", COMMAND="no-such-program {Plate}"), tmp_path)
    assert worst(missing) == (Severity.ERROR, "COMMAND: no program no-such-program on this machine")
    assert worst(program_findings(config(ENGINE="local", COMMAND="sh x"), tmp_path))[0] is Severity.OK


def test_a_function_that_cannot_be_imported_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("import os\nos.environ['DS_WORK_DIR']\ndef run(job): ...\n")
    (tmp_path / "bad.py").write_text("import no_such_module\ndef run(job): ...\n")
    good, bad = (config(ENGINE="local", COMMAND=None, HANDLER=f"{name}:run") for name in ("good", "bad"))
    assert worst(program_findings(good, tmp_path))[0] is Severity.OK
    severity, what = worst(program_findings(bad, tmp_path))
    assert severity is Severity.ERROR and "No module named 'no_such_module'" in what


def test_memory_and_processors_against_slots() -> None:
    gib = 1 << 30
    assert worst(memory_findings(config(DOCKER_CORES=2), 8 * gib, 2))[0] is Severity.OK
    assert (
        "TASKS_PER_MACHINE x MEMORY"
        in worst(memory_findings(config(MEMORY=9_000, DOCKER_CORES=1), 8 * gib, 2))[1]
    )
    assert "MB of memory each" in worst(memory_findings(config(DOCKER_CORES=64), 8 * gib, 64))[1]
    assert "2 processors" in worst(memory_findings(config(DOCKER_CORES=5), 8 * gib, 2))[1]


def test_folders_that_a_run_cannot_write_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list(folder_findings({tmp_path, tmp_path / "new" / "data"})) == []
    found = list(folder_findings({tmp_path, tmp_path / "file" / "data"}))
    assert [each.what for each in found] == [
        f"{tmp_path}/file/data: {tmp_path}/file is a file, and a folder is needed there"
    ]


def test_a_project_without_the_right_to_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir(mode=0o555)
    if os.access(tmp_path / "project", os.W_OK):
        pytest.skip("root may write everywhere")
    found = list(folder_findings({tmp_path / "project" / "data"}))
    assert [each.severity for each in found] == [Severity.ERROR]


def test_a_disk_is_looked_at_once_and_also_before_its_folder_is_there(tmp_path: Path) -> None:
    assert len(list(disk_findings({tmp_path / "data", tmp_path / "a" / "b"}))) == 1


def test_missing_inputs_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "in" / "P1.tif").write_text("x")
    jobs = tmp_path / "jobs.json"
    jobs.write_text('{"Batch": "in", "groups": [{"Plate": "P1"}, {"Plate": "P2"}]}')
    store = FolderStore(tmp_path / "data")
    own = config(INPUTS=["{Batch}/{Plate}.tif"], COMMAND="true {Plate}")
    severity, what = worst(check.input_findings(own, JobFile(jobs), store, "data"))
    assert severity is Severity.WARNING  # the other job can run
    assert what == "INPUTS: 1 of 2 jobs lacks an input, such as in/P2.tif of job 2"
    (tmp_path / "data" / "in" / "P2.tif").write_text("xyz")
    (found,) = check.input_findings(own, JobFile(jobs), store, "data")
    assert found == check.ok("INPUTS: those of 2 jobs are there, at most 3 B a job")


@pytest.mark.fault(67)
@pytest.mark.parametrize("engine", ["local", "aws"])
def test_the_inputs_of_every_job_are_looked_for(tmp_path: Path, engine: str) -> None:
    store = FolderStore(tmp_path / "data")
    for number in range(100):
        store.write(f"in/{number}.tif", b"x" * number)
    (tmp_path / "jobs.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(101)))
    own = config(ENGINE=engine, INPUTS=["in/{n}.tif", "in/"], COMMAND="true")
    found = look_for(own, JobFile(tmp_path / "jobs.jsonl"), store)
    assert found == Presence(101, 1, "in/100.tif", 101, sum(range(100)) + 99, 100)


def test_a_folder_much_larger_than_the_jobs_need_is_not_listed_to_its_end(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "data")
    for number in range(2000):
        store.write(f"in/{number:04}.tif", b"x")
    lookup = Lookup(store, lists=True)
    wanted = [f"in/{number:04}.tif" for number in range(1990, 2020)]
    assert [bool(lookup.of(wanted)[key]) for key in wanted] == [True] * 10 + [False] * 20


@pytest.mark.fault(73)
def test_inputs_that_do_not_fit_on_the_disk_are_a_warning(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "data")
    store.write("in/a", b"x" * 600)
    (tmp_path / "jobs.jsonl").write_text("{}\n")
    own, jobs = config(INPUTS=["in/a"], COMMAND="true"), JobFile(tmp_path / "jobs.jsonl")
    room = Room(1000, 2, "the disk of x", "make room")
    _, found = check.input_findings(own, jobs, store, "data", room)
    assert found.what == (
        "INPUTS: 2 jobs at a time with 600 B of inputs (job 1), and the disk of x has 1.0 kB"
    )
    assert len(list(check.input_findings(own, jobs, store, "data", room._replace(slots=1)))) == 1


@pytest.mark.fault(67)
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"COMMAND": "no-such-program {Plate}"}, "COMMAND: no program no-such-program on this machine"),
        ({"COMMAND": "./align.sh {Plate}"}, "COMMAND: ./align.sh is looked for in the job's own folder"),
        ({"COMMAND": "for x in {Plate}; echo $x; done"}, "COMMAND: the shell refuses it"),
        ({"COMMAND": "cat {input_dir}/*", "INPUTS": ["in/{Plate}"]}, "INPUTS: 2 of 2 jobs lack an input"),
        ({"COMMAND": None, "HANDLER": "work:proces"}, "has no function proces: did you mean process?"),
        ({"COMMAND": None, "HANDLER": "wrok:process"}, "HANDLER: wrok:process cannot be imported"),
        (
            {"COMMAND": "true {Plate}", "OUTPUT": "out/{Plate}", "COLLECT": "colect:join"},
            "COLLECT: colect:join cannot be imported",
        ),
        ({"COMMAND": None, "HANDLER": "work:process"}, "its parameter Plat is no key of the job"),
    ],
)
def test_what_check_calls_an_error_is_refused_before_anything_is_queued(
    project: DsProject, keys: dict[str, Any], said: str
) -> None:
    (project.folder / "work.py").write_text("def process(job, Plat, Well='A1', *, output_dir): ...\n")
    project.config(**keys)
    jobs = project.jobs([{"Plate": "P1"}, {"Plate": "P2"}])
    assert any(
        said in line for line in project.ds("check", jobs, code=None).stdout.splitlines() if "error\t" in line
    )
    assert said in project.ds("run", jobs, code=None).stderr
    project.ds("setup")
    assert said in project.ds("submit", jobs, code=None).stderr
    assert project.status()["jobs"]["total"] == 0


def test_jobs_without_their_inputs_are_said_and_the_others_run(project: DsProject) -> None:
    project.config(COMMAND="cat {input_dir}/*", INPUTS=["in/{Plate}"], JOB_RETRIES=1)
    (project.folder / "data/in").mkdir(parents=True)
    (project.folder / "data/in/P1").touch()
    said = project.ds("run", project.jobs([{"Plate": "P1"}, {"Plate": "P2"}]), code=3)
    assert "note: INPUTS: 1 of 2 jobs lacks an input, such as in/P2 of job 2" in said.stderr
    assert "1 succeeded" in said.stdout


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("def f(job, Plate, Well='x', *, Site, attempt): ...", {"Plate", "Site"}),
        ("def f(*, Site, Plate): ...", {"Plate"}),  # the first gets the job
        ("async def f(anything, Plate): yield", {"Plate"}),
        ("try:\n  from fast import f\nexcept ImportError:\n  def f(job, Plate): ...", set()),
        ("import functools\n@functools.cache\ndef f(job, Plate): ...", set()),
        ("from elsewhere import *", set()),
        ("class C:\n  def __call__(self, Plate): ...\nf = C()", set()),
    ],
)
def test_the_parameters_of_a_handler_are_read_where_they_can_be(
    tmp_path: Path, source: str, needs: set[str]
) -> None:
    (tmp_path / "m.py").write_text(source)
    assert parameters_needed("m:f", tmp_path / "m.py") == needs


@pytest.mark.parametrize(
    "command",
    ["which no-such || exit 0", "if command -v no-such; then no-such; fi", "PATH=/x:$PATH; no-such {Plate}",
     ". ./env.sh; no-such", "module load x && no-such"],
)  # fmt: skip
def test_a_program_that_perhaps_is_not_started_is_a_warning(tmp_path: Path, command: str) -> None:
    found = program_findings(config(COMMAND=command, ENGINE="local"), tmp_path)
    assert Severity.ERROR not in {each.severity for each in found}


def test_check_on_this_machine_needs_no_library_of_aws(project: DsProject) -> None:
    project.config(COMMAND="sh -c true", JOB_TIMEOUT=10)
    (project.folder / "boto3.py").write_text("raise ImportError('there is no boto3 here')\n")
    (project.folder / "botocore.py").write_text("raise ImportError('there is no botocore here')\n")
    project.environment["PYTHONPATH"] = str(project.folder)
    jobs = project.jobs([{"Plate": "P1"}])
    lines = [json.loads(line) for line in project.ds("check", jobs, "--json").stdout.splitlines()]
    assert {each["severity"] for each in lines} == {"ok"}
    assert any("1 job, and each fits" in each["what"] for each in lines)


def test_a_job_file_that_does_not_fit_is_exit_code_2(project: DsProject) -> None:
    project.config(COMMAND="echo {Plate}")
    found = project.ds("check", project.jobs([{"Well": "A1"}]), code=2)
    assert "error\t" in found.stdout and "Plate" in found.stdout


@pytest.mark.parametrize("given", [{"OUTPUT": "../out"}, {"INPUTS": ["./in/{Plate}.tif"]}])
def test_a_path_that_no_store_has_is_refused_before_anything_is_queued(
    given: dict[str, Any], project: DsProject
) -> None:
    project.config(COMMAND="true {Plate}", **given)
    (name,) = given
    assert f"error: {name}: " in project.ds("run", project.jobs([{"Plate": "P1"}]), code=2).stderr


def test_what_two_checks_find_is_said_once(project: DsProject) -> None:
    project.config(COMMAND="true {Plate}", INPUTS=["in/{Plate}.tif"])
    found = project.ds("check", project.jobs([{"Well": "A1"}]), code=2)
    assert found.stdout.count("{Plate} is not a key") == 1
    assert "1 error, 1 warning, " in found.stderr
    project.config(COMMAND=None)
    found = project.ds("check", project.jobs([{"Well": "A1"}]), code=2)
    assert found.stdout.count("neither COMMAND nor HANDLER") == 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"TIMEOUT_RETRY": 2}, "TIMEOUT_RETRY: raises JOB_TIMEOUT, and that is not given"),
        ({"MEMORY_RETRY": 2, "ENGINE": "aws"}, "MEMORY_RETRY: jobs have no memory limit of their own here"),
        ({"MEMORY_RETRY": 2, "ENGINE": "local"}, "MEMORY_RETRY: jobs have no memory limit of their own here"),
        (
            {"MEMORY_RETRY": 2, "ENGINE": "local", "DOCKERHUB_TAG": "x/y:1"},
            "MEMORY_RETRY: raises MEMORY, and that is not given",
        ),
    ],
)
def test_a_factor_without_a_limit_that_it_could_raise_is_a_warning(keys: dict[str, Any], said: str) -> None:
    assert said in " ".join(each.what for each in check.work_findings(config(**keys)))


def test_no_time_limit_is_asked_for_where_the_worker_in_the_image_knows_none() -> None:
    old = config(COMMAND=None, ENGINE="aws")
    assert not list(check.work_findings(old))
    assert "JOB_TIMEOUT" in worst(check.work_findings(config(ENGINE="aws")))[1]


# -- AWS: what the files say


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("lab/image:1.2", Severity.OK),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/lab/image:1", Severity.OK),
        ("lab/image@sha256:" + "0" * 64, Severity.OK),
        ("lab/image", Severity.WARNING),
        ("lab/image:latest", Severity.WARNING),
        ("Lab/Image:1", Severity.ERROR),
        ("user/image:tag", Severity.ERROR),
        ("", Severity.ERROR),
    ],
)
def test_the_name_of_the_container_image(name: str, severity: Severity) -> None:
    assert worst(check.image_findings(config(DOCKERHUB_TAG=name)))[0] is severity


def test_names_of_queues_that_are_too_long_or_the_same() -> None:
    assert "too long" in worst(findings.name_findings(config(SQS_QUEUE_NAME="q" * 80)))[1]
    same = config(SQS_QUEUE_NAME="jobs", SQS_DEAD_LETTER_QUEUE="jobs")
    assert worst(findings.name_findings(same))[0] is Severity.ERROR
    assert not list(findings.name_findings(config()))


def test_a_lease_must_last_as_long_as_a_job_where_nobody_renews_it() -> None:
    old = {"COMMAND": None, "SQS_MESSAGE_VISIBILITY": 120}
    assert "shorter than JOB_TIMEOUT" in worst(findings.lease_findings(config(**old, JOB_TIMEOUT=600)))[1]
    assert "run twice" in worst(findings.lease_findings(config(**old)))[1]
    assert not list(findings.lease_findings(config(SQS_MESSAGE_VISIBILITY=120, JOB_TIMEOUT=600)))
    assert worst(findings.lease_findings(config(SQS_MESSAGE_VISIBILITY=5)))[0] is Severity.WARNING
    (longest,) = findings.lease_findings(config(COMMAND=None, SQS_MESSAGE_VISIBILITY=43_200))
    assert longest.fix.startswith("SQS allows no more")


def test_a_fleet_file_with_placeholders_is_a_bad_file() -> None:
    found = list(
        findings.fleet_findings('{"IamFleetRole": "arn:aws:iam::XXXX:role/x"}', "fleet.json", config())
    )
    assert all(each.in_file and each.severity is Severity.ERROR for each in found)
    assert "placeholder" in found[0].what


def test_what_is_regretted_in_a_fleet_file_comes_with_its_fix() -> None:
    profile = {"Arn": "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"}
    text = json.dumps(
        {
            "IamFleetRole": "arn:aws:iam::123456789012:role/aws-ec2-spot-fleet-tagging-role",
            "AllocationStrategy": "lowestPrice",
            "LaunchSpecifications": [{"ImageId": "ami-0123456789abcdef0", "IamInstanceProfile": profile}],
        }
    )
    found, _ = findings.fleet_findings(text, "fleet.json", config())
    assert found.what == "fleet.json: AllocationStrategy: lowestPrice is interrupted most"
    assert found.fix == "take priceCapacityOptimized"


# -- AWS: what it answers


def test_tasks_that_fit_no_machine_are_an_error() -> None:
    found = findings.machine_findings(
        config(MACHINE_TYPE=["m5.xlarge"], MEMORY=16_384), [type_of("m5.xlarge")], ["m5.xlarge"]
    )
    severity, what = worst(found)
    assert severity is Severity.ERROR and what.startswith("no task would be placed on m5.xlarge")


@pytest.mark.parametrize(
    ("described", "offered", "says"),
    [
        ([], [], "there is no m5.xlarge in eu-west-1"),
        ([type_of("m5.xlarge")], [], "offered in no zone"),
        ([type_of("m5.xlarge", SupportedUsageClasses=["on-demand"])], ["m5.xlarge"], "never offered as spot"),
        (
            [type_of("m5.xlarge"), type_of("m6g.large", kind="arm64")],
            ["m5.xlarge"],
            "different kinds: arm64, x86_64",
        ),
    ],
)
def test_machine_types_that_will_not_come(described: list[Any], offered: list[str], says: str) -> None:
    found = findings.machine_findings(config(MACHINE_TYPE=["m5.xlarge"]), described, offered)
    assert says in worst(found)[1]


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("image", "severity"),
    [
        (None, Severity.ERROR),
        ({"Name": "al2023-ami-ecs-hvm-2023.0", "Architecture": "x86_64"}, Severity.OK),
        ({"Name": "amzn2-ami-ecs-hvm-2.0", "Architecture": "x86_64"}, Severity.WARNING),
        ({"Name": "amzn-ami-2018.03-amazon-ecs-optimized", "Architecture": "x86_64"}, Severity.WARNING),
        ({"Name": "al2023-ami-ecs-hvm-2023.0", "Architecture": "arm64"}, Severity.ERROR),
    ],
)
def test_the_machine_image_is_there_fits_and_lives(image: Any, severity: Severity) -> None:
    assert worst(findings.image_findings("ami-0", image, [type_of("m5.xlarge")]))[0] is severity


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m5.xlarge", "standard"),
        ("im4gn.large", "standard"),
        ("g4dn.xlarge", "G and VT"),
        ("p4d.24xlarge", "P"),
        ("inf2.xlarge", None),
        ("trn1.2xlarge", None),
        ("u-6tb1.metal", None),
        ("hpc6a.48xlarge", None),
        ("x2idn.16xlarge", None),
    ],
)
def test_the_quota_that_a_type_counts_for(name: str, kind: str | None) -> None:
    assert findings.family(name) == kind


@pytest.mark.parametrize(
    ("most", "severity"), [(3, Severity.ERROR), (10, Severity.WARNING), (40, Severity.OK)]
)
def test_quotas_against_the_machines_asked_for(most: float, severity: Severity) -> None:
    own = config(CLUSTER_MACHINES=10, MACHINE_TYPE=["m5.xlarge"])
    assert worst(findings.quota_findings(own, [type_of("m5.xlarge")], {"standard": most}))[0] is severity


@pytest.mark.parametrize(
    ("bid", "severity"),
    [(0.05, Severity.ERROR), (0.08, Severity.WARNING), (0.2, Severity.OK), (None, Severity.OK)],
)
def test_the_bid_against_the_newest_prices(bid: float | None, severity: Severity) -> None:
    assert worst(findings.price_findings(config(MACHINE_PRICE=bid), [0.07, 0.09]))[0] is severity


def test_no_price_at_all_is_a_warning() -> None:
    assert worst(findings.price_findings(config(), []))[0] is Severity.WARNING


def test_tasks_that_would_get_no_gpu_of_a_machine_that_is_paid_for_are_named() -> None:
    gpu = type_of("g4dn.xlarge", GpuInfo={"Gpus": [{"Manufacturer": "NVIDIA", "Count": 1}]})
    for tasks, severity in ((1, Severity.OK), (2, Severity.WARNING)):
        given = config(MACHINE_TYPE=["g4dn.xlarge"], TASKS_PER_MACHINE=tasks)
        found, said = worst(findings.machine_findings(given, [gpu], ["g4dn.xlarge"]))
        assert found is severity
    assert said == "TASKS_PER_MACHINE = 2: g4dn.xlarge has 1 GPU, and no task gets one"


def test_subnets_with_an_address_for_every_machine() -> None:
    own, two = config(CLUSTER_MACHINES=5), [{"SubnetId": "subnet-1", "AvailableIpAddressCount": 2}] * 1
    assert "no default VPC" in worst(findings.subnet_findings(own, []))[1]
    assert "5 machines need an address each, and 2 are free" in worst(findings.subnet_findings(own, two))[1]
    assert "subnet-9 is not there" in worst(findings.subnet_findings(config(), two, ["subnet-9"]))[1]
    assert worst(findings.subnet_findings(config(), two, ["subnet-1"]))[0] is Severity.OK


@pytest.mark.parametrize(
    ("status", "region", "severity"),
    [
        (404, None, Severity.ERROR),
        (403, "eu-west-1", Severity.ERROR),
        (200, "us-east-1", Severity.WARNING),
        (301, "us-east-1", Severity.WARNING),
        (200, "eu-west-1", Severity.OK),
    ],
)
def test_the_bucket_is_there_and_near(status: int, region: str | None, severity: Severity) -> None:
    assert worst(findings.bucket_findings(config(AWS_BUCKET="results"), status, region))[0] is severity


def test_a_queue_of_another_app_is_an_error_and_a_shared_cluster_is_not() -> None:
    assert "belongs to the app Other" in worst(findings.queue_findings(config(), {"ds:app": "Other"}))[1]
    for ours in ({"ds:app": "App"}, {}, None):
        assert not list(findings.queue_findings(config(), ours))
    services = [
        "arn:aws:ecs:eu-west-1:1:service/default/AppService",
        "arn:aws:ecs:eu-west-1:1:service/default/Web",
    ]
    severity, what = worst(findings.cluster_findings(config(), services))
    assert severity is Severity.OK and "also has Web;" in what


def test_logs_that_are_kept_for_ever() -> None:
    found = list(findings.log_findings({"App": None, "App_perInstance": 60}))
    assert [each.severity for each in found] == [Severity.WARNING]


@pytest.mark.fault(34, 30)
def test_an_account_that_is_not_set_up_is_one_error() -> None:
    found = list(findings.role_findings(Where("123456789012", "eu-west-1"), Used(), Found()))
    assert [each.severity for each in found] == [Severity.ERROR, Severity.WARNING]
    assert found[0].fix == "ds account setup"


def test_without_the_library_of_aws_its_checks_are_findings_too(project: DsProject) -> None:
    project.config(ENGINE="aws", AWS_BUCKET="results", DOCKERHUB_TAG="lab/image:1", INPUTS=["{Plate}"])
    for name in ("boto3", "botocore", "obstore"):
        (project.folder / f"{name}.py").write_text(f"raise ImportError('there is no {name} here')\n")
    project.environment["PYTHONPATH"] = str(project.folder)
    found = project.ds("check", project.jobs([{"Plate": "P1"}]), code=1)
    assert "pip install 'distributed-something[aws]'" in found.stdout
    assert "1 job, and each fits" in found.stdout


def test_a_rehearsal_asks_nobody(project: DsProject) -> None:
    project.config(ENGINE="rehearsal", DOCKERHUB_TAG="lab/image:1", JOB_TIMEOUT=9, AWS_BUCKET="results")
    found = project.ds("check", project.jobs([{"Plate": "P1"}]))
    assert "you are" not in found.stdout and "1 job, and each fits" in found.stdout


def test_what_a_rehearsal_replaces_is_no_error_in_it(project: DsProject) -> None:
    project.config(ENGINE="rehearsal", COMMAND="true", JOB_TIMEOUT=9)
    specification = {
        "ImageId": "ami-XXXXXXXX",
        "KeyName": "your-key",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::XXXXXXXXXXXX:instance-profile/ecsInstanceRole"},
        "SubnetId": "subnet-XXXXXXXX",
    }
    file = project.folder / "fleet.json"
    role = "arn:aws:iam::XXXXXXXXXXXX:role/aws-ec2-spot-fleet-tagging-role"
    file.write_text(json.dumps({"IamFleetRole": role, "LaunchSpecifications": [specification]}))
    lines = project.ds("check", "--json", "--fleet", file, code=0).stdout.splitlines()
    found = {each["what"]: each["severity"] for each in map(json.loads, lines)}
    for field in ("IamFleetRole", "ImageId", "KeyName", "Arn", "SubnetId", "DOCKERHUB_TAG"):
        (told,) = (severity for what, severity in found.items() if f"{field}: " in what)
        assert told == "warning", found

    specification["EbsOptimized"] = "yes"
    file.write_text(json.dumps({"LaunchSpecifications": [specification]}))
    checked = project.ds("check", "--fleet", file, code=2)
    assert "2 errors" in checked.stderr
    assert "IamFleetRole: missing" in checked.stdout and "EbsOptimized: is a text" in checked.stdout


# -- A fleet file's own


def fleet_file(**keys: object) -> Fleet:
    specification = {
        "ImageId": "ami-0123456789abcdef0",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"},
        "InstanceType": "c5.large",
        **keys,
    }
    role = "arn:aws:iam::123456789012:role/aws-ec2-spot-fleet-tagging-role"
    text = json.dumps({"IamFleetRole": role, "LaunchSpecifications": [specification, specification]})
    return parse_fleet(text, "fleet.json")


def test_what_the_config_does_not_say_is_checked_as_the_fleet_file_has_it() -> None:
    found = findings.with_fleet(config(), fleet_file(KeyName="lab-key"))
    assert (found.machine_type, found.ssh_key_name) == (("c5.large",), "lab-key")
    given = config(MACHINE_TYPE=["m5.large"], SSH_KEY_NAME="mine")
    assert findings.with_fleet(given, fleet_file(KeyName="lab-key")) == given


def test_the_roles_of_a_fleet_file_are_there_and_this_accounts() -> None:
    named = findings.arns_of(fleet_file())
    assert list(named.values()) == ["IamFleetRole", "IamInstanceProfile"]
    role, _ = named
    here, other = Where("123456789012", "eu-west-1"), Where("999999999999", "eu-west-1")
    assert worst(findings.arn_findings(here, "IamFleetRole", role, there=True))[0] is Severity.OK
    assert "is not there" in worst(findings.arn_findings(here, "IamFleetRole", role, there=False))[1]
    severity, said = worst(findings.arn_findings(other, "IamFleetRole", role, there=True))
    assert severity is Severity.ERROR and "of the account 123456789012" in said
