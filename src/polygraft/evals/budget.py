"""A time budget: how many items of each job fit, which ones they are, chosen before any answer is seen.

Every job gets as many items as makes the sum of the scores' variances least for the time there is: n of a job is proportional to
1 / sqrt(seconds an item), the optimum allocation of stratified sampling (Cochran, Sampling Techniques, 5.5). The hash of their ids
decides which ones, evenly over a job's strata; a smaller budget asks a subset of what a larger one asks.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from polygraft.errors import RecipeError

UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "sec": 1.0}
SHARE = 0.9  # of the time is planned; the rest is for what the prediction missed
PROBES = (1, 1, 8, 32)  # items asked to warm up, and then to time
PROBE_SHARE = 0.1  # of the budget may go into timing more items


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `1.5h`, `1h30m`. Raises RecipeError."""
    compact = re.sub(r"\s", "", text.lower())
    found = re.findall(r"([0-9]+(?:\.[0-9]+)?)([a-z]+)", compact)
    whole = bool(found) and "".join(n + unit for n, unit in found) == compact
    seconds = sum(float(n) * UNITS.get(unit, math.nan) for n, unit in found) if whole else math.nan
    if math.isfinite(seconds) and seconds > 0:
        return seconds
    number = re.match(r"([0-9]+(?:\.[0-9]+)?)([a-z]?)", compact)
    near = "write 90s, 10m or 1h30m" if number is None or float(number[1]) == 0 else (
        f"did you mean `{number[0]}`?" if number[2] in UNITS else f"`{number[1]}s` or `{number[1]}m`?")
    raise RecipeError("not a length of time", found=text[:100], expected="hours, minutes and seconds such as 10m", fix=near)


def spoken(seconds: float) -> str:
    """`1 h 30 min`, `10 min`, `45 s`."""
    hours, minutes, rest = int(seconds // 3600), int(seconds % 3600 // 60), round(seconds % 60)
    parts = [f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if n]
    return " ".join(parts[:2]) or f"{seconds:.1f} s"


# --------------------------------------------------------------------------------------------------------------- choosing


def order(ids: Sequence[str], strata: Sequence[str] = (), groups: Sequence[str] = (), seed: int = 0) -> list[list[int]]:
    """All items (their places) in an order of which every beginning is an even sample over the strata, picked by hash.

    One entry an item, or one a group of items that count only together. strata and groups, where given, go with the ids.
    """
    units: dict[str, list[int]] = {}
    for i, name in enumerate(ids):
        units.setdefault(f"group {g}" if groups and (g := groups[i]) else f"item {name}", []).append(i)
    by_stratum: dict[str, list[str]] = {}
    for name, places in units.items():
        by_stratum.setdefault(strata[places[0]] if strata else "", []).append(name)
    ranked = []
    for stratum, names in by_stratum.items():
        start = _fraction(seed, "stratum", stratum)
        for k, name in enumerate(sorted(names, key=lambda n: _fraction(seed, n))):
            ranked.append(((k + start) / len(names), name))
    return [units[name] for _, name in sorted(ranked)]


def _fraction(*words: object) -> float:
    """A number in [0, 1) that nobody chose."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48


def allocate(costs: Sequence[float], sizes: Sequence[int], seconds: float, least: Sequence[int] = ()) -> list[int]:
    """How many of `sizes[j]` items of each job, at `costs[j]` seconds each, fit into `seconds`: all, or about 1 / sqrt(cost).

    More seconds never give a job fewer items. A job gets at least `least[j]` (default 1); zeros for all when not even these fit.
    """
    floors = least or [1] * len(sizes)
    roots = [1 / math.sqrt(max(c, 1e-9)) for c in costs]

    def taken(scale: float) -> list[int]:
        return [min(size, max(floor, int(scale * r))) for size, r, floor in zip(sizes, roots, floors)]

    def cost(numbers: Sequence[int]) -> float:
        return sum(c * n for c, n in zip(costs, numbers))
    if cost(taken(0)) > seconds:
        return [0] * len(sizes)
    low, high = 0.0, max((size + 1) / r for size, r in zip(sizes, roots)) if sizes else 0.0
    if cost(taken(high)) <= seconds:
        return taken(high)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(taken(middle)) <= seconds else (low, middle)
    return taken(low)


# ----------------------------------------------------------------------------------------------------------------- timing


@dataclass
class Budget:
    """The time of one evaluation, from now on. `clock` gives seconds."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()

    @property
    def left(self) -> float:
        return self.seconds - (self.clock() - self.start)


def seconds_an_item(ask: Callable[[list[int]], list[float]], places: Sequence[Sequence[int]], allowed: float) -> float:
    """What one unit of a job costs, by asking the first of its order: `ask(places) -> seconds of each`.

    The first only warms up: the next one is asked whatever it took. Others follow while they take less than `allowed` seconds by
    what the last ones took, since large batches are faster. None is lost, as what is asked first belongs to every sample; of the
    answers nothing is read but the time they took.
    """
    cost, at = 0.0, 0
    for turn, most in enumerate(PROBES):
        n = min(most, len(places) - at, int(allowed / cost) if turn > 1 and cost > 0 else most)
        if n < 1 or (turn > 2 and n < most):
            break
        cost = sum(ask([i for unit in places[at:at + n] for i in unit])) / n
        at += n
    return cost
