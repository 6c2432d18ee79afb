"""Gram matrices and what a mask costs, token by token in float64."""

from __future__ import annotations

import numpy as np


def naive_gram(x: np.ndarray) -> np.ndarray:
    """sum_t x_t x_t^T of x [tokens, in]."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for row in x.astype(np.float64):
        total += np.outer(row, row)
    return total


def naive_error(before: np.ndarray, after: np.ndarray, x: np.ndarray) -> float:
    """sum_t |W x_t - W' x_t|^2 / sum_t |W x_t|^2, by running the matrix."""
    x = x.astype(np.float64)
    out, new = x @ before.astype(np.float64).T, x @ after.astype(np.float64).T
    return float(((out - new) ** 2).sum() / (out**2).sum())


def naive_spearman(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of ranks; a value's rank is 1 + how many are smaller + half of how many others are equal."""
    def ranks(v):
        return np.array([1 + sum(y < x for y in v) + (sum(y == x for y in v) - 1) / 2 for x in v])
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
