"""Claims about methods: several trainings (seeds) of each, and a two-level bootstrap over seeds and items.

Intervals over items say how a checkpoint would do on other items. Whether a *method* is better also depends on how much its trainings
differ; the items cannot know that. Here both are drawn: items (the same ones for every model) and, within a method, trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gamma, pi, sqrt

import numpy as np

from polygraft.errors import InputError
from polygraft.evals.verdicts import stats
from polygraft.evals.verdicts.compare import Figure, Samples

LEAST = 3  # seeds below which nothing is said about a method
LARGE = 300.0  # degrees of freedom beyond which Student's t is as good as normal
NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


@dataclass(frozen=True)
class MethodDifference:
    """method - reference: means over seeds; `se` from two levels, `df` how much that error is known (Satterthwaite)."""

    value: float
    low: float
    high: float
    p: float
    se: float
    df: float


def check_seeds(methods: Mapping[str, Sequence[str]]) -> None:
    """Refuse methods with two seeds: one model is a checkpoint, three are a method, two are neither. Raises InputError."""
    for name, members in methods.items():
        if len(members) != 1 and len(members) < LEAST:
            raise InputError("too few training seeds to speak of a method", where=name, found=f"{len(members)} models",
                             expected=f"at least {LEAST}: less do not show how much trainings differ",
                             fix="train more seeds, or compare the checkpoints by themselves")


def method_values(f: Figure, members: Sequence[str], samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """(scores on all items [seeds], scores on each draw of the items [draws, seeds]) of one method's models."""
    return (np.array([f.observed(m) for m in members]), np.stack([samples[id(f)][m] for m in members], axis=1))


def two_level(reference: tuple[np.ndarray, np.ndarray], method: tuple[np.ndarray, np.ndarray], n: int,
              level: float = 0.95) -> MethodDifference:
    """mean(method) - mean(reference) with an interval and p for other items *and* other trainings.

    Each argument is (observed [s], drawn [draws, s]): the scores of s seeds on all items, and on each bootstrap draw of the items,
    the same draws for both. n: number of items. Seeds that are one checkpoint (s = 1) are fixed: nothing is said beyond it.

    Variance = items + seeds. Items: the spread of the difference of means over the draws. Seeds of each method: the variance of
    its observed scores over s, less the share of it that comes from items being few (how far the seeds' scores move apart from one
    draw to the next), so that nothing is counted twice; never below zero. Drawing s seeds with replacement would give the same but
    for a factor (s - 1) / s, which three seeds cannot afford. The interval is Student's, with Satterthwaite's degrees of freedom:
    three seeds do not know their own variance well. p is never below 2 / 2^n.
    """
    drawn = stats.paired(reference[1].mean(axis=1), method[1].mean(axis=1))
    items = float(drawn.var())
    seeds = [_between(*side) for side in (reference, method)]
    variance = items + sum(v for v, _ in seeds)
    doubt = items**2 / max(n - 1, 1) + sum(v**2 / df for v, df in seeds if df)
    df = min(LARGE, variance**2 / doubt) if doubt > 0 else LARGE
    value, se = float(stats.paired(reference[0].mean(), method[0].mean())), sqrt(variance)
    half = t_quantile(0.5 + level / 2, df) * se
    p = 1.0 if value == 0 else 2 * t_tail(abs(value) / se, df) if se > 0 else 0.0
    return MethodDifference(value, value - half, value + half, min(1.0, max(p, 2.0 ** (1 - n))), se, df)


def _between(observed: np.ndarray, drawn: np.ndarray) -> tuple[float, int]:
    """(variance of the mean over seeds that is due to the seeds, its degrees of freedom); (0, 0) for one seed."""
    s = len(observed)
    if s == 1:
        return 0.0, 0
    noise = float((drawn - observed).var(axis=1, ddof=1).mean())
    return max(float(observed.var(ddof=1)) - noise, 0.0) / s, s - 1


# ------------------------------------------------------------------------------------------------------- Student's t


def t_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0 and df <= 300 degrees of freedom, by Gauss-Legendre quadrature after t = sqrt(df) tan(x)."""
    low = np.arctan(t / sqrt(df))
    half = (pi / 2 - low) / 2
    whole = sqrt(pi) * gamma(df / 2) / gamma((df + 1) / 2)
    return float(half * np.sum(WEIGHTS * np.cos(low + half * (NODES + 1)) ** (df - 1)) / whole)


def t_quantile(q: float, df: float) -> float:
    """The q-quantile (0.5 <= q < 1) of Student's t, by bisection."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > 1 - q:
        high *= 2
    for _ in range(50):
        mid = (low + high) / 2
        low, high = (mid, high) if t_tail(mid, df) > 1 - q else (low, mid)
    return high
