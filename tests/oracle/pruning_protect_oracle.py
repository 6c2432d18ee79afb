"""What languages need most, weight by weight, in float64."""

from __future__ import annotations

import numpy as np


def naive_needed(w: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """max over languages of |W_ij| X_j / sqrt(sum_k (W_ik X_k)^2)."""
    best = np.zeros_like(w)
    for x in norms:
        for i, row in enumerate(w):
            size = np.sqrt(sum((row[k] * x[k]) ** 2 for k in range(len(x))))
            for j in range(len(x)):
                best[i, j] = max(best[i, j], abs(row[j]) * x[j] / size if size > 0 else 0.0)
    return best


def naive_top(score: np.ndarray, count: int) -> np.ndarray:
    """The `count` largest of every row; among equal ones the higher index stays."""
    keep = np.zeros(score.shape, bool)
    for i, row in enumerate(score):
        keep[i, sorted(range(len(row)), key=lambda j: (row[j], j))[-count:]] = True
    return keep
