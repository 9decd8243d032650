"""Declares the arguments of each command: one function a command, and the types of their values.

`parser.COMMANDS` names these functions. They read no project.
"""

from __future__ import annotations

import argparse

from ..words import none_of

MOST = 1_000_000  # largest number of seconds or minutes on the command line


# -- Values -------------------------------------------------------------------------------------------------


def _number(text: str, says: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: is no number") from None
    if not 0 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: {says}")
    return value


def _seconds(text: str) -> float:
    value = _number(text, says := f"must be more than 0, and {MOST:,} at most")
    if not value:
        raise argparse.ArgumentTypeError(f"{text}: {says}")
    return value


def _minutes(text: str) -> float:
    return _number(text, f"must be from 0 to {MOST:,}")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text}: is no whole number")
    return int(text)


def _budget(text: str) -> object:
    import re

    from ..budget import Budget

    if not (found := re.fullmatch(r"\+([0-9]{1,9}(?:\.[0-9]{1,9})?)(h?)", text)) or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text}: write +5 (dollars) or +5h (machine-hours)")
    more = float(found[1])
    return Budget(hours=more) if found[2] else Budget(usd=more)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text}: is no whole number between 0 and 65535")
    return int(text)


def _cause(text: str) -> str:
    from ..job import Cause

    known = [cause.value for cause in Cause]
    if text not in known:
        raise argparse.ArgumentTypeError(none_of(text, known))
    return text


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


# -- Commands -----------------------------------------------------------------------------------------------


def init(parser: argparse.ArgumentParser) -> None:
    where = "a new or empty folder, for an example; or one with files, for a project of these (this folder)"
    parser.add_argument("target", metavar="DIR", nargs="?", help=where)
    examples = ["images", "text", "cellprofiler", "imagej", "omezarr"]
    words = f"{examples[0]} (the default), {', '.join(examples[1:-1])} or {examples[-1]}"
    parser.add_argument("--example", choices=examples, help=words)


def setup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")


def submit(parser: argparse.ArgumentParser) -> None:
    _jobs(parser)
    dry = "show the first jobs as a worker would run them, and queue nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    _unchecked(parser)
    shown = "how many jobs --dry-run shows (3)"
    parser.add_argument("--show", metavar="N", type=_whole, default=3, help=shown)


def _unchecked(parser: argparse.ArgumentParser) -> None:
    unchecked = "queue the jobs although their program or inputs may be missing here"
    parser.add_argument("--unchecked", action="store_true", help=unchecked)


def _jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job_file", metavar="JOBFILE", help=".json, .jsonl, .csv or .tsv")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a shared key")


def _faults(parser: argparse.ArgumentParser) -> None:
    faults = "what goes wrong, with the engine rehearsal: notice=0.2/min,kill=0.1/min,…, or rough-day"
    parser.add_argument("--faults", metavar="FAULTS", default="", help=faults.replace("%", "%%"))


_FLEET_FILE = "machines as a spot fleet request has them (aws); without one, the config says which"


def start(parser: argparse.ArgumentParser) -> None:
    _faults(parser)
    parser.add_argument("fleet_file", metavar="FLEETFILE", nargs="?", help=_FLEET_FILE)
    budget = "add to BUDGET_USD (+5) or BUDGET_HOURS (+5h) for this run"
    parser.add_argument("--budget", metavar="+N", type=_budget, help=budget)
    minutes = "how long to watch the machines come (10); 0: one look"
    parser.add_argument("--wait", metavar="MINUTES", type=_minutes, default=10, help=minutes)


def monitor(parser: argparse.ArgumentParser) -> None:
    record = "the run record that `ds start` wrote (the app's)"
    parser.add_argument("record", metavar="RECORD", nargs="?", help=record)
    _watch(parser)


def run(parser: argparse.ArgumentParser) -> None:
    _faults(parser)
    _jobs(parser)
    _unchecked(parser)
    parser.add_argument("fleet_file", metavar="FLEETFILE", nargs="?", help=_FLEET_FILE)
    _watch(parser)


def _watch(parser: argparse.ArgumentParser) -> None:
    every = "between two looks (60 on aws, less elsewhere); the end needs three that agree, on aws 60 apart"
    parser.add_argument("--every", metavar="SECONDS", type=_seconds, help=every)
    cheapest = "after 15 minutes, machines that AWS takes back are not replaced (aws)"
    parser.add_argument("--cheapest", action="store_true", help=cheapest)


def worker(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "It leases jobs from the queue and runs them until a signal stops it. While the queue is empty it"
        " waits. It reads no project folder: `ds start` gives its task an environment with APP_NAME, DS_RUN,"
        " SQS_QUEUE_URL, AWS_BUCKET, AWS_REGION, DOCKER_CORES (jobs at a time) and SECONDS_TO_START;"
        " `ds setup` leaves the rest in the bucket. DS_SCRATCH is the folder for the files of jobs (else"
        " TMPDIR); DS_SETTLE_SECONDS is how long ended jobs wait to be settled together (30). SIGTERM:"
        " running jobs have 90 s to finish, or go back."
    )


def try_(parser: argparse.ArgumentParser) -> None:
    _jobs(parser)
    parser.add_argument(
        "job", metavar="JOB", nargs="?", help="its index, id, or the start of its id (the first)"
    )
    _publish(parser)


def replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="its id, the start of its id, or its index")
    parser.add_argument("--attempt", metavar="N", type=_whole, help="as this attempt (the latest)")
    _publish(parser)
    _of_run(parser)


def _publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--publish", action="store_true", help="publish its output, as a worker does")


def _of_run(parser: argparse.ArgumentParser) -> None:
    which = "look at this run, by its id or the start of it, or at the latest (the current one)"
    parser.add_argument("--run", metavar="RUN", dest="run_id", help=which)


def status(parser: argparse.ArgumentParser) -> None:
    _of_run(parser)
    parser.add_argument("--watch", action="store_true", help="go on until the run has ended")


def wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", metavar="MINUTES", type=_minutes, help="give up after this time, with exit code 1"
    )


def runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="diff", nargs="?", choices=["diff"], help="what differs between two runs"
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="two runs, each by its id or the start of it")


def report(parser: argparse.ArgumentParser) -> None:
    which = "of this run, by its id or the start of it (the current or latest one)"
    absent = argparse.SUPPRESS  # a default would replace what --run says
    parser.add_argument("run_id", metavar="RUN", nargs="?", help=which, default=absent)
    _of_run(parser)
    parser.add_argument("--remake", action="store_true", help="make it again from the ledger")


def jobs(parser: argparse.ArgumentParser) -> None:
    _of_run(parser)
    states = ["waiting", "running", "succeeded", "failed", "dead", "skipped", "dropped"]
    parser.add_argument("--state", choices=states, help="only these")
    parser.add_argument("--cause", metavar="C", type=_cause, help="only jobs with this cause")
    parser.add_argument("--csv", action="store_true", help="as CSV")
    columns = "these columns: index, state, seconds, …, and keys of the jobs, with commas between"
    parser.add_argument("--columns", metavar="NAMES", type=_names, default=[], help=columns)


def logs(parser: argparse.ArgumentParser) -> None:
    _of_run(parser)
    parser.add_argument("job", metavar="JOB", help="its id, the start of its id, or its index (92, or #92)")
    parser.add_argument("--follow", action="store_true", help="until it has ended; it may still be waiting")
    parser.add_argument("--attempt", metavar="N", type=_whole, help="of this attempt (the latest)")


def failures(parser: argparse.ArgumentParser) -> None:
    _of_run(parser)


def retry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=["dead"], default="dead", help="which jobs (dead)")
    parser.add_argument(
        "--cause", metavar="C", type=_cause, action="append", default=[], help="only jobs with this cause"
    )
    parser.add_argument("--collect", action="store_true", help="only the job that COLLECT is")
    parser.add_argument("jobs", metavar="JOB", nargs="*", help="ids, starts of ids, or indexes (92, or #92)")


def drop(parser: argparse.ArgumentParser) -> None:
    what = "dead jobs, or (not on aws) waiting ones: ids, starts of ids, or indexes (92, or #92)"
    parser.add_argument("jobs", metavar="JOB", nargs="+", help=what)


def fleet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="new", choices=["new"], help="write a new fleet file into files/")
    parser.add_argument("--region", metavar="R", help="for this region (the config's)")


def jobfile(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", metavar="new", choices=["new"], help="write a new job file")
    add("new_file", metavar="FILE", help="where to write: .jsonl")
    files = "a job for each file: 'raw/{Plate}/{Well}_{Site}.tif' in the store, a folder (./…) or s3://…;"
    add(
        "--from", metavar="PATTERN", dest="pattern", help=f"{files} or a regular expression with (?P<Plate>…)"
    )
    add(
        "--group-by",
        metavar="NAMES",
        help="one job for all files that share these values, with the list Files",
    )
    add("--path-key", metavar="NAME", help="add each file's path under this key")
    lists = "a job for each combination: Plate=P1,P2 Well=A01..H12 Site=1..9 sigma=0..1..0.1"
    add("--product", metavar="NAME=VALUES", nargs="+", action="extend", default=[], help=lists)
    add("--zip", action="store_true", dest="zipped", help="go through the lists side by side instead")
    add(
        "--table",
        metavar="TABLE",
        help="a job for each row: .csv, .tsv, .jsonl, .json, .parquet, - for stdin",
    )
    add("--columns", metavar="NAMES", help="keep these keys only; New=Old renames one")
    where = "keep jobs for which this holds: 'Well!=A01..A12', 'Site<=4', 'Plate~^P1'; may come several times"
    add("--where", metavar="CONDITION", action="append", default=[], help=where)
    add("--unique", action="store_true", help="drop duplicates")


def stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", action="store_true", help="running jobs go back to the queue at once")


def dashboard(parser: argparse.ArgumentParser) -> None:
    port = "its port on this machine (the one it had before, or any)"
    parser.add_argument("--port", metavar="N", type=_port, help=port)
    _of_run(parser)


def completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that reads it")
    parser.epilog = (
        'bash: eval "$(ds completion bash)" in ~/.bashrc. zsh: ds completion zsh > a folder of $fpath/_ds.'
        " fish: ds completion fish > ~/.config/fish/completions/ds.fish."
    )


def check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "job_file", metavar="JOBFILE", nargs="?", help="read through, and its inputs looked for"
    )
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a shared key")
    shown = "show the first N jobs as a worker would run them"
    parser.add_argument("--show", metavar="N", type=_whole, default=0, help=shown)
    fleet = "a fleet file (aws)"
    parser.add_argument("--fleet", metavar="FLEETFILE", dest="fleet_file", help=fleet)


def image(parser: argparse.ArgumentParser) -> None:
    what = "worker: an image that brings the worker into others; build: DOCKERHUB_TAG with the worker in it"
    parser.add_argument("what", choices=["worker", "build"], help=what)
    parser.add_argument("--tag", metavar="NAME", help="what to call it")
    parser.add_argument("--push", action="store_true", help="push it to its registry")


def account(parser: argparse.ArgumentParser) -> None:
    what = "setup and destroy: roles and instance profile; policy: print what you yourself need"
    parser.add_argument("action", choices=["setup", "destroy", "policy"], help=what)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and end")
    who = "policy: for the person who types `ds account`, instead of those who run apps"
    parser.add_argument("--administrator", action="store_true", help=who)
    what = "policy: the permissions boundary, which limits every role, for the account's owner to make"
    parser.add_argument("--boundary", action="store_true", help=what)
