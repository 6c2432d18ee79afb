"""LAPE: neurons whose probability of firing is concentrated on few languages (Tang et al., ACL 2024, arXiv 2402.16438).

And AlignLAPE, which trades that concentration against strength (arXiv 2505.21505). `p` is float64 [layers, neurons, languages], the
share of a language's tokens at which a neuron's activation is > 0; `real` is bool [layers, neurons] and False where a layer has
fewer neurons than the widest: those are counted nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

FILTER, TOP, BAR = 0.95, 0.01, 0.95  # as published
LARGEST, PRECISION = 0.2, 1e-3  # of AlignLAPE's lambda: the interval searched and how finely
DIGITS = 12  # scores that differ by less are ties: their last bits depend on the order of summation


@dataclass(frozen=True)
class Scores:
    """`owned` bool [layers, neurons, languages]; `score` the method's own, float64.

    Either [layers, neurons], low where specific and +inf where a neuron was filtered, or [layers, neurons, languages], high where
    specific and -inf where there is no such neuron.
    """

    score: np.ndarray
    owned: np.ndarray
    thresholds: dict[str, float] = field(default_factory=dict)


def entropy(p: np.ndarray) -> np.ndarray:
    """float64 [layers, neurons]: - sum_k q_k ln q_k with q = p / sum_k p and 0 ln 0 = 0; 0 for a neuron that never fires."""
    total = p.sum(-1, keepdims=True)
    q = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    return -(q * np.log(q, out=np.zeros_like(q), where=q > 0)).sum(-1) + 0.0  # + 0.0: no minus zero


def kth(values: np.ndarray, rate: float) -> float:
    """The round(rate * size)-th smallest of `values`, counted from 1 (never an interpolated quantile); the smallest at rate 0."""
    flat = values.reshape(-1)
    k = max(1, round(rate * flat.size))
    return float(np.partition(flat, k - 1)[k - 1])


def lowest(score: np.ndarray, n: int) -> np.ndarray:
    """bool, shaped like `score`: the n lowest finite scores, the lowest index first among equals; fewer where fewer are finite."""
    flat = np.round(score.reshape(-1), DIGITS)
    n = min(n, flat.size)
    if n == 0:
        return np.zeros(score.shape, bool)
    last = np.partition(flat, n - 1)[n - 1]
    taken = flat < last
    taken[np.flatnonzero(flat == last)[: n - int(taken.sum())]] = True
    return (taken & np.isfinite(flat)).reshape(score.shape)


def lape(p: np.ndarray, real: np.ndarray | None = None, *, filter_rate: float = FILTER, top_rate: float = TOP,
         bar: float = BAR) -> Scores:  # fmt: skip
    """Language activation probability entropy, with the published defaults and order statistics.

    Dropped: neurons that exceed the `filter_rate` order statistic of all p in no language (with them all that never fire). Of the
    rest the round(top_rate * neurons) of lowest entropy are taken; language k owns one where p[.., k] exceeds the `bar` statistic.
    """
    inside = np.ones(p.shape[:2], bool) if real is None else real
    filtered = kth(p[inside], filter_rate)
    least = kth(p[inside], bar)
    score = np.where(inside & (p.max(-1) > filtered), entropy(p), np.inf)
    taken = lowest(score, round(top_rate * int(inside.sum())))
    return Scores(score, taken[..., None] & (p > least), {"filter": filtered, "bar": least})


def align_terms(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H / ln K and max_k p / m, two float64 [layers, neurons].

    m = (1/K) sum_k 1/k is the expected longest piece of a stick broken at random into K, as in the code released with the paper.
    """
    k = p.shape[-1]
    longest = sum(1 / i for i in range(1, k + 1)) / k
    return entropy(p) / (np.log(k) if k > 1 else 1.0), p.max(-1) / longest


def align_lape(p: np.ndarray, real: np.ndarray | None = None, *, weight: float | None = None, top_rate: float = TOP,
               bar: float = BAR) -> Scores:  # fmt: skip
    """AlignLAPE: the lowest H / ln K - lambda max_k p / m, without LAPE's filter; owned above the same bar.

    `weight` is lambda; None searches the largest in [0, 0.2] at which no neuron belongs to all languages, halving the interval down
    to 0.001, as released. Where not even 0 leaves none owned by all, it is 0; `thresholds` says how many are. A neuron that never
    fires has no language and is dropped (ours).
    """
    inside = np.ones(p.shape[:2], bool) if real is None else real
    least, (spread, strength) = kth(p[inside], bar), align_terms(p)
    n = round(top_rate * int(inside.sum()))

    def at(w: float) -> Scores:
        score = np.where(inside & (strength > 0), spread - w * strength, np.inf)
        owned = lowest(score, n)[..., None] & (p > least)
        return Scores(score, owned, {"bar": least, "lambda": w, "owned by all": float(owned.all(-1).sum())})

    return at(weight) if weight is not None else _largest(at)


def _largest(at: Callable[[float], Scores]) -> Scores:
    low, high = 0.0, LARGEST
    best = at(high)
    if best.thresholds["owned by all"] == 0:
        return best
    best = at(low)
    while high - low > PRECISION:
        middle = (low + high) / 2
        tried = at(middle)
        if tried.thresholds["owned by all"] == 0:
            low, best = middle, tried
        else:
            high = middle
    return best
