"""Intervals and paired tests: no difference is called one before it has passed here.

Plain functions of arrays, float64, seeded where they draw. Every interval is 95 % unless `level` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Bootstrap:
    """A resampled statistic: its value, its percentile interval, and the two-sided p that it is zero."""

    value: float
    low: float
    high: float
    p: float
    n: int


def bootstrap(values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0, draws: int = 10_000,
              level: float = 0.95) -> Bootstrap:
    """Percentile bootstrap of sum(values) / sum(weights), items drawn with replacement (weights default to 1: the mean).

    `values` and `weights` have one entry per item (a question, or a document with its bytes). The p value counts the draws on
    the far side of zero, with one added so that it is never zero (Davison & Hinkley 1997, eq. 4.11). Raises ValueError when
    there is no item, when a value is not finite, or when the weights do not sum to something positive.
    """
    v, w = _weighted(values, weights)
    return _resampled(len(v), lambda counts: _ratio(counts, v, w), seed, draws, level)


def paired_bootstrap(a: ArrayLike, b: ArrayLike, weights_a: ArrayLike | None = None,
                     weights_b: ArrayLike | None = None, *, seed: int = 0, draws: int = 10_000,
                     level: float = 0.95) -> Bootstrap:
    """Bootstrap of sum(b) / sum(weights_b) - sum(a) / sum(weights_a) over the same items: what changed from model a to model b.

    Every draw takes the same items for both models. Raises ValueError as `bootstrap` does, and for unequal numbers of items.
    """
    (x, wx), (y, wy) = _weighted(a, weights_a), _weighted(b, weights_b)
    _pair(a, b)
    return _resampled(len(x), lambda counts: _ratio(counts, y, wy) - _ratio(counts, x, wx), seed, draws, level)


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


def detectable(spread: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest mean difference that n paired items show with this power: (z_a + z_b) * spread / sqrt(n).

    `spread` is the standard deviation of the paired differences (for right/wrong items about the root of the share of
    discordant pairs). Infinite when there is no item.
    """
    if n == 0:
        return float("inf")
    return (z_value(1 - alpha) + NormalDist().inv_cdf(power)) * spread / float(np.sqrt(n))


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"both models must answer the same items: got {x.shape} and {y.shape}")
    return x, y


def _weighted(values: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    v = np.asarray(values, np.float64)
    w = np.ones_like(v) if weights is None else np.asarray(weights, np.float64)
    if v.ndim != 1 or v.shape != w.shape or len(v) == 0:
        raise ValueError(f"one value and one weight per item, at least one item: got {v.shape} and {w.shape}")
    if not (np.isfinite(v).all() and np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("values and weights must be finite, and the weights at least 0 with a positive sum")
    return v, w


def _ratio(counts: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """sum(values) / sum(weights) of each resample; a resample of empty documents only (weight 0) counts as 0."""
    total = counts @ w
    return np.divide(counts @ v, total, out=np.zeros(len(counts)), where=total > 0)


def _resampled(n: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int, draws: int, level: float,
               block: int = 500) -> Bootstrap:
    """The statistic of `draws` resamples, a block at a time so that memory stays at block x items."""
    rng, samples = np.random.default_rng(seed), np.empty(draws)
    for start in range(0, draws, block):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(block, draws - start)).astype(np.float64)
        samples[start:start + len(counts)] = statistic(counts)
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    far = min(int(np.sum(samples <= 0)), int(np.sum(samples >= 0)))
    value = float(statistic(np.ones((1, n)))[0])
    return Bootstrap(value, float(low), float(high), min(1.0, 2 * (far + 1) / (draws + 1)), n)
