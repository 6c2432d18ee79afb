"""A metric: what one item adds, and how the sums over items become the score.

Every metric here is a function of sums over items: a mean is (sum of x) / (sum of 1), MCC and macro-F1 are functions of a summed
confusion matrix, BLEU and chrF of summed n-gram counts, calibration error of sums per bin. So one paired bootstrap, one
two-level bootstrap (seeds, items) and one table serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.evals.items import Item, Response

INF = float("inf")
BOUNDS = {"%": (0.0, 100.0), "points": (0.0, 100.0), "nats": (0.0, INF), "bits/byte": (0.0, INF), "characters": (0.0, INF)}
LONGEST = 50_000  # characters of an answer that are compared with a reference: more than any task lets a model write


def mean(sums: np.ndarray) -> np.ndarray:
    """(sum of values, number of items) [..., 2] -> mean [...]; nothing summed is 0."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0)


@dataclass(frozen=True)
class Metric:
    """score: an item's columns (k numbers, for means a value and 1); value: sums of columns [..., k] -> score [...].

    unit: "%" multiplies by 100 in tables. binary: each item is right or wrong (columns (0 or 1, 1)), so that Wilson, McNemar and
    Newcombe apply. meaning: one line below the table. group: "all" when items of one group count once, and only if all are right;
    "sum" when they are added up, so that a document is resampled as a whole.
    span: the least and the most that a score can be, in its unit, where that is not what `BOUNDS` says of the unit.
    averages: False where scores of different languages may not be averaged (bits per byte). parse: the answer that was read out of
    a written text, for the record. fault: what the item's gold would have to be (in words) when it is not of the metric's kind.
    """

    name: str
    unit: str
    meaning: str
    score: Callable[[Item, Response], Sequence[float]]
    value: Callable[[np.ndarray], np.ndarray] = mean
    higher_is_better: bool = True
    binary: bool = False
    group: str = ""
    averages: bool = True
    parse: Callable[[Item, Response], str | None] | None = None
    fault: Callable[[Item], str | None] | None = None
    span: tuple[float, float] | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that a score can be, in its unit."""
        return self.span or BOUNDS.get(self.unit, (-INF, INF))

    @property
    def scale(self) -> float:
        return 100.0 if self.unit == "%" else 1.0
