"""LAPE and AlignLAPE as the papers say, one neuron after another, in plain Python."""

from __future__ import annotations

from math import log

import numpy as np


def entropy(row):
    total = sum(row)
    return -sum(x / total * log(x / total) for x in row if x > 0) if total > 0 else 0.0


def kth(values, rate):
    return sorted(values)[max(1, round(rate * len(values))) - 1]


def chosen(scores: dict, n: int) -> list:
    """The n neurons of lowest finite score, earlier layers and neurons first among equals."""
    finite = [(round(s, 12), at) for at, s in scores.items() if s < float("inf")]
    return [at for _, at in sorted(finite)[:n]]


def lape(p: np.ndarray, sizes: list[int], filter_rate: float, top_rate: float, bar: float):
    """(scores by (layer, neuron), {(layer, neuron, language)} owned)."""
    at = [(i, j) for i, n in enumerate(sizes) for j in range(n)]
    every = [x for i, j in at for x in p[i, j]]
    floor, least = kth(every, filter_rate), kth(every, bar)
    scores = {a: entropy(p[a]) if any(x > floor for x in p[a]) else float("inf") for a in at}
    return scores, {(*a, k) for a in chosen(scores, round(top_rate * len(at))) for k, x in enumerate(p[a]) if x > least}


def align(p: np.ndarray, sizes: list[int], weight: float, top_rate: float, bar: float):
    at = [(i, j) for i, n in enumerate(sizes) for j in range(n)]
    least, k = kth([x for i, j in at for x in p[i, j]], bar), p.shape[2]
    longest = sum(1 / i for i in range(1, k + 1)) / k
    scores = {a: entropy(p[a]) / log(k) - weight * max(p[a]) / longest if max(p[a]) > 0 else float("inf") for a in at}
    return scores, {(*a, k) for a in chosen(scores, round(top_rate * len(at))) for k, x in enumerate(p[a]) if x > least}
