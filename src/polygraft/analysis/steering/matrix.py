"""The effect matrix: what editing the neurons of language i does to reading language j, in nats on identical documents.

Replaces the perplexity change of the LAPE studies, whose two runs read different random text, by paired differences of nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Protocol

import numpy as np

from polygraft import stats
from polygraft.analysis.steering.effects import Addition, Effects, Grid, Judged, Observed, Ratio, effects, judged, observe
from polygraft.edits import Edits
from polygraft.errors import InputError, StepFailed
from polygraft.result import Cell, Estimate, Table

UNITS = {"token": "nats/token", "byte": "nats/byte", "sentence": "nats/sentence"}
ALL_ORDERS = 8  # up to 8! = 40,320 orders are all tried; beyond, as many are drawn


class Spent(Protocol):
    """What one document cost, as the evaluation's `Scored` says it."""

    @property
    def nats(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def bytes(self) -> int: ...


Nats = Callable[[Any, Sequence[str]], Sequence[Spent]]  # live model, documents -> what each cost


class Reader:
    """A measure for `effects.observe`: nats per token of the same documents of each language, and the proof that they were.

    `documents[language]`: parallel ones stay together in the intervals where all languages have as many. Raises StepFailed when
    a later run reads other tokens or bytes than the first.
    """

    def __init__(self, documents: Mapping[str, Sequence[str]], nats: Nats):
        if short := [language for language, texts in documents.items() if len(texts) < 2]:
            raise InputError("too few documents for an interval", where=short[0], found=len(documents[short[0]]),
                             expected="at least 2")
        self.documents, self.nats = documents, nats
        self.sizes: dict[str, dict[str, np.ndarray]] = {}

    def __call__(self, live: Any) -> dict[str, Ratio]:
        found = {}
        for language, texts in self.documents.items():
            spent = self.nats(live, texts)
            read = {"token": [s.tokens for s in spent], "byte": [s.bytes for s in spent], "sentence": [1] * len(spent)}
            sizes = {unit: np.asarray(n, np.float64) for unit, n in read.items()}
            first = self.sizes.setdefault(language, sizes)
            if any(not np.array_equal(first[unit], sizes[unit]) for unit in UNITS):
                raise StepFailed("the edited model read other windows than the unedited one", where=language)
            found[language] = Ratio(np.array([s.nats for s in spent], np.float64), sizes["token"], UNITS["token"])
        return found

    def per(self, observed: Observed, unit: str) -> Observed:
        """The same runs in nats per "token", "byte" or "sentence"."""
        def change(measured: Mapping[str, Ratio]) -> dict[str, Ratio]:
            return {k: replace(s, bottom=self.sizes[k][unit], unit=UNITS[unit]) for k, s in measured.items()}

        control = {row: [change(c) for c in some] for row, some in observed.control.items()}
        return Observed(change(observed.plain), {row: change(m) for row, m in observed.edited.items()}, control)


# ---------------------------------------------------------------------------------------------------------------- diagonal


@dataclass(frozen=True)
class Diagonal:
    """Mean effect on the own language minus mean effect on other languages, over the languages both edited and read.

    In such a square the fragility of a language and the size of a neuron set cancel. `gap`: its interval and p, over documents.
    `order_p`: the share of all ways to deal the neuron sets to the languages whose own effects sum to at least as much: a p over
    languages (least 1 / K!). `largest`: of how many languages the own neurons hurt most among all sets. All in `unit`.
    """

    languages: tuple[str, ...]
    own: float
    other: float
    gap: stats.Bootstrap
    order_p: float
    largest: int
    unit: str

    @property
    def holds(self) -> bool:
        """Own languages are hurt more than others: by the interval over documents and by the test over languages."""
        return self.gap.value > 0 and self.gap.p < 0.05 and self.order_p <= max(0.05, least_order_p(len(self.languages)))


def least_order_p(k: int) -> float:
    """The least p that dealing k sets to k languages can give."""
    return float(1 / np.prod(np.arange(1, k + 1, dtype=np.float64)))


def diagonal(e: Effects, grid: Grid, seed: int = 0) -> Diagonal | None:
    """The diagonal of `e.own` or `e.specific` against the rest; None with fewer than two languages both edited and read."""
    shared = [row for i, row in enumerate(e.rows) if row in e.columns and grid.known(i)]
    if len(shared) < 2:
        return None
    at = np.ix_([e.rows.index(s) for s in shared], [e.columns.index(s) for s in shared])
    k = len(shared)
    on = np.eye(k, dtype=bool)

    def gap(values: np.ndarray) -> np.ndarray:
        square = values[..., at[0], at[1]]
        return square[..., on].mean(axis=-1) - square[..., ~on].mean(axis=-1)

    square = grid.value[at]
    largest = int(sum(square[i, i] > np.delete(square[:, i], i).max() for i in range(k)))
    return Diagonal(tuple(shared), float(square[on].mean()), float(square[~on].mean()), grid.contrast(gap),
                    order_p(square, seed), largest, e.units[0])


def order_p(square: np.ndarray, seed: int = 0) -> float:
    """Exact permutation p of the trace: share of orders of the rows whose trace is at least the observed one (ties count)."""
    k = len(square)
    orders: Iterable[Sequence[int]] = permutations(range(k))
    if k > ALL_ORDERS:
        rng = np.random.default_rng([seed, k])
        orders = [range(k), *(rng.permutation(k).tolist() for _ in range(stats.DRAWS))]
    traces = np.array([square[list(order), range(k)].sum() for order in orders])
    return float(np.mean(traces >= np.trace(square) - 1e-12 * np.abs(square).sum()))


# ------------------------------------------------------------------------------------------------------------------ tables


def table(e: Effects, grid: Grid, title: str, note: str = "") -> Table:
    """Rows edited, columns read; every cell an Estimate with its verdict, adjusted by Holm over all cells of the table."""
    cells = [(i, j) for i in range(len(e.rows)) if grid.known(i) for j in range(len(e.columns))]
    found = judged(e, grid, cells)
    rows: list[tuple[Cell, ...]] = []
    for i, row in enumerate(e.rows):
        estimates: list[Cell] = [_estimate(e, grid, found[i, j], j) if (i, j) in found else None for j in range(len(e.columns))]
        rows.append((row, *estimates))
    return Table(title, ("edited", *(f"reading {c}" for c in e.columns)), tuple(rows), note)


def _estimate(e: Effects, grid: Grid, judgement: Judged, column: int) -> Estimate:
    boot, _, said = judgement
    return Estimate(boot.value, boot.low, boot.high, grid.items[column], e.units[column], said)


def tables(e: Effects) -> tuple[Table, ...]:
    """The edit's effect, and where there are controls, theirs and the difference."""
    unit = e.units[0]
    note = f"{unit}; positive: the text became harder to predict. 95 % paired bootstrap over documents, verdicts by Holm."
    found = [table(e, e.own, "Effect of editing a language's neurons", note)]
    if any(e.controls):
        least = min(c for c in e.controls if c)
        drawn = f"{note} Mean of {least} or more sets, with an interval for one more."
        found.append(table(e, e.random, "Effect of random neurons, as many in each layer", drawn))
        wide = f"{note} Intervals take in which sets were drawn."
        found.append(table(e, e.specific, "Specific effect: own neurons minus random ones", wide))
    return tuple(replace(t, heat=True) for t in found)


def sentence(d: Diagonal | None, what: str = "own neurons minus random ones") -> str:
    """Whether languages have neurons of their own, in one plain sentence."""
    if d is None:
        return "One language alone has no off-diagonal: edit and read at least two."
    begin = "Yes: editing a language's neurons hurts that language more than others" if d.holds else (
        "No: editing a language's neurons does not hurt that language more than others, as far as this text can tell")
    g = d.gap
    return (f"{begin}: {d.own:+.4g} on the diagonal and {d.other:+.4g} off it ({d.unit}, {what}), difference {g.value:+.4g} "
            f"[{g.low:+.4g}, {g.high:+.4g}], p = {g.p:.2g} over documents and {d.order_p:.2g} over languages; the own neurons "
            f"hurt most in {d.largest} of {len(d.languages)} languages.")


def data(e: Effects, d: Diagonal | None) -> dict[str, Any]:
    """Plain values for `Result.data`: every cell with its interval and p, before adjusting."""
    grids = {"own": e.own, "random": e.random, "specific": e.specific}
    cells = {name: [[_plain(grid.cell(i, j)) if grid.known(i) else None for j in range(len(e.columns))] for i in range(len(e.rows))]
             for name, grid in grids.items()}
    gap = None if d is None else {"languages": list(d.languages), "own": d.own, "other": d.other, "gap": _plain(d.gap),
                                  "order_p": d.order_p, "largest": d.largest, "holds": d.holds}
    return {"edited": list(e.rows), "read": list(e.columns), "unit": e.units[0], "unedited": list(e.plain),
            "controls": list(e.controls), "cells": cells, "diagonal": gap}


def _plain(b: stats.Bootstrap) -> dict[str, float]:
    return {"value": b.value, "low": b.low, "high": b.high, "p": b.p}


def of(observed: Observed, seed: int = 0, draws: int = stats.DRAWS) -> tuple[Effects, Diagonal | None]:
    """Effects and the diagonal: of the specific effect where every edited language has controls, else of the edit's own."""
    e = effects(observed, seed=seed, draws=draws)
    return e, diagonal(e, e.specific if all(e.controls) else e.own, seed)


CAVEATS = (
    "Random neurons match the found ones in number and layer, not in how often they fire: neurons that seldom fire are idle "
    "anyway, so a specific effect says that a set matters, not that nothing else in its layers does.",
    "The nats of a token, byte or sentence are not comparable between languages; their changes are compared within a column.",
)


def study(live: Any, edits: Mapping[str, Edits], controls: Mapping[str, Sequence[Edits]], documents: Mapping[str, Sequence[str]],
          nats: Nats, *, unit: str = "token", seed: int = 0, progress: Callable[..., None] | None = None) -> Addition:
    """The effect matrix of languages (rows of `edits`) on documents of languages (columns), with its tables and sentences.

    Reads all documents once unedited, once for each row and once for each control. `data["units"]` has the matrix in every unit.
    """
    reading = Reader(documents, nats)
    observed = observe(live, edits, controls, reading, progress)
    found = {u: of(reading.per(observed, u), seed) for u in UNITS}
    e, d = found[unit]
    read = {language: {u: int(sizes[u].sum()) for u in UNITS} for language, sizes in reading.sizes.items()}
    told = {"read_sizes": read, "units": {u: data(*some) for u, some in found.items()}}
    what = "own neurons minus random ones" if all(e.controls) else "no random control"
    idle = [language for language in documents if language not in edits]
    rest = (f"Read and not edited, since no neurons of theirs were selected: {', '.join(idle)}.",) if idle else ()
    return Addition((sentence(d, what), *rest), tables(e), told, CAVEATS)
