"""Intervals and paired tests: no difference is called one before it has passed here.

Plain functions of arrays, float64, seeded where they draw. Every interval is 95 % unless `level` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

BETTER, WORSE, UNCLEAR = "better", "worse", "not distinguishable"


def z_value(level: float = 0.95) -> float:
    """The two-sided standard normal quantile: 1.96 at 0.95."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927). Nothing observed (`n = 0`) says nothing: (0, 1).

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z, p = z_value(level), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at the two ends the closed form is exactly 0 or 1; floating point would leave 1e-17 on the wrong side
    return (0.0 if successes == 0 else float(centre - half)), (1.0 if successes == n else float(centre + half))


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided p that two models are equally often right on the same items (binomial test on the discordant pairs).

    No discordant pair, or no item at all: 1.0.
    """
    x, y = _pair(a, b)
    only_a, only_b = int(np.sum((x > 0) & ~(y > 0))), int(np.sum(~(x > 0) & (y > 0)))
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))  # whole numbers: exact for any n
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))


def newcombe(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two paired proportions, mean(b) - mean(a) (Newcombe 1998, method 10).

    Keeps its coverage for small n and proportions near 0 and 1, where resampling gives an interval of no width.
    """
    x, y = _pair(a, b)
    n = len(x)
    if n == 0:
        return -1.0, 1.0
    both, only_a, only_b = float(np.sum(x * y)), float(np.sum(x * (1 - y))), float(np.sum((1 - x) * y))
    neither = n - both - only_a - only_b
    p1, p2 = (both + only_b) / n, (both + only_a) / n
    l1, u1 = wilson(round(both + only_b), n, level)
    l2, u2 = wilson(round(both + only_a), n, level)
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    agree = both * neither - only_a * only_b
    # the continuity correction of method 10 applies to a positive association only
    agree = max(agree - n / 2, 0.0) if agree > 0 else agree
    phi = agree / np.sqrt(product) if product > 0 else 0.0
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    d = p1 - p2
    return float(d - np.sqrt(max(down, 0.0))), float(d + np.sqrt(max(up, 0.0)))


DRAWS, BLOCK = 10_000, 250  # BLOCK is fixed, so that the draws do not depend on what else is drawn with them


@dataclass(frozen=True)
class Bootstrap:
    """A resampled statistic: its value, its percentile interval, the two-sided p that it is zero, its standard error."""

    value: float
    low: float
    high: float
    p: float
    se: float


def resampled(matrices: Sequence[np.ndarray], *, seed: int = 0, draws: int = DRAWS) -> Iterator[list[np.ndarray]]:
    """Bootstrap draws, BLOCK at a time: for each matrix [n, k] the sums [block, k] of n of its rows drawn with replacement.

    Matrices with as many rows get the same draws: models on the same items stay paired, and items that several languages have in
    parallel stay together. The sums of all matrices of one n are one product, so ten models cost hardly more than one.
    """
    sizes = sorted({len(m) for m in matrices})
    places = {n: [i for i, m in enumerate(matrices) if len(m) == n] for n in sizes}
    stacked = {n: np.hstack([np.asarray(matrices[i], np.float64) for i in places[n]]) for n in sizes}
    generators = {n: np.random.default_rng([seed, n]) for n in sizes}
    for start in range(0, draws, BLOCK):
        size, out = min(BLOCK, draws - start), [np.empty((0, 0))] * len(matrices)
        for n in sizes:
            sums, left = counts(generators[n], n, BLOCK)[:size] @ stacked[n], 0
            for i in places[n]:
                out[i] = sums[:, left:left + matrices[i].shape[1]]
                left += matrices[i].shape[1]
        yield out


def counts(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """float64 [size, n]: how often each of n items is drawn in each of `size` resamples."""
    drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def summarise(value: float, samples: ArrayLike, n: int, level: float = 0.95) -> Bootstrap:
    """Percentile interval and p of a statistic from its bootstrap samples; `n` items were drawn each time.

    p counts the samples on the far side of zero, with one added so that it is never zero (Davison & Hinkley 1997, eq. 4.11), and
    never goes below 2 / 2^n, the least that an exact two-sided test of n pairs can give: a bootstrap of few items is too sure.
    Raises ValueError when a sample is not finite.
    """
    s = np.asarray(samples, np.float64)
    if not (np.isfinite(s).all() and np.isfinite(value)):
        raise ValueError("a resampled score is not finite")
    low, high = np.quantile(s, [(1 - level) / 2, (1 + level) / 2])
    far = min(int(np.sum(s <= 0)), int(np.sum(s >= 0)))
    p = min(1.0, max(2 * (far + 1) / (len(s) + 1), 2.0 ** (1 - n)))
    return Bootstrap(float(value), float(low), float(high), p, float(s.std()))


def paired(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """b - a of two models' values on the same draws; what differs in its last bits only is equal."""
    d = np.subtract(b, a)
    return np.where(np.abs(d) <= 1e-12 * (np.abs(a) + np.abs(b)), 0.0, d)


def ranked(values: ArrayLike) -> np.ndarray:
    """Ranks from 1, float64 [n]; equal values share the mean of theirs."""
    x = np.asarray(values, dtype=np.float64)
    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[at.reshape(x.shape)]


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Rank correlation, -1 to 1; None where one of both does not vary, or there are fewer than two pairs."""
    x, y = (r - r.mean() for r in _pair(ranked(a), ranked(b)))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip((x @ y) / size, -1, 1)) if size > 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values that keep the family-wise error (Holm 1979): sorted, times what is left, never falling, at most 1."""
    p = np.asarray(p_values, np.float64)
    out, order, running = np.empty_like(p), np.argsort(p, kind="stable"), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        out[i] = running
    return [float(x) for x in out]


def verdict(difference: float, p: float, *, higher_is_better: bool = True, alpha: float = 0.05) -> str:
    """"better", "worse" or "not distinguishable" for model - reference at an adjusted p."""
    if not p < alpha or difference == 0:
        return UNCLEAR
    return BETTER if (difference > 0) == higher_is_better else WORSE


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"both models must answer the same items: got {x.shape} and {y.shape}")
    return x, y
