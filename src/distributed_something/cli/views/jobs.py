"""Prints the jobs of a run: `ds jobs`, as a table, CSV, or lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...errors import OK, UsageError
from ...job import State, keys_of
from ...ledger import Fold, JobRecord
from ...ledger.keyed import key_names, parsed
from ...runs.jobtable import FACTS, cells
from ...runs.snapshot import Alive
from ...steps.look.jobs import PAGE_JOBS, line_of, selected, with_bodies
from ...words import bytes_text, did_you_mean, duration, many

if TYPE_CHECKING:
    from ...console import Console
    from ...steps.project import Project

GROUP_COLUMNS = 60  # longest text of a job's keys in a table, in characters

JOB_COLUMNS = ("index", "id", "state", "attempts", "cause", "exit_code", "seconds", "max_rss_bytes", "output")


def jobs(
    project: Project, state: str | None, cause: str | None, columns: Sequence[str] = (), *, csv: bool
) -> int:
    """Print the jobs: JSON lines, CSV, or a table; `columns` are facts and the jobs' own keys."""
    console = project.console
    fold = project.fold().update()
    alive = Alive.of(project.engine.machines())
    if project.config.image_starts_worker:
        _say_by_number(project, fold)
    _check_columns(fold, columns)
    found = selected(fold, state, cause, alive=alive)
    if columns:
        _print_columns(console, fold, found, columns, alive=alive, csv=csv)
    elif csv and not console.json:
        _print_csv(console, fold, state, cause, alive=alive)
    elif console.json:
        for record, body in with_bodies(fold, found):
            console.data(line_of(record, body, alive=alive))
    else:
        header = ("index", "id", "state", "attempts", "cause", "exit", "time", "memory", "output", "job")
        rows = with_bodies(fold, found)
        console.table(header, (_readable(record, body, alive=alive) for record, body in rows))
    return OK


def _check_columns(fold: Fold, columns: Sequence[str]) -> None:
    """Raises UsageError for a column that is neither a fact nor a key of the first jobs."""
    unknown = [name for name in columns if name not in FACTS]
    if not unknown:
        return
    bodies = [*fold.bodies(islice(fold.records(tail="ORDER BY number LIMIT 100"), 100)).values()]
    known = [*FACTS, *key_names(bodies)]
    for name in unknown:
        if name not in known and not any(name in parsed(body) for body in bodies):
            what = (
                f"--columns: {name} is no fact of a job, and no key of these jobs{did_you_mean(name, known)}"
            )
            raise UsageError(what, f"choose among {', '.join(known)}")


def _print_columns(
    console: Console,
    fold: Fold,
    found: Iterator[JobRecord],
    columns: Sequence[str],
    *,
    alive: Alive,
    csv: bool,
) -> None:
    rows = (
        cells(record, keys_of(body or {}), columns, alive=alive) for record, body in with_bodies(fold, found)
    )
    if console.json:
        for row in rows:
            console.data(dict(zip(columns, row, strict=True)))
    elif csv:
        _write_csv(console, columns, iter(lambda: [*islice(rows, PAGE_JOBS)], []))
    else:
        console.table(columns, rows)


def _say_by_number(project: Project, fold: Fold) -> None:
    """Says how many of the jobs that are shown as waiting have left the queue."""
    ended = project.snapshot(fold).jobs.succeeded - fold.by_state[State.SUCCEEDED]
    if ended > 0:
        have = many(ended, "waiting job", "has", "have")
        project.console.say(f"note: {have} left the queue; their worker does not say which")


def _print_csv(console: Console, fold: Fold, state: str | None, cause: str | None, *, alive: Alive) -> None:
    """Prints the jobs as CSV, page by page: memory does not grow with the jobs."""
    if state is None and cause is None and not alive.gone:
        pages = fold.pages(JOB_COLUMNS, PAGE_JOBS, stranded=not alive.any)
    else:
        pages = _cells(fold, selected(fold, state, cause, alive=alive), alive=alive)
    _write_csv(console, (*JOB_COLUMNS, "job"), pages)


def _write_csv(console: Console, header: Sequence[str], pages: Iterable[Sequence[Sequence[object]]]) -> None:
    from csv import writer as csv_writer

    text = StringIO()
    writer = csv_writer(text, lineterminator="\n" if console.out.isatty() else "\r\n")
    writer.writerow(header)
    for page in pages:
        writer.writerows(page)
        console.write(text.getvalue())
        text.seek(0)
        text.truncate()
    console.write(text.getvalue())


def _cells(fold: Fold, records: Iterator[JobRecord], *, alive: Alive) -> Iterator[list[list[object]]]:
    while page := list(islice(records, PAGE_JOBS)):
        bodies = fold.bodies(page)
        lines = [(line_of(record, None, alive=alive), bodies.get(record.id, b"")) for record in page]
        yield [[*(line[name] for name in JOB_COLUMNS), body.decode(errors="replace")] for line, body in lines]


def _readable(record: JobRecord, body: dict[str, Any] | None, *, alive: Alive) -> Sequence[object]:
    return (
        record.index,
        record.id,
        "unproven" if record.unproven else "failed, waiting" if record.failed else alive.state(record).value,
        record.attempts,
        record.cause,
        record.exit_code,
        duration(record.seconds) if record.seconds is not None else "",
        bytes_text(record.max_rss_bytes),
        record.output,
        _group_text(body),
    )


def _group_text(body: dict[str, Any] | None) -> str:
    """Returns a job's own keys as a short text for a table."""
    group = body.get("group") if body else None
    text = " ".join(f"{key}={value}" for key, value in group.items()) if isinstance(group, dict) else ""
    return text if len(text) <= GROUP_COLUMNS else text[: GROUP_COLUMNS - 1] + "…"
