"""Draws plots as SVG, for the report and the dashboard. Pure; colours come from the page's style sheet.

The result has only numbers and escaped text, so any page can contain it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from .statistics import Histogram, Throughput

WIDTH, HEIGHT = 460, 170
LEFT, RIGHT, TOP, BOTTOM = 60, 8, 10, 24

Label = Callable[[float], str]


class Part(NamedTuple):
    """One part of a bar: its name, its value as number and as text, and its class in the style sheet."""

    name: str
    value: float
    text: str
    look: str


def throughput_plot(found: Throughput, time_label: Label) -> str:
    """Draws jobs a second over time."""
    bucket = found["bucket_s"]
    rates = [count / bucket for count in found["jobs"]]
    if rates and found["last_s"] > bucket / 2:  # the rate of a shorter time is not reliable
        rates[-1] *= bucket / found["last_s"]
    edges = [bucket * at for at in range(len(rates) + 1)]
    best = max(rates, default=0)
    title = (
        f"Throughput: {sum(found['jobs']):,} jobs over {time_label(edges[-1])}, at most {best:,.3g} a second"
    )
    return _bars(
        edges,
        rates,
        title,
        lambda at: time_label(at) if at else "0",
        lambda rate: f"{rate:,.3g}/s" if rate else "0",
    )


def histogram_plot(found: Histogram, what: str, label: Label) -> str:
    """Draws how many jobs have which value. All bins have the same width on the screen."""
    edges, counts = found["edges"], found["counts"]
    title = f"{what} of {sum(counts):,} jobs, from {label(edges[0])} to {label(edges[-1])}"
    return _bars(edges, counts, title, label, lambda count: f"{count:,.0f}")


def _bars(edges: Sequence[float], heights: Sequence[float], title: str, x: Label, y: Label) -> str:
    most = max(heights, default=0) or 1
    wide = (WIDTH - LEFT - RIGHT) / max(len(heights), 1)
    tall, floor = HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM
    bars = [
        f'<rect class="bar" x="{LEFT + at * wide:.1f}" y="{floor - height / most * tall:.1f}"'
        f' width="{max(wide - 1, wide * 0.8):.1f}" height="{max(height / most * tall, 1):.1f}"/>'
        for at, height in enumerate(heights)
        if height
    ]
    lines = [
        f'<path class="grid" d="M{LEFT} {floor - tall * part:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 5}" y="{floor - tall * part + 4:.1f}" text-anchor="end">'
        f"{escape(y(most * part))}</text>"
        for part in (0, 0.5, 1)
    ]
    ticks = [
        f'<text x="{LEFT + at * wide:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">'
        f"{escape(x(edges[at]))}</text>"
        for at, anchor in _ticks(len(edges) - 1)
    ]
    return _svg(HEIGHT, title, "".join(lines + bars + ticks))


def _ticks(last: int) -> list[tuple[int, str]]:
    """Returns the places of the axis labels: its ends, and the middle if there is room."""
    if last < 4:
        return [(0, "start"), (last, "end")]
    return [(0, "start"), (last // 2, "middle"), (last, "end")]


def parts_plot(parts: Sequence[Part], title: str) -> str:
    """Draws one bar in parts, with a legend below it."""
    whole = sum(part.value for part in parts) or 1
    at, pieces = 0.0, []
    for part in parts:
        wide = part.value / whole * WIDTH
        if part.value:
            pieces.append(
                f'<rect class="{escape(part.look)}" x="{at:.1f}" y="0" width="{wide:.1f}" height="22"/>'
            )
        at += wide
    said = ", ".join(f"{part.name} {part.text}" for part in parts)
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true">'
        f'<rect class="{escape(part.look)}" width="10" height="10"/></svg>'
        f"{escape(part.name)} <b>{escape(part.text)}</b></li>"
        for part in parts
    )
    return _svg(22, f"{title}: {said}", "".join(pieces), "parts") + f'<ul class="legend">{legend}</ul>'


def _svg(height: int, title: str, inside: str, look: str = "plot") -> str:
    text = escape(title)
    stretch = ' preserveAspectRatio="none"' if look == "parts" else ""
    return (
        f'<svg class="{look}" viewBox="0 0 {WIDTH} {height}"{stretch} role="img" aria-label="{text}"'
        f' xmlns="http://www.w3.org/2000/svg"><title>{text}</title>{inside}</svg>'
    )
