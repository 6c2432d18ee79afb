"""The best window: of all swaps (b, u, t) the one that follows a rule's scores best, found by going through them all (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.merge.zones import scaled

EQUAL = 1e-12  # of the sum of all scores: sums this near are ties


@dataclass(frozen=True)
class Fit:
    """A window and how well it follows: `value` is sum of w pull, w = 1 in swapped layers, 0 in transitions, -1 in the task's;
    `best` is what a free choice of every layer would reach."""

    bottom: int
    top: int
    transition: int
    value: float
    best: float

    @property
    def share(self) -> float:
        """Of the free choice's value; negative where the scores speak against every window."""
        return self.value / self.best


def best_window(pull: np.ndarray) -> Fit | None:
    """The window of largest value for pull, float64 [layers]; None where the pull is 0 everywhere, so that none is better.

    Of equal ones that of the transition nearest to the published one, then of the fewest swapped layers, then of the smaller
    bottom.
    """
    best = float(np.abs(pull).sum())
    if not best:
        return None
    n = len(pull)
    default = scaled("transition", n)
    found = [(b, u, t, _value(pull, b, u, t)) for t in range(max(1, default) + 1) for b in range(n + 1) for u in range(n + 1 - b)
             if t == 0 or (b + u > 0 and t * ((b > 0) + (u > 0)) <= n - b - u)]  # fmt: skip
    most = max(v for *_, v in found)
    tied = [f for f in found if f[3] >= most - EQUAL * best]
    b, u, t, value = min(tied, key=lambda f: (abs(f[2] - default), f[0] + f[1], f[0]))
    return Fit(b, u, t, value, best)


def _value(pull: np.ndarray, bottom: int, top: int, transition: int) -> float:
    n = len(pull)
    first, last = bottom + transition * (bottom > 0), n - top - transition * (top > 0)
    return float(pull[:bottom].sum() + pull[n - top :].sum() - pull[first:last].sum())
