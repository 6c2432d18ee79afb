"""What comes of a walk: numbers per candidate and row, and what the walk took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """nats: float64 [candidates, rows], of the tokens scored; greedy: bool [candidates, rows], whether each was the most likely."""

    nats: np.ndarray
    greedy: np.ndarray

    @classmethod
    def of(cls, candidates: int, rows: int) -> Scores:
        """Of rows of which nothing is scored."""
        return cls(np.zeros((candidates, rows)), np.ones((candidates, rows), bool))


@dataclass
class Work:
    """What was computed so far, in layers of one candidate over all rows asked, so that the first two compare.

    layers: evaluated; naive: what one candidate at a time would have evaluated; blends: parameters computed from several sources;
    states: most hidden states held at once; state_bytes: the bytes that those took.
    """

    layers: int = 0
    naive: int = 0
    blends: int = 0
    states: int = 0
    state_bytes: int = 0


def totals(nats: np.ndarray, greedy: np.ndarray, paths: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(sums of nats, all greedy?) [candidates, rows] over the tokens that each row adds up, from [candidates, tokens]."""
    sums = np.stack([nats[:, p].sum(1) for p in paths], 1)
    return sums, np.stack([greedy[:, p].all(1) for p in paths], 1)
