"""Computes quantiles, histograms and throughput of a run. Pure; seconds and bytes throughout."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

BUCKETS = 80
BINS = 30

_STEPS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
)  # fmt: skip


class Throughput(TypedDict):
    """Jobs that ended in each bucket of `bucket_s` seconds; the first begins at `start` (Unix seconds).

    The last bucket lasted only `last_s` seconds.
    """

    start: float
    bucket_s: float
    last_s: float
    jobs: list[int]


class Histogram(TypedDict):
    """Number of values between each two edges; the last edge belongs to the last bin."""

    edges: list[float]
    counts: list[int]


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Returns minimum, median, 95th percentile, maximum and sum; None: there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "median": ordered[last // 2],
        "p95": ordered[round(last * 0.95)],
        "max": ordered[-1],
        "sum": sum(ordered),
    }


def throughput(
    total: int, start: float, until: float, counted: Callable[[float, float], Mapping[int, int]]
) -> Throughput:
    """Returns the ends between two times, in at most about BUCKETS buckets of a round length.

    `counted` returns the ends in each bucket, by (start, bucket). Few ends (`total`) have wider buckets: a
    bucket of one job shows when it ended, and no rate.
    """
    span = max(until - start, 1e-3)
    most = min(max(total // 3, 10), BUCKETS)
    bucket = next((step for step in _STEPS if span / step <= most), math.ceil(span / most / 86400) * 86400)
    found = counted(start, bucket)
    jobs = [found.get(at, 0) for at in range(int(span / bucket) + 1)]
    edge = start + bucket * len(jobs)
    while len(jobs) > 1 and not jobs[-1] and edge - bucket >= until:
        jobs.pop()
        edge -= bucket
    last = until - (edge - bucket)
    return {"start": start, "bucket_s": bucket, "last_s": min(max(last, 0.0), bucket), "jobs": jobs}


def histogram(values: Sequence[float]) -> Histogram | None:
    """Counts values in about BINS bins: logarithmic if values differ a hundredfold, else linear."""
    if not values:
        return None
    low, high = min(values), max(values)
    edges = _growing(low, high) if low > 0 and high / low > 100 else _even(low, high)
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return {"edges": edges, "counts": counts}


def _even(low: float, high: float) -> list[float]:
    if high <= low:
        return [low, math.nextafter(low, math.inf) if not low else low * 1.001]
    step = _round_up((high - low) / (BINS - 1))
    first = math.floor(low / step)
    return [step * at for at in range(first, math.floor(high / step) + 2)]


def _growing(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    parts = max(1, min(8, int(BINS / decades)))
    first, last = math.floor(math.log10(low) * parts), math.floor(math.log10(high) * parts) + 1
    return [10 ** (at / parts) for at in range(first, last + 1)]


def _round_up(value: float) -> float:
    """Returns the smallest 1, 2 or 5 times a power of ten that is not less than the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * digit for digit in (1, 2, 5) if power * digit >= value), power * 10)
