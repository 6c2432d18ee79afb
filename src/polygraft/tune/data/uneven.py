"""When data are uneven enough to be told: one rule and one sentence for pairs, sources and sides."""

from __future__ import annotations

from collections.abc import Mapping

BEGIN = "the data are uneven"
UNEVEN = 2.0  # times as much of one as of another


def told(sizes: Mapping[str, float], unit: str, fix: str) -> tuple[str, ...]:
    """The warning that one of several has at least UNEVEN times as much as another; nothing where they are even, or one alone."""
    if len(sizes) < 2:
        return ()
    least, most = min(sizes, key=lambda s: sizes[s]), max(sizes, key=lambda s: sizes[s])
    if sizes[most] < UNEVEN * sizes[least]:
        return ()
    return (f"{BEGIN}: {_number(sizes[most])} {unit} of {most}, {_number(sizes[least])} of {least}; {fix}",)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2g}"
