"""Lays the attempts of a run out as a timeline: a row a slot, bars by state, machines that come and go.

`model` calls it; the page draws what it returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..engine import Machines
from ..job import State
from ..ledger import Fold
from ..ledger.batch import STATES
from ..runs.snapshot import Alive
from ..words import duration, many

ATTEMPTS = 2000  # most attempts of each kind that are drawn: the latest ones
LANES = 48  # most rows
OVERLAP_SECONDS = 0.05  # time by which two attempts of one slot may overlap: their times are rounded
GAP_SHARE = 0.05  # least share of the time shown, in which nothing ran, that is explained

GAP_SECONDS = 5.0

WIDTH = 1000.0  # the time shown is this wide: bars are given in parts of it


class Attempt(NamedTuple):
    """One attempt: times in Unix seconds, its outcome, where it ran, and the job's index (from 0) and id."""

    start: float
    end: float
    state: str
    machine: str
    worker: str
    number: int
    id: str
    cause: str = ""


def timeline(fold: Fold, machines: Machines, now: float) -> dict[str, Any] | None:
    """Returns lanes with their bars, gaps, and labels of the time axis; None: nothing has run yet."""
    found = sorted(_attempts(fold, Alive.of(machines), now))
    if not found:
        return None
    known = fold.attempts + fold.by_state[State.SKIPPED] + fold.interruptions
    left_out = known - sum(each.state != State.RUNNING for each in found)
    came = () if left_out > 0 else [each.since for each in machines.rented if each.since is not None]
    start = min([found[0].start, *came])
    goes_on = machines.running and fold.by_state[State.WAITING] + fold.by_state[State.RUNNING]
    end = max(max(each.end for each in found), start + 1e-3, now if goes_on else start)
    lanes, more = _lanes(found, machines, start, end)
    earlier = f"{many(left_out, 'earlier attempt', 'is', 'are')} left out"
    began = start - (fold.first or start) if left_out > 0 else 0.0
    lost = sum(each.lost for each in machines.rented)
    marks = [began + part * (end - start) for part in (0, 0.25, 0.5, 0.75, 1)]
    return {
        "lanes": lanes,
        "more": more,
        "axis": [duration(mark) if mark else "0" for mark in marks],
        "gaps": [_gap(each, start, end, machines) for each in _gaps(found, start, end)],
        "note": earlier if left_out > 0 else "",
        "title": f"{many(len(found), 'attempt')} in {many(len(lanes), 'slot')} over {duration(end - start)}"
        + (f", {many(lost, 'machine')} lost" if lost else ""),
    }


def _attempts(fold: Fold, alive: Alive, now: float) -> list[Attempt]:
    """Returns the latest attempts that ended, and those under way.

    Where some of a kind are left out, so are all that ended before the first one shown.
    """
    sql = """SELECT ended - seconds, ended, state, machine, worker, number - 1, id
        FROM states JOIN jobs USING (number) WHERE number IN (SELECT number FROM states
            WHERE state IN (2, 4) AND seconds IS NOT NULL ORDER BY ended DESC LIMIT ?)"""
    done = [
        Attempt(began, ended, STATES[code].value, machine or "", worker or "", number, job_id)
        for began, ended, code, machine, worker, number, job_id in fold.query(sql, (ATTEMPTS,))
    ]
    sql = "SELECT facts, number - 1, id FROM past JOIN jobs USING (number) ORDER BY past.rowid DESC LIMIT ?"
    rows = [(json.loads(text), number, job_id) for text, number, job_id in fold.query(sql, (ATTEMPTS,))]
    others = [
        Attempt(facts["t"] - facts["seconds"], facts["t"], facts["event"], facts.get("machine") or "",
                facts.get("worker") or "", number, job_id, facts.get("cause") or "")
        for facts, number, job_id in rows
        if facts["event"] in ("failed", "dead", "interrupted") and facts.get("seconds") is not None
    ]  # fmt: skip
    since = max(
        min((each.end for each in done), default=0.0) if len(done) == ATTEMPTS else 0.0,
        min((facts["t"] for facts, *_ in rows), default=0.0) if len(rows) == ATTEMPTS else 0.0,
    )
    under_way = [
        Attempt(each.started, max(now, each.started), "running", each.machine or "", each.worker or "",
                each.index, each.id)
        for each in fold.running()
        if alive.state(each) is State.RUNNING and each.started is not None
    ]  # fmt: skip
    return [each for each in (*done, *others) if each.end >= since] + under_way


def _lanes(
    found: Sequence[Attempt], machines: Machines, start: float, end: float
) -> tuple[list[dict[str, Any]], int]:
    """Returns the rows, and how many more there are. A worker has as many rows as it ran jobs at a time.

    A rented machine that ran no job has one empty row. If there are too many rows, machines on which attempts
    failed, or that were lost, come first.
    """
    slots: dict[str, dict[str, list[list[Attempt]]]] = {}
    for each in found:
        rows = slots.setdefault(each.machine or each.worker, {}).setdefault(each.worker, [])
        row = next((row for row in rows if row[-1].end <= each.start + OVERLAP_SECONDS), None)
        if row is None:
            rows.append([each])
        else:
            row.append(each)
    rented = {each.id: each for each in machines.rented}
    lanes = []
    for machine in [*slots, *(name for name in rented if name not in slots)]:
        every = [row for rows in slots.get(machine, {}).values() for row in rows]
        for number, row in enumerate(every or [[]], 1):
            lane: dict[str, Any] = {"name": machine, "slot": number, "bars": _bars(row, start, end)}
            if (owner := rented.get(machine)) is not None:
                until = owner.ended if owner.ended is not None else end
                lane["here"] = _place(owner.since if owner.since is not None else start, until, start, end)
                lane["lost"] = owner.why if owner.lost else None
            lanes.append(lane)
    if len(lanes) > LANES:
        bad = {
            each.machine or each.worker for each in found if each.state in ("failed", "dead", "interrupted")
        }
        lanes.sort(key=lambda lane: lane["name"] not in bad and not lane.get("lost"))
    return lanes[:LANES], max(len(lanes) - LANES, 0)


def _bars(row: Iterable[Attempt], start: float, end: float) -> list[list[Any]]:
    """Returns (place, width, state, title, job id); bars of one state that touch in a pixel are one."""
    bars: list[list[Any]] = []
    for each in row:
        at, wide = _place(each.start, each.end, start, end)
        if bars and bars[-1][2] == each.state and at + wide - bars[-1][0] < 1:
            bars[-1][1] = round(at + wide - bars[-1][0], 2)
            bars[-1][3] = f"several jobs, such as {each.number}: {each.state}"
            continue
        cause = f", {each.cause}" if each.cause else ""
        title = f"job {each.number}: {each.state}{cause}, {duration(max(each.end - each.start, 0))}"
        bars.append([at, wide, each.state, title, each.id])
    return bars


def _place(since: float, until: float, start: float, end: float) -> tuple[float, float]:
    """Returns where a time lies in the time shown, and how wide it is."""
    scale = WIDTH / (end - start)
    left = min(max(since - start, 0.0) * scale, WIDTH)
    right = min(max(until - start, 0.0) * scale, WIDTH)
    return round(left, 2), round(max(right - left, 0.0), 2)


def _gaps(found: Iterable[Attempt], start: float, end: float) -> Iterator[tuple[float, float]]:
    """Yields the times in which nothing ran, if they are long."""
    last, least = start, max(GAP_SECONDS, GAP_SHARE * (end - start))
    for began, ended in (*((each.start, each.end) for each in found), (end, end)):
        if began - last > least:
            yield last, began
        last = max(last, ended)


def _gap(gap: tuple[float, float], start: float, end: float, machines: Machines) -> dict[str, Any]:
    since, until = gap
    lives = [(each.since or 0.0, each.ended or until) for each in machines.rented]
    why = ""
    if any(came < since and went >= until for came, went in lives):
        why = ": machines were there, and no job began"
    elif lives:
        coming = any(since <= came < until for came, _ in lives)
        why = ": machines were starting" if coming else ": no machine was there"
    at, wide = _place(since, until, start, end)
    text = f"nothing ran for {duration(until - since)}, from {duration(since - start)} on{why}"
    return {"at": at, "wide": wide, "text": text}
