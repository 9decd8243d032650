"""Ends machines on which jobs fail that succeed elsewhere, and puts back what died there.

`exclusion.py` decides; the monitor calls it at each look. A job that dies, and has failed on a bad machine,
is put back and begins anew: so it gets back the attempts that it lost there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ...engine import Renting
from ...errors import DsError
from ...exclusion import Hosts, Pause, pause_text, rows, stuck, verdict
from ...ledger import Fold, machines
from ...ledger.live import LiveFold
from ...runs.snapshot import Snapshot, Tally
from ...system.state import one_at_a_time
from ...words import many
from ..project import Project
from ..retry import retry
from ..setup import keep_record


def exclude_bad(project: Project, snapshot: Snapshot, fold: Tally, note: Callable[[str], None]) -> bool:
    """Exclude bad machines, and put back the jobs that died there. Returns whether there were such jobs.

    A tally without jobs (the auto-monitor's) says when there is reason to look at each. What fails is tried
    again at the next look.
    """
    engine = project.engine
    if not isinstance(engine, Renting) or not snapshot.machines.rented:
        return False
    if isinstance(fold, LiveFold):
        if not (fold.suspects or snapshot.pauses or snapshot.excluded):
            return False
        fold = project.fold().update()
    if not isinstance(fold, Fold):
        return False
    hosts = Hosts({each.id: each.hosts for each in snapshot.machines.rented})
    try:
        new = find_bad(fold, snapshot.pauses, hosts, project.clock.now(), snapshot.excluded)
        if new:
            with one_at_a_time(project.folder):
                record = project.record()
                keep_record(project, record._replace(excluded={**record.excluded, **new}))
        for host, why in new.items():
            note(f"bad machine {host}: {why}; it gets no more jobs")
        excluded = {**snapshot.excluded, **new}
        if here := {host for host in _running(snapshot, hosts) if host in excluded}:
            engine.exclude(here)
        return bool(excluded) and _put_back(project, fold, hosts, excluded, note)
    except DsError as error:
        note(f"{error.what}; the next look deals with bad machines")
        return False


def find_bad(
    fold: Fold, pauses: Sequence[Pause], hosts: Hosts, now: float, known: Collection[str] = ()
) -> dict[str, str]:
    """Returns the bad machines that are not `known` yet, and why."""
    found: dict[str, str] = {}
    for pause in stuck([each._replace(machine=hosts.at(each.machine, now)) for each in pauses], now):
        spans = hosts.spans(pause.machine)
        if pause.machine not in known and machines.elsewhere(fold, spans, pause.since).jobs:
            found[pause.machine] = pause_text(pause, now)
    failed = [each._replace(machine=hosts.at(each.machine, each.at)) for each in machines.failures(fold)]
    worked = {hosts.at(machine, now) for machine in fold.done_by()} | {each.machine for each in failed}
    for row in (each for each in rows(failed, len(worked)) if each.machine not in known):
        spans = hosts.spans(row.machine)
        success = machines.latest_success(fold, spans)
        recent = row.after(success)
        others = machines.elsewhere(fold, spans, recent.since, recent.jobs)
        if why := verdict(recent, others, ever_succeeded=success is not None):
            found[row.machine] = why
    return found


def _running(snapshot: Snapshot, hosts: Hosts) -> set[str]:
    return {hosts.at(each.id, float("inf")) for each in snapshot.machines.rented if each.running}


def _put_back(
    project: Project, fold: Fold, hosts: Hosts, excluded: Mapping[str, str], note: Callable[[str], None]
) -> bool:
    spans = [span for host in excluded for span in hosts.spans(host)]
    died = machines.charged_to(fold, spans)
    back = retry(project, (), died) if died else []
    if back:
        note(f"{many(len(back), 'job')} that failed on bad machines: put back")
    return bool(back)
