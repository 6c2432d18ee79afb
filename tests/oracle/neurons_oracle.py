"""Rankings, overlaps, correlations and variances of neurons from raw values and definitions."""

from __future__ import annotations

import itertools

import numpy as np


def difference(values: list[np.ndarray]) -> list[float]:
    """Of one neuron's activations in each language: (mean - mean of the others' means) / deviation, languages weighing the same."""
    means = [v.mean() for v in values]
    middle = sum(means) / len(means)
    sd = np.sqrt(sum(((v - middle) ** 2).mean() for v in values) / len(values))
    others = [sum(m for j, m in enumerate(means) if j != i) / max(1, len(means) - 1) for i in range(len(means))]
    return [(m - o) / sd if sd > 0 else 0.0 for m, o in zip(means, others)]


def expected_jaccard(a: list[int], b: list[int], n: list[int], draws: int, seed: int) -> float:
    """Mean index of random sets with these counts in layers of these sizes."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(draws):
        first = {(i, j) for i, size in enumerate(n) for j in rng.permutation(size)[: a[i]]}
        second = {(i, j) for i, size in enumerate(n) for j in rng.permutation(size)[: b[i]]}
        out.append(len(first & second) / len(first | second))
    return float(np.mean(out))


def correlation(x: np.ndarray) -> float | None:
    """Mean Pearson correlation over all pairs of columns that change."""
    columns = [c for c in x.T if np.ptp(c) > 0]
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(columns, 2)]
    return float(np.mean(pairs)) if pairs else None


def two_way(table: np.ndarray) -> list[float]:
    """Eta squared of [documents, languages]: language, documents, rest."""
    m = table.mean()
    rows, columns = table.mean(1), table.mean(0)
    language = sum((columns[k] - m) ** 2 for _ in rows for k in range(table.shape[1]))
    document = sum((rows[g] - m) ** 2 for g in range(table.shape[0]) for _ in columns)
    rest = sum((table[g, k] - rows[g] - columns[k] + m) ** 2 for g in range(table.shape[0]) for k in range(table.shape[1]))
    return [language / ((table - m) ** 2).sum(), document / ((table - m) ** 2).sum(), rest / ((table - m) ** 2).sum()]
