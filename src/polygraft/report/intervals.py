"""Estimates as a reader compares them: the number, its interval in words, and a small forest plot on a shared scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

from polygraft.report.numbers import fixed, spread
from polygraft.report.palette import STEPS
from polygraft.report.strings import EN, Strings, named
from polygraft.result import Estimate, Table

MARKS = {"better": "▲", "worse": "▼", "not distinguishable": "○"}
WIDTH, HEIGHT, EDGE = 120, 16, 5
BLOCK = 88  # width of a coloured cell


@dataclass(frozen=True)
class Axis:
    """The values at the left and right end of every small plot of one kind in a table."""

    low: float
    high: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(EDGE + min(1.0, max(0.0, share)) * (WIDTH - 2 * EDGE), 1)


def kind(e: Estimate) -> tuple[str, bool]:
    """Estimates of one kind share an axis: the same unit, and scores apart from differences."""
    return e.unit, bool(e.verdict)


def axes(table: Table) -> dict[tuple[str, bool], Axis]:
    """One axis for each kind of estimate in a table: 0..100 for percentages, around 0 for differences, else what is there."""
    seen: dict[tuple[str, bool], list[float]] = {}
    for row in table.rows:
        for cell in row:
            if isinstance(cell, Estimate):
                ends = [v for v in (cell.value, cell.low, cell.high) if v is not None and math.isfinite(v)]
                seen.setdefault(kind(cell), []).extend(ends)
    return {k: _axis(values, k) for k, values in seen.items()}


def _axis(values: list[float], k: tuple[str, bool]) -> Axis:
    unit, difference = k
    if not difference and unit == "%" and all(0 <= v <= 100 for v in values):
        return Axis(0, 100)
    values = values + ([0.0] if difference else [])
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.06 or max(abs(high), 1.0) * 0.06
    return Axis(low - room, high + room)


def plot(e: Estimate, axis: Axis) -> str:
    """A dot on its interval as SVG; the sign of the verdict is in the shape of the dot as well as in its colour."""
    if not math.isfinite(e.value):
        return ""
    x, mid = axis.x(e.value), HEIGHT / 2
    zero = f'<path class="zero" d="M{axis.x(0)} 1v{HEIGHT - 2}"/>' if e.verdict else ""
    line = ""
    if e.low is not None and e.high is not None and math.isfinite(e.low) and math.isfinite(e.high):
        line = f'<path class="bar" d="M{axis.x(e.low)} {mid:g}H{axis.x(e.high)}"/>'
    shape = {"better": f'<path class="dot" d="M{x - 5} 12h10l-5 -9z"/>', "worse": f'<path class="dot" d="M{x - 5} 4h10l-5 9z"/>',
             "not distinguishable": f'<circle class="ring" cx="{x}" cy="{mid:g}" r="3.6"/>'}
    dot = shape.get(e.verdict, f'<circle class="dot" cx="{x}" cy="{mid:g}" r="3.8"/>')
    return (f'<svg class="forest" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">'
            f'<path class="base" d="M{EDGE} {mid:g}H{WIDTH - EDGE}"/>{zero}{line}{dot}</svg>')


def reaches(table: Table) -> dict[tuple[str, bool], float]:
    """How far from 0 the colours of a matrix go, for each kind of estimate: to its value farthest from 0."""
    found: dict[tuple[str, bool], float] = {}
    for row in table.rows:
        for e in row:
            if isinstance(e, Estimate) and math.isfinite(e.value):
                found[kind(e)] = max(found.get(kind(e), 0.0), abs(e.value))
    return found


def may_be_zero(e: Estimate) -> bool:
    """True where the interval holds 0, or the verdict (which may be adjusted for many cells) cannot tell it from 0."""
    return e.verdict == "not distinguishable" or (e.low is not None and e.high is not None and e.low <= 0 <= e.high)


def block(e: Estimate, reach: float, said: str) -> str:
    """One cell of a matrix as SVG: its value on a colour from -reach to reach, the middle one where it may be 0.

    `said` (escaped) is its tooltip.
    """
    if not math.isfinite(e.value):
        return ""
    level = f"h{STEPS // 2 if not reach or may_be_zero(e) else round((e.value / reach + 1) / 2 * STEPS)}"
    value = fixed(e.value, spread(e.value, e.low, e.high), plus=bool(e.verdict))
    mark = f' <tspan class="mark">{MARKS[e.verdict]}</tspan>' if e.verdict in ("better", "worse") else ""
    return (f'<svg class="lm heat" viewBox="0 0 {BLOCK} 26" width="{BLOCK}" height="26" role="img" aria-label="{said}">'
            f'<title>{said}</title><path class="{level}" d="M0 0h{BLOCK}v26h-{BLOCK}z"/>'
            f'<text class="v v{level}" x="{BLOCK / 2:g}" y="17">{value}{mark}</text></svg>')


def words(e: Estimate, t: Strings = EN) -> tuple[str, str]:
    """The estimate and its interval as text: ("+12.0 %", "3.1 to 20.9"); the second is "" where there is no interval."""
    decimals = spread(e.value, e.low, e.high)
    value = f"{fixed(e.value, decimals, plus=bool(e.verdict), t=t)} {named(t, e.unit)}".rstrip()
    if e.low is None or e.high is None:
        return value, ""
    return value, t["interval"].format(low=fixed(e.low, decimals, t=t), high=fixed(e.high, decimals, t=t))
