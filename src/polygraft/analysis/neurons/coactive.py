"""Does a found set fire together? The mean correlation of its neurons over groups of documents, against matched random sets."""

from __future__ import annotations

import numpy as np


def together(x: np.ndarray) -> float | None:
    """Mean correlation over all pairs of columns of [groups, neurons]; None where fewer than two columns change, or of one group.

    With columns standardised to unit length the sum of all correlations is the squared length of their sum.
    """
    if len(x) < 2:
        return None
    d = x - x.mean(0)
    d = np.where(np.ptp(x, 0) > 0, d, 0.0)
    size = np.sqrt((d**2).sum(0))
    z = d[:, size > 0] / size[size > 0]
    n = z.shape[1]
    return float(((z.sum(1) ** 2).sum() - n) / (n * (n - 1))) if n > 1 else None


def rates(positive: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float64 [groups, n]: share of the tokens of each group at which each neuron of the mask fires; empty groups are left out.

    `positive` int [groups, layers, neurons], `tokens` int [groups].
    """
    full = tokens > 0
    return positive[full][:, mask] / tokens[full][:, None].astype(np.float64)
