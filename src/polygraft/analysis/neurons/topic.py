"""How much of a neuron's variance is language and how much topic: a two-way decomposition over parallel documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SOURCES = ("language", "documents", "rest")


@dataclass(frozen=True)
class Shares:
    """float64 [3]: mean share of the variance by SOURCES over the neurons that change, `n` of them."""

    shares: np.ndarray
    n: int


def decompose(x: np.ndarray) -> np.ndarray:
    """float64 [neurons, 3]: shares by SOURCES of the sum of squares of x [documents, languages, neurons]; they sum to 1.

    x - m = (language mean - m) + (document mean - m) + rest, an exact decomposition of a full table (eta squared). A neuron that
    does not change has three zeros.
    """
    g, k, n = x.shape
    m = x.mean((0, 1))
    d = np.where(np.ptp(x.reshape(g * k, n), 0) > 0, x - m, 0.0)
    language, document = d.mean(0), d.mean(1)  # [k, n], [g, n]
    rest = d - language[None] - document[:, None]
    parts = np.stack([g * (language**2).sum(0), k * (document**2).sum(0), (rest**2).sum((0, 1))], -1)
    total = parts.sum(-1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)


def nothing(documents: int, languages: int) -> np.ndarray:
    """float64 [3]: the shares that independent noise would have, (K - 1, G - 1, (G - 1)(K - 1)) / (G K - 1)."""
    g, k = documents, languages
    return np.array([k - 1, g - 1, (g - 1) * (k - 1)]) / max(1, g * k - 1)


def mean_of(shares: np.ndarray) -> Shares:
    """The mean of decompositions [neurons, 3] over the neurons that change at all; zeros where none does."""
    changing = shares.sum(-1) > 0
    return Shares(shares[changing].mean(0) if changing.any() else np.zeros(3), int(changing.sum()))
