"""What edits change: the same items measured without an edit, with it, and with random ones of its size; paired, with intervals.

Rows are edits (a language's neurons, a way of steering), columns are what was measured (nats of a language, a task's accuracy).
One bootstrap over items serves all cells and every contrast of cells, so rows stay paired and parallel items stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polygraft import stats
from polygraft.edits import Edits, applied
from polygraft.errors import InputError, StepFailed
from polygraft.result import Table

LEAST_CONTROLS = 3  # fewer random draws than this say nothing of how much random draws differ


@dataclass(frozen=True, eq=False)
class Ratio:
    """One column under one condition: `top`, `bottom` float64 [items], its value is sum(top) / sum(bottom).

    Nats over tokens, right answers over ones. Raises InputError for numbers that are not finite or nothing to divide by.
    """

    top: np.ndarray
    bottom: np.ndarray
    unit: str = ""
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "bottom"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.top.shape != self.bottom.shape or self.top.ndim != 1:
            raise InputError("a score needs one size per item", found=f"{self.top.shape} and {self.bottom.shape}")
        if not (np.isfinite(self.top).all() and np.isfinite(self.bottom).all()):
            raise InputError("a score is not a number", where=self.unit, found=f"item {int(np.argmin(np.isfinite(self.top)))}",
                             fix="look for NaN or Inf in the model, or edit more gently")
        if not self.bottom.sum() > 0:
            raise InputError("nothing was measured: every item is empty", where=self.unit, found=f"{len(self.top)} items")

    @property
    def value(self) -> float:
        return float(self.top.sum() / self.bottom.sum())


Column = str
Measured = Mapping[Column, Ratio]
Measure = Callable[[Any], Measured]  # a live model -> its scores, the same items in the same order every time


@dataclass(frozen=True)
class Observed:
    """The columns without an edit, with each row's edit, and with each of the row's random controls."""

    plain: Measured
    edited: Mapping[str, Measured]
    control: Mapping[str, Sequence[Measured]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.edited:
            raise InputError("nothing was edited, so there is no effect", fix="name what to edit")
        for name, measured in self.conditions():
            if list(measured) != list(self.plain):
                raise StepFailed("another run measured other columns", where=name, found=", ".join(measured),
                                 expected=", ".join(self.plain))
            for column, scores in measured.items():
                if len(scores.top) != len(self.plain[column].top):
                    raise StepFailed("another run measured other items", where=f"{name}: {column}", found=len(scores.top),
                                     expected=len(self.plain[column].top))

    def conditions(self) -> list[tuple[str, Measured]]:
        """Every run: the unedited one, then each row followed by its controls."""
        found = [("unedited", self.plain)]
        for row, measured in self.edited.items():
            found += [(row, measured), *((f"random control of {row}", c) for c in self.control.get(row, ()))]
        return found


def observe(live: Any, edits: Mapping[str, Edits], controls: Mapping[str, Sequence[Edits]], measure: Measure,
            progress: Callable[..., None] | None = None) -> Observed:
    """Measure without edits, with each row's, and with each of its random controls. One run each, all on the same items."""
    total = 1 + sum(1 + len(controls.get(row, ())) for row in edits)
    done = 0

    def one(name: str, edit: Edits | None) -> Measured:
        nonlocal done
        if progress is not None:
            progress(done, total, name)
        done += 1
        if edit is None:
            return measure(live)
        with applied(live, edit):
            return measure(live)

    plain = one("unedited", None)
    edited, control = {}, {}
    for row, edit in edits.items():
        edited[row] = one(row, edit)
        control[row] = [one(f"{row}, random {i + 1}", e) for i, e in enumerate(controls.get(row, ()))]
    return Observed(plain, edited, control)


@dataclass(frozen=True)
class Addition:
    """What a study adds to a step's Result."""

    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    data: dict[str, Any]
    caveats: tuple[str, ...]


# ----------------------------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True, eq=False)
class Grid:
    """A number for every row and column: `value` float64 [rows, columns] and its bootstrap `samples` [draws, rows, columns].

    NaN in rows without a control marks that there is nothing to show.
    """

    value: np.ndarray
    samples: np.ndarray
    items: tuple[int, ...]  # of each column

    def cell(self, row: int, column: int) -> stats.Bootstrap:
        return stats.summarise(self.value[row, column], self.samples[:, row, column], self.items[column])

    def contrast(self, of: Callable[[np.ndarray], np.ndarray]) -> stats.Bootstrap:
        """Interval and p of a function [..., rows, columns] -> [...] of all cells, such as a mean of some minus that of others."""
        return stats.summarise(float(of(self.value)), of(self.samples), min(self.items))

    def known(self, row: int) -> bool:
        return bool(np.isfinite(self.value[row]).all())


@dataclass(frozen=True)
class Effects:
    """Differences from the unedited model. `own`: the row's edit. `random`: the mean of its controls, with an interval for one
    more of them. `specific`: own - random.

    `spread[row, column]` holds the least and greatest effect of single controls (NaN without any); `controls` how many there are.
    """

    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    plain: tuple[float, ...]
    units: tuple[str, ...]
    higher_is_better: tuple[bool, ...]
    own: Grid
    random: Grid
    specific: Grid
    spread: np.ndarray
    controls: tuple[int, ...]


def effects(observed: Observed, *, seed: int = 0, draws: int = stats.DRAWS) -> Effects:
    """Differences between runs with percentile intervals from a paired bootstrap over items.

    Every cell is resampled by the same draws: columns of as many items are taken to be parallel. `random` and `specific` also vary
    by which random set is drawn (`_control_weights`): an effect is specific when one more random set would hardly have it (ours).
    """
    rows, columns = tuple(observed.edited), tuple(observed.plain)
    counts = tuple(len(observed.control.get(row, ())) for row in rows)
    runs = [measured for _, measured in observed.conditions()]
    tables = [np.column_stack([a for m in runs for a in (m[c].top, m[c].bottom)]) for c in columns]
    draws = max(draws, 100 * len(rows) * len(columns))  # so that Holm over all cells can still come out below 0.05
    weights = _control_weights(np.random.default_rng([seed, len(rows)]), counts, draws)
    observed_runs = _values([t.sum(axis=0)[None] for t in tables])
    value = _differences(observed_runs, counts, [np.full((1, r), 1 / max(r, 1)) for r in counts])
    kept: list[tuple[np.ndarray, ...]] = []
    start = 0
    for block in stats.resampled(tables, seed=seed, draws=draws):
        stop = start + len(block[0])
        kept.append(_differences(_values(block, observed_runs), counts, [w[start:stop] for w in weights]))
        start = stop
    items = tuple(len(t) for t in tables)
    own, random, specific = (Grid(value[i][0], np.concatenate([k[i] for k in kept]), items) for i in range(3))
    first = [observed.plain[c] for c in columns]
    return Effects(rows, columns, tuple(s.value for s in first), tuple(s.unit for s in first),
                   tuple(s.higher_is_better for s in first), own, random, specific, _spread(observed_runs[0], counts), counts)


def _values(sums: Sequence[np.ndarray], instead: np.ndarray | None = None) -> np.ndarray:
    """[draws, runs, columns]: tops over bottoms; a draw of empty items only takes what was observed, for it says nothing new."""
    top, bottom = np.stack([s[:, 0::2] for s in sums], -1), np.stack([s[:, 1::2] for s in sums], -1)
    safe = np.where(bottom > 0, bottom, 1.0)
    return top / safe if instead is None else np.where(bottom > 0, top / safe, instead)


def _differences(runs: np.ndarray, counts: Sequence[int], weights: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """(own, random, specific), each [draws, rows, columns], from the runs' values in the order of `Observed.conditions`."""
    plain, own, random, at = runs[:, :1], [], [], 1
    for count, weight in zip(counts, weights):
        own.append(stats.paired(plain, runs[:, at:at + 1])[:, 0])
        drawn = stats.paired(plain, runs[:, at + 1:at + 1 + count])
        random.append((drawn * weight[..., None]).sum(axis=1) if count else np.full_like(own[-1], np.nan))
        at += 1 + count
    o, r = np.stack(own, 1), np.stack(random, 1)
    return o, r, stats.paired(r, o)


def _control_weights(rng: np.random.Generator, counts: Sequence[int], draws: int) -> list[np.ndarray]:
    """For each row float64 [draws, R]: weights of its R controls, which sum to 1, whose sum is what one more random set does.

    1 / R + u sqrt(1 + 1 / R) (g - mean g) / sqrt(R - 1) with g standard normal and u^2 = (R - 1) / chi-squared of R - 1: the
    predictive distribution of a normal sample (Student's t), the same weights for every column. One control has no spread to tell.
    """
    found = []
    for r in counts:
        if r < 2:
            found.append(np.ones((draws, r)))
            continue
        g = rng.standard_normal((draws, r))
        u = np.sqrt((r - 1) / rng.chisquare(r - 1, (draws, 1)))
        found.append(1 / r + u * np.sqrt(1 + 1 / r) * (g - g.mean(axis=1, keepdims=True)) / np.sqrt(r - 1))
    return found


def _spread(runs: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """float64 [rows, columns, 2]: least and greatest effect of single controls."""
    out, at = np.full((len(counts), runs.shape[1], 2), np.nan), 1
    for i, count in enumerate(counts):
        if count:
            drawn = stats.paired(runs[:1], runs[at + 1:at + 1 + count])
            out[i] = np.stack([drawn.min(axis=0), drawn.max(axis=0)], -1)
        at += 1 + count
    return out


# ------------------------------------------------------------------------------------------------------------------ cells


Judged = tuple[stats.Bootstrap, float, str]  # estimate, p adjusted by Holm, "better" | "worse" | "not distinguishable"


def judged(e: Effects, grid: Grid, cells: Sequence[tuple[int, int]], alpha: float = 0.05) -> dict[tuple[int, int], Judged]:
    """Every cell with its interval, p and verdict; these cells are the family that Holm adjusts over."""
    found = {cell: grid.cell(*cell) for cell in cells}
    adjusted = stats.holm([b.p for b in found.values()])
    return {cell: (b, p, stats.verdict(b.value, p, higher_is_better=e.higher_is_better[cell[1]], alpha=alpha))
            for (cell, b), p in zip(found.items(), adjusted)}
