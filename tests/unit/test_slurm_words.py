"""Slurm's words in ours: refusals, reasons to wait, durations; and the commands that we give it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_something.cluster.explain import why_pending
from distributed_something.cluster.pilots import Pilot
from distributed_something.cluster.slurm import options
from distributed_something.cluster.slurm.commands import Slurm, scrubbed
from distributed_something.cluster.slurm.explain import refusal, waiting
from distributed_something.errors import DsError, Unreachable
from distributed_something.inputs.config import parse_config

Programs = Callable[..., Slurm]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Slurm's programs, which say what was recorded of the real ones, and note how they were called."""

    def make(**said: str) -> Slurm:
        for name, script in said.items():
            program = tmp_path / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{script}\n')
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return Slurm({"PATH": f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin", "SLURM_JOB_ID": "7"})

    return make


# Recorded of 22.05.8
REFUSALS = {
    "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid"
    " partition name specified": "SLURM_PARTITION",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination"
    " specified": "SLURM_ACCOUNT",
    "sbatch: error: Batch job submission failed: Invalid qos specification": "SLURM_QOS",
    "sbatch: error: Batch job submission failed: Invalid feature specification": "SLURM_CONSTRAINT",
    "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed:"
    " Requested node configuration is not available": "MEMORY",
    "sbatch: error: Invalid generic resource (gres) specification": "SLURM_GRES",
    "sbatch: error: Batch job submission failed: Requested node configuration is not"
    " available": "DOCKER_CORES",
    "sbatch: error: Batch job submission failed: Invalid job array specification": "CLUSTER_MACHINES",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates"
    " accounting/QOS policy (job submit limit, user's size and/or time limits)": "CLUSTER_MACHINES",
    "sbatch: unrecognized option '--nonsense'\nTry \"sbatch --help\" for more information": "SLURM_EXTRA",
    "sbatch: error: Invalid --time specification": "SLURM_TIME",
}


@pytest.mark.parametrize("said", REFUSALS)
def test_a_refusal_names_the_key_to_change(said: str) -> None:
    what, fix = refusal(said)
    assert REFUSALS[said] in fix
    assert "\n" not in what
    assert "Batch job submission failed" not in what


def test_a_refusal_that_is_not_known_is_passed_on() -> None:
    assert refusal("sbatch: error: Something new")[0] == "Something new"
    assert refusal("")[0] == "it said nothing"


@pytest.mark.parametrize(
    ("reason", "words", "for_ever"),
    [
        ("Resources", "turn", False),
        ("Priority", "turn", False),
        ("None", "turn", False),
        ("PartitionTimeLimit", "SLURM_TIME", True),
        ("BadConstraints", "SLURM_CONSTRAINT", True),
        ("QOSMaxWallDurationPerJobLimit", "SLURM_TIME", True),
        ("QOSMaxJobsPerUserLimit", "limit of your account or QOS", False),
        ("AssocGrpCpuLimit", "limit of your account or QOS", False),
        ("QOSMaxCpuPerJobLimit", "larger than a job", True),
        ("BeginTime", "requeued", False),
        ("JobHeldUser", "held", False),
        ("launch failed requeued held", "could not start it", False),
        ("ReqNodeNotAvail, UnavailableNodes:node1", "down, drained or reserved", False),
        ("Nodes required for job are DOWN, DRAINED or reserved", "down, drained or reserved", False),
        ("PartitionDown", "closed", False),
        ("SomethingNew", "SomethingNew", False),
    ],
)
def test_a_reason_to_wait_in_words(reason: str, words: str, for_ever: bool) -> None:
    found = waiting(reason)
    assert words in found.why
    assert found.for_ever is for_ever


def pending(number: int, reason: str, start: float | None = None) -> Pilot:
    return Pilot(f"7_{number}", running=False, state="PENDING", reason=reason, start=start)


def test_why_pilots_wait_is_the_commonest_reason_with_the_earliest_start() -> None:
    found = why_pending(
        [pending(1, "Priority", 5000.0), pending(2, "Priority", 4000.0), pending(3, "JobHeldUser")],
        0,
        waiting,
    )
    assert found is not None
    assert found.why.startswith("3 pilots are pending: waiting for a turn (Priority), and starts about")
    assert not found.for_ever
    assert why_pending([Pilot("7_1", running=True)], 0, waiting) is None


def test_waiting_is_of_no_use_only_where_that_holds_for_all() -> None:
    hopeless = [pending(1, "PartitionTimeLimit"), pending(2, "PartitionTimeLimit")]
    assert why_pending(hopeless, 0, waiting).for_ever  # type: ignore[union-attr]
    assert not why_pending([*hopeless, pending(3, "Priority")], 0, waiting).for_ever  # type: ignore[union-attr]


def test_a_held_pilot_is_named_in_the_fix() -> None:
    assert why_pending([pending(2, "JobHeldUser")], 0, waiting).fix == "scontrol release 7_2"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("1:00:00", 3600),
        ("2-0", 172_800),
        ("1-12:30", 131_400),
        ("1-00:00:05", 86_405),
    ],
)
def test_durations_as_slurm_writes_them(time: str, seconds: int) -> None:
    assert options.seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["UNLIMITED", "NONE", "", "soon"])
def test_no_duration(time: str) -> None:
    assert options.seconds_of(time) is None


@pytest.mark.parametrize(("limit", "notice"), [(None, 120), (86_400, 120), (60, 20), (6, 5)])
def test_the_notice_leaves_most_of_the_time_for_work(limit: float | None, notice: int) -> None:
    assert options.notice_of(limit) == notice


def config(**keys: object) -> options.Config:
    given = {"APP_NAME": "App", "ENGINE": "slurm", "COMMAND": "true", **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


def test_the_options_of_a_pilot_follow_the_config(tmp_path: Path) -> None:
    given = config(
        SLURM_PARTITION="short", SLURM_TIME="1:00:00", SLURM_GRES="gpu:1", MEMORY=4000, DOCKER_CORES=3,
        SLURM_EXTRA=["--exclude=node7", "--mail-type=END"],
    )  # fmt: skip
    found = options.options(given, tmp_path, tmp_path / "50%", 120)
    assert {"--partition=short", "--time=1:00:00", "--gres=gpu:1", "--mem=4000M", "--cpus-per-task=3"} <= {
        *found
    }
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120"} <= {*found}
    assert f"--output={tmp_path}/50%%/%A_%a.log" in found
    assert found[-2:] == ["--exclude=node7", "--mail-type=END"]
    found = options.options(given, tmp_path, tmp_path, 120, {"node9", "node8"})
    assert found[-2:] == ["--mail-type=END", "--exclude=node7,node8,node9"]


def test_gpus_of_jobs_are_gpus_of_the_pilot(tmp_path: Path) -> None:
    def gres(**keys: object) -> list[str]:
        found = options.options(config(**keys), tmp_path, tmp_path, 120)
        return [option for option in found if option.startswith("--gres")]

    assert gres(GPUS=2, DOCKER_CORES=3) == ["--gres=gpu:6"]
    assert gres(GPUS=2, DOCKER_CORES=3, GPUS_SHARED=True) == ["--gres=gpu:2"]
    assert gres(GPUS=1, SLURM_GRES="gpu:a100:1") == ["--gres=gpu:a100:1"]
    assert gres() == []


def test_a_script_quotes_paths_and_ends_in_our_process(tmp_path: Path) -> None:
    folder = tmp_path / "it's; rm -rf $HOME"
    text = options.script(folder, "run", 120)
    assert text.startswith("#!/bin/sh\nexec ")
    assert f"'{str(folder).replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'" in text


# The programs


def test_variables_of_a_job_or_a_profile_reach_no_command(programs: Programs, tmp_path: Path) -> None:
    assert scrubbed(
        {"SLURM_JOB_ID": "7", "SBATCH_QOS": "x", "SQUEUE_FORMAT": "%i", "HOME": "/", "PMI_RANK": "0"}
    ) == {
        "HOME": "/",
        "SLURM_TIME_FORMAT": "%s",
    }
    assert "SLURM_CONF" in scrubbed({"SLURM_CONF": "/etc/slurm.conf"})
    programs(squeue=f'echo "$SLURM_JOB_ID." > {tmp_path}/seen').list("ds-App")
    assert (tmp_path / "seen").read_text() == ".\n"


def test_the_list_of_pilots_is_one_call_and_read_whole(programs: Programs, tmp_path: Path) -> None:
    slurm = programs(
        squeue="""cat << 'END'
7_1|RUNNING|1796011964|1796012264|node1|run1 ab 0|None
7_2|PENDING|N/A|N/A||run1 ab 0|Nodes required for job are DOWN, DRAINED or reserved for | others
END"""
    )
    first, second = slurm.list("ds-App-1")
    assert first == Pilot("7_1", True, "RUNNING", "", "node1", 1796011964.0, 1796012264.0, "run1 ab 0")
    assert second.reason.endswith("for | others")
    assert not second.running
    assert (tmp_path / "calls").read_text().splitlines() == [
        "squeue --me --noheader --array --name=ds-App-1 --format=%i|%T|%S|%e|%N|%k|%r"
    ]


def test_many_pilots_are_several_arrays(programs: Programs, tmp_path: Path) -> None:
    slurm = programs(sbatch="cat > /dev/null; echo '7;cluster'")
    assert slurm.submit(2500, "#!/bin/sh\n", [], "ds-App", "run1 ab") == ["7", "7", "7"]
    arrays = [line.split()[2] for line in (tmp_path / "calls").read_text().splitlines()]
    assert arrays == ["--array=1-1000", "--array=1-1000", "--array=1-500"]


SILENT = (
    "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"
)


def test_after_a_time_out_pilots_are_looked_for_and_not_submitted_twice(
    programs: Programs, tmp_path: Path
) -> None:
    slurm = programs(sbatch=SILENT, squeue="echo '9_1|PENDING|N/A|N/A||run1 ab 0|Priority'")
    assert slurm.submit(1, "", [], "ds-App", "run1 ab") == ["9"]
    assert [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()] == ["sbatch", "squeue"]


def test_after_a_time_out_that_submitted_nothing_the_controller_is_called_silent(programs: Programs) -> None:
    slurm = programs(sbatch=SILENT, squeue="echo '8_1|PENDING|N/A|N/A||run1 other 0|Priority'")
    with pytest.raises(Unreachable, match="no pilot was submitted"):
        slurm.submit(1, "", [], "ds-App", "run1 ab")


@pytest.mark.parametrize(
    "said",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "squeue: error: slurm_receive_msg: Zero Bytes were transmitted or received",
    ],
)
def test_a_silent_controller_may_answer_later(programs: Programs, said: str) -> None:
    with pytest.raises(Unreachable, match="does not answer squeue"):
        programs(squeue=f"echo '{said}' >&2; exit 1").list("ds-App")


def test_without_slurm_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DsError, match="no program squeue on this computer"):
        Slurm({"PATH": str(tmp_path)}).list("ds-App")
