"""Builds the story of a rehearsal: its calls, its lost machines, and their cost on AWS.

`build` is pure; `keep` and `read` store it beside the run's report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..aws.ec2.cost import SHORTEST_SECONDS
from ..engine import Store
from ..errors import KeyMissing
from ..ledger import Fold, RunPaths, SegmentReader
from ..words import duration, many

Facts = Mapping[str, Any]

_ENDS = frozenset({"succeeded", "failed", "dead", "skipped", "interrupted"})
_REQUESTS = {"sqs": 0.40e-6, "s3.write": 5.0e-6, "s3.read": 0.4e-6}
"""Dollars a request, in us-east-1, as AWS lists them; a write is a PUT, a POST or a list."""

_SHOWN = 6

ON_DEMAND_FACTOR = 3  # price of a machine on demand, in prices of a spot machine


def build(
    account: Facts, run: str, fold: Fold, events: Iterable[Facts], *, price: float | None
) -> dict[str, Any]:
    """Returns the story of a run as JSON. `price`: dollars a machine and hour.

    `account` is what the emulator has seen: machines of all its runs, calls since this one was set up.

    Seconds and dollars throughout; `dollars` lacks the machines where no price is given.
    """
    machines: Sequence[Facts] = [each for each in account["machines"] if each["run"] == run]
    repeated = _repeated(events, {each["id"]: each for each in machines if each["lost"]})
    requests = sum(_request_price(name) * count for name, count in account["calls"].items())
    return {
        "jobs": fold.total,
        "attempts": fold.attempts,
        "interruptions": fold.interruptions,
        "machines": len(machines),
        "machine_hours": round(sum(_life(each) for each in machines) / 3600, 6),
        "lost": [
            {
                "machine": each["id"],
                "why": each["why"],
                "lived_s": round(_life(each), 3),
                "dollars": None if price is None else round(_billed(each) * price, 6),
                "jobs": repeated.get(each["id"], (0, 0.0))[0],
                "repeated_s": round(repeated.get(each["id"], (0, 0.0))[1], 3),
            }
            for each in machines
            if each["lost"]
        ],
        "calls": dict(sorted(account["calls"].items(), key=lambda item: (-item[1], item[0]))),
        "refused": dict(account["refused"]),
        "price": price,
        "dollars": round(sum(_billed(each) for each in machines) * (price or 0.0) + requests, 6),
        "request_dollars": round(requests, 6),
        "leftovers": list(account["leftovers"]),
    }


def _life(machine: Facts) -> float:
    return float((machine["ended"] or machine["started"]) - machine["started"])


def _billed(machine: Facts) -> float:
    """Returns what is billed, in hours of a spot machine."""
    hours = max(_life(machine), SHORTEST_SECONDS) / 3600
    return hours if machine.get("spot", True) else hours * ON_DEMAND_FACTOR


def _request_price(name: str) -> float:
    service, _, action = name.partition(".")
    if service == "s3":
        return _REQUESTS["s3.read" if action.startswith(("Get", "Head")) else "s3.write"]
    return _REQUESTS.get(service, 0.0)


def _repeated(events: Iterable[Facts], lost: Mapping[str, Facts]) -> dict[str, tuple[int, float]]:
    """For each lost machine: the attempts that ended with it, and the seconds that went into them."""
    under_way: dict[tuple[str, str], float] = {}
    spent: dict[str, list[float]] = {machine: [] for machine in lost}
    for each in sorted(events, key=lambda each: float(each["t"])):
        machine = str(each.get("machine"))
        if machine not in lost:
            continue
        job = (str(each["id"]), machine)
        if each["event"] == "started":
            under_way[job] = float(each["t"])
        elif each["event"] in _ENDS:
            under_way.pop(job, None)
            if each["event"] == "interrupted":
                spent[machine].append(float(each.get("seconds") or 0.0))
    for (_, machine), since in under_way.items():
        spent[machine].append(max(float(lost[machine]["ended"]) - since, 0.0))
    return {machine: (len(seconds), sum(seconds)) for machine, seconds in spent.items()}


def lines(story: Facts) -> list[str]:
    """Returns the story for a person."""
    lost, calls = story["lost"], story["calls"]
    found = [
        f"rehearsal: {many(story['jobs'], 'job')}, {many(story['attempts'], 'attempt')}, "
        f"{many(story['machines'], 'machine')}, {len(lost):,} of them lost"
    ]
    found += [
        f"  {each['machine']} {each['why']} after {duration(each['lived_s'])}{_paid(each)}: "
        f"{many(each['jobs'], 'job')} begun anew, {duration(each['repeated_s'])} of work repeated"
        for each in lost
    ]
    most = ", ".join(f"{count:,} {name}" for name, count in list(calls.items())[:_SHOWN])
    others = f", {len(calls) - _SHOWN:,} more kinds" if len(calls) > _SHOWN else ""
    found.append(f"calls to AWS: {sum(calls.values()):,} ({most}{others})")
    if story["refused"]:
        found.append(f"  {sum(story['refused'].values()):,} of them were refused on purpose, and repeated")
    if story["price"] is None:
        found.append(
            f"cost on AWS: {story['machine_hours']:.3f} machine hours (MACHINE_PRICE says what one costs), "
            f"and ${story['request_dollars']:.4f} for requests"
        )
    else:
        found.append(f"cost on AWS: ${story['dollars']:.4f} at ${story['price']:g} a machine and hour")
    left = story["leftovers"]
    found.append(f"left behind: {', '.join(left) if left else 'nothing'}")
    return found


def _paid(lost: Facts) -> str:
    return "" if lost["dollars"] is None else f" and ${lost['dollars']:.4f}"


def _key(paths: RunPaths) -> str:
    return f"{paths.root}rehearsal.json"


def keep(store: Store, paths: RunPaths, account: Facts, *, price: float | None) -> dict[str, Any]:
    """Build the story of the run in the store, and write it there."""
    events = []
    for line in SegmentReader(store, paths.events).new_lines():
        with suppress(ValueError):  # cut off in the middle: its worker was killed
            events.append(json.loads(line))
    story = build(account, paths.run, Fold(store, paths).update(), events, price=price)
    store.write(_key(paths), json.dumps(story, indent=1).encode() + b"\n")
    return story


def read(store: Store, paths: RunPaths) -> dict[str, Any] | None:
    """Returns the story of a run; None where it has not come to its end."""
    try:
        found: dict[str, Any] = json.loads(store.read(_key(paths)))
    except KeyMissing:
        return None
    return found
