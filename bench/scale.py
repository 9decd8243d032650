"""What a worker's requests cost beside its machine, by a formula: for jobs of any length."""

from __future__ import annotations

from distributed_something.aws.checks.limits import SETTLE_SECONDS

from .tools import table

MACHINE_USD, SLOTS = 0.07, 4
"""A spot m5.xlarge for an hour, and its jobs at a time."""

LIST_PRICES = {"PUT": 5e-6, "LIST": 5e-6, "POST": 5e-6, "GET": 0.4e-6, "HEAD": 0.4e-6, "SQS": 0.4e-6}
"""Dollars for a request, us-east-1."""

LENGTHS = ((10, "10 s"), (60, "60 s"), (600, "10 min"), (3600, "1 h"))
LOG_SECONDS, RENEW_SECONDS, HEARTBEAT_SECONDS, ORDERS_SECONDS = 60.0, 40.0, 120.0, 10.0


def main(_jobs: int) -> None:
    rows = [
        (name, *(f"{share(seconds, printing=printing, files=files):.2%}" for printing, files in _KINDS))
        for seconds, name in LENGTHS
    ]
    table(("a job of", "silent", "a line a second", "silent, 1 file in, 1 out"), rows)


_KINDS = ((False, False), (True, False), (False, True))


def share(seconds: float, *, printing: bool, files: bool) -> float:
    """Requests of a worker of four slots, as a share of its machine's price."""
    ends = SLOTS / seconds  # a second
    events = 1 / (SETTLE_SECONDS + 1 / ends)  # the first end waits so long for others
    logs = 0.0
    if printing:  # one file once a minute; the text of ended jobs together
        logs = events + (1 / LOG_SECONDS if seconds > LOG_SECONDS / 2 else 0)
    puts = events + logs + 1 / HEARTBEAT_SECONDS + (2 * ends if files else 0)
    gets = (1 / ORDERS_SECONDS if printing else 0) + (3 * ends if files else 0)
    sqs = ends + max(events, ends / 10) + 1 / RENEW_SECONDS + 1 / 60
    usd = puts * LIST_PRICES["PUT"] + gets * LIST_PRICES["GET"] + sqs * LIST_PRICES["SQS"]
    return usd / (MACHINE_USD / 3600)
