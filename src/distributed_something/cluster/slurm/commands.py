"""Runs Slurm's commands, and reads what they say."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from ...errors import DsError, Unreachable
from ..pilots import Pilot
from .explain import refusal

ANSWER_SECONDS = 60.0
"""A command of the scheduler has this long to answer. Slurm's own limit is 20 s as a rule."""

LARGEST_ARRAY = 1000
"""Pilots in one submission: every Slurm takes arrays of this size, unless a site says otherwise."""

_SCRUBBED = re.compile("(SLURM|SBATCH|SQUEUE|SACCT|SCANCEL|SINFO|SCONTROL|PMIX?)_")
_FIELDS = "%i|%T|%S|%e|%N|%k|%r"
"""As `_pilot` reads them; the reason comes last, as any text may be in it."""

_SILENT = re.compile(
    "Socket timed out|Unable to contact slurm controller|Connection (refused|timed out)|Zero Bytes|"
    "backup controller in standby|Transport endpoint|currently in standby|Communication connection failure",
    re.IGNORECASE,
)


class Slurm:
    """Slurm's commands. Their variables in our environment do not reach them.

    Each raises DsError where it is refused, and Unreachable where the controller is silent.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = scrubbed(os.environ if environment is None else environment)

    def submit(self, count: int, script: str, options: Sequence[str], name: str, comment: str) -> list[str]:
        """Submit `count` pilots, which run `script`, as arrays; the ids of the arrays.

        `comment` is unique. After a time-out it is looked for, so that no pilot is submitted twice.
        """
        found: list[str] = []
        for first in range(0, count, LARGEST_ARRAY):
            mark = f"{comment} {first}"
            given = [
                f"--array=1-{min(count - first, LARGEST_ARRAY)}",
                f"--job-name={name}",
                f"--comment={mark}",
            ]
            try:
                said = self._ask(["sbatch", "--parsable", *given, *options], script)
            except Unreachable:
                found.append(self._submitted(name, mark))
            else:
                found.append(said.split(";")[0].strip())
        return found

    def _submitted(self, name: str, mark: str) -> str:
        """The array that was submitted, though no reply came. Raises Unreachable where it was not."""
        for pilot in self.list(name):
            if pilot.comment == mark:
                return pilot.id.partition("_")[0]
        raise Unreachable(
            "the Slurm controller did not answer, and no pilot was submitted", "ds start, later"
        )

    def test(self, script: str, options: Sequence[str]) -> str:
        """What Slurm would do with a pilot, in its words. Nothing is submitted."""
        return self._ask(["sbatch", "--test-only", *options], script, stderr=True)

    def list(self, name: str) -> list[Pilot]:
        """The pilots of that name that have not ended: one call, whatever their number."""
        command = ["squeue", "--me", "--noheader", "--array", f"--name={name}", f"--format={_FIELDS}"]
        return [_pilot(line) for line in self._ask(command).splitlines() if line.count("|") >= 6]

    def cancel(self, name: str, ids: Iterable[str] = (), *, pending: bool = False) -> None:
        """End pilots: SIGTERM, then SIGKILL after the cluster's KillWait."""
        options = ["--quiet", f"--name={name}", *(["--state=PENDING"] if pending else [])]
        self._ask(["scancel", *options, *ids])

    def requeue(self, pilot: str) -> None:
        """Put a running pilot back into Slurm's queue: it is ended, and starts again later."""
        self._ask(["scontrol", "requeue", pilot])

    def partition(self, name: str) -> dict[str, str]:
        """The settings of a partition ("": the default one), such as MaxTime, in Slurm's words."""
        for found in self.partitions():
            if found["PartitionName"] == name or (not name and found.get("Default") == "YES"):
                return found
        return {}

    def partitions(self) -> Sequence[dict[str, str]]:
        """The settings of every partition that the user may see."""
        lines = self._ask(["scontrol", "show", "partition", "--oneliner"]).splitlines()
        return [dict(pair.partition("=")[::2] for pair in line.split()) for line in lines if "=" in line]

    def settings(self) -> dict[str, str]:
        """The cluster's settings, such as SLURM_VERSION."""
        pairs = (line.partition("=") for line in self._ask(["scontrol", "show", "config"]).splitlines())
        return {name.strip(): value.strip() for name, equals, value in pairs if equals}

    def _ask(self, command: Sequence[str], script: str = "", *, stderr: bool = False) -> str:
        try:
            done = subprocess.run(
                command,
                input=script,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_SECONDS,
                env=self._environment,
                check=False,
            )
        except FileNotFoundError as error:
            what = f"no program {command[0]} on this computer: it is no login node of a Slurm cluster"
            raise DsError(what, "log in to the cluster, or load its module; or ENGINE = 'local'") from error
        except subprocess.TimeoutExpired as error:
            what = f"{command[0]} did not answer within {ANSWER_SECONDS:.0f} s"
            raise Unreachable(what, "try again later; see `scontrol ping`") from error
        said = done.stderr.strip()
        if done.returncode == 0:
            return said if stderr else done.stdout
        if _SILENT.search(said):
            raise Unreachable(
                f"the Slurm controller does not answer {command[0]}: {_last(said)}",
                "try again later; see `scontrol ping`",
            )
        what, fix = refusal(said)
        raise DsError(f"{command[0]} was refused: {what}", fix)


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a command of Slurm: in a job, or from a profile, variables would change it."""
    kept = {name: value for name, value in environment.items() if not _SCRUBBED.match(name)}
    if "SLURM_CONF" in environment:
        kept["SLURM_CONF"] = environment["SLURM_CONF"]
    return {**kept, "SLURM_TIME_FORMAT": "%s"}


def _pilot(line: str) -> Pilot:
    pilot, state, start, end, node, comment, reason = line.split("|", 6)
    return Pilot(
        id=pilot,
        running=state == "RUNNING",
        state=state,
        reason="" if reason == "None" else reason,
        node=node,
        start=_time(start),
        end=_time(end),
        comment="" if comment == "(null)" else comment,
    )


def _time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _last(said: str) -> str:
    return said.splitlines()[-1].removeprefix("sbatch: ").removeprefix("error: ") if said else "no reason"
