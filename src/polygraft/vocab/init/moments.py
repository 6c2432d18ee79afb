"""Mean and spread of old rows, and rows drawn from them: the baselines that know nothing of a token.

Read block by block in float64. Only rows that a token has count: padding would pull the mean to itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from polygraft.vocab.tables import Side, Table

JITTER = 1e-8  # of the mean variance, added to the diagonal: fewer rows than columns leave directions without any


@dataclass(frozen=True)
class Moments:
    """The rows `used` (bool [rows]) of a table: their mean, deviation and covariance, float64, read when asked for."""

    table: Table
    used: np.ndarray

    def _rows(self) -> Iterator[np.ndarray]:
        for start, block in self.table.blocks():
            yield block[self.used[start : start + len(block)]].astype(np.float64)

    @cached_property
    def count(self) -> int:
        return int(self.used.sum())

    @cached_property
    def mean(self) -> np.ndarray:
        """float64 [width]."""
        return np.asarray(sum(x.sum(0) for x in self._rows()) / self.count)

    @cached_property
    def deviation(self) -> np.ndarray:
        """Of every column, float64 [width]."""
        return np.sqrt(sum(((x - self.mean) ** 2).sum(0) for x in self._rows()) / self.count)

    @cached_property
    def covariance(self) -> np.ndarray:
        """float64 [width, width]."""
        return np.asarray(sum((c.T @ c for x in self._rows() for c in [x - self.mean]), np.zeros(())) / self.count)

    @cached_property
    def factor(self) -> np.ndarray:
        """L with L L^T = covariance (and JITTER), float64 [width, width]."""
        spread = self.covariance
        level = np.trace(spread) / len(spread)
        return np.linalg.cholesky(spread + JITTER * level * np.eye(len(spread))) if level > 0 else np.zeros_like(spread)


def drawn(tokens: np.ndarray, width: int, seed: int, side: Side) -> np.ndarray:
    """Standard normal numbers, float64 [len(tokens), width]: a token's are its own, whatever is drawn with it."""
    where = ("in", "out").index(side)
    return np.array([np.random.default_rng([seed, where, int(t)]).standard_normal(width) for t in tokens]).reshape(-1, width)
