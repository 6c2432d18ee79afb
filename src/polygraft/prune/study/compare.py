"""Settings compared on the same documents or items: values over seeds, paired differences, and what another seed alone does.

A difference is called one where its interval does not hold zero (paired bootstrap over items, Holm over the table), and where it is
larger than the largest difference that another seed of one and the same calibration makes in that language: the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft import stats
from polygraft.result import Estimate


@dataclass(frozen=True)
class Column:
    """One metric in one language: `tops`, `bottoms` float64 [items, settings, seeds]; the value is scale * sum top / sum bottom,
    meaned over seeds. `dense` float64 [items, 2], the same of the model that was not pruned."""

    language: str
    tops: np.ndarray
    bottoms: np.ndarray
    dense: np.ndarray
    unit: str = "bits/byte"
    higher: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Compared:
    """`values` [settings] and `by_seed` [settings, seeds]; `draws` [draws, settings] of the bootstrap; `dense` and its draws;
    `floor`: the largest difference between two seeds of one setting, None with one seed."""

    column: Column
    by_seed: np.ndarray
    draws: np.ndarray
    dense: float
    dense_draws: np.ndarray

    @property
    def values(self) -> np.ndarray:
        return np.asarray(self.by_seed.mean(1))

    @property
    def floor(self) -> float | None:
        return float(np.ptp(self.by_seed, axis=1).max()) if self.by_seed.shape[1] > 1 else None

    def estimate(self, i: int) -> Estimate:
        """Setting i with its interval over items."""
        return _estimate(self.column, float(self.values[i]), self.draws[:, i])

    def dense_estimate(self) -> Estimate:
        return _estimate(self.column, self.dense, self.dense_draws)

    def against(self, i: int, reference: int | None) -> stats.Bootstrap:
        """Setting i minus the reference (None: the dense model), on the same draws."""
        value, draws = self.dense, self.dense_draws
        if reference is not None:
            value, draws = float(self.values[reference]), self.draws[:, reference]
        difference = float(stats.paired(value, float(self.values[i])))
        return stats.summarise(difference, stats.paired(draws, self.draws[:, i]), len(self.column.tops))


def _estimate(column: Column, value: float, draws: np.ndarray) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(column.tops), column.unit)


def compared(columns: Sequence[Column], seed: int = 0) -> list[Compared]:
    """Every column on its own draws of items; columns with as many items are drawn alike."""
    matrices = [np.hstack([c.dense, c.tops.reshape(len(c.tops), -1), c.bottoms.reshape(len(c.bottoms), -1)]) for c in columns]
    drawn = [np.concatenate(parts) for parts in zip(*stats.resampled(matrices, seed=seed), strict=True)]
    return [_compared(c, m.sum(0)[None], d) for c, m, d in zip(columns, matrices, drawn, strict=True)]


def _compared(c: Column, whole: np.ndarray, drawn: np.ndarray) -> Compared:
    dense, values = _values(c, whole)
    dense_draws, draws = _values(c, drawn)
    return Compared(c, values[0], draws.mean(2), float(dense[0]), dense_draws)


def _values(c: Column, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([draws], [draws, settings, seeds]) from sums [draws, 2 + 2 settings * seeds]. A draw without any size counts as 0."""
    n, shape = c.tops[0].size, (len(sums), *c.tops.shape[1:])
    tops, bottoms = np.hstack([sums[:, :1], sums[:, 2 : 2 + n]]), np.hstack([sums[:, 1:2], sums[:, 2 + n :]])
    found = c.scale * np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms > 0)
    return found[:, 0], found[:, 1:].reshape(shape)


def differences(found: Sequence[Compared], pairs: Sequence[tuple[int, int, int | None]]) -> dict[tuple[int, int], Estimate]:
    """(column, setting) -> the difference from a reference setting of that column (None: dense), for `pairs` of (column, setting,
    reference): judged by Holm over all of them, and called one only above the floor."""
    tests = [found[c].against(i, reference) for c, i, reference in pairs]
    adjusted = stats.holm([t.p for t in tests])
    out = {}
    for (c, i, reference), t, p in zip(pairs, tests, adjusted, strict=True):
        column, floor = found[c].column, found[c].floor
        said = stats.verdict(t.value, p, higher_is_better=column.higher)
        if reference is not None and (floor is None or abs(t.value) <= floor):
            said = stats.UNCLEAR
        out[c, i] = Estimate(t.value, t.low, t.high, len(column.tops), column.unit, said)
    return out


def chosen(found: Compared, among: Sequence[int]) -> list[int]:
    """The best of some settings, and all that cannot be told from it (paired, Holm over them, floor): the best first."""
    sign = -1 if found.column.higher else 1
    best = min(among, key=lambda i: (sign * found.values[i], i))
    rest = [i for i in among if i != best]
    judged = differences([found], [(0, i, best) for i in rest])
    return [best, *(i for i in rest if judged[0, i].verdict == stats.UNCLEAR)]
