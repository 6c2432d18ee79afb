"""Deviation over languages, overlap and the language share of the stream, as the formulas say, one neuron after another."""

from __future__ import annotations

import numpy as np


def msd_neuron(p: np.ndarray, sizes: list[int]) -> list[float]:
    out = []
    for at, n in enumerate(sizes):
        per = [sum((p[at, j, k] - sum(p[at, j]) / len(p[at, j])) ** 2 for k in range(p.shape[2])) / p.shape[2] for j in range(n)]
        out.append(sum(per) / n)
    return out


def msd_count(p: np.ndarray, sizes: list[int]) -> list[float]:
    out = []
    for at, n in enumerate(sizes):
        counts = [sum(p[at, j, k] for j in range(n)) / n for k in range(p.shape[2])]
        out.append(sum((c - sum(counts) / len(counts)) ** 2 for c in counts) / len(counts))
    return out


def overlap(p: np.ndarray, sizes: list[int], tau: float, reference: int) -> list[list[float]]:
    found = [[{j for j in range(n) if p[at, j, k] > tau} for k in range(p.shape[2])] for at, n in enumerate(sizes)]
    return [[len(a & row[reference]) / len(a | row[reference]) if a | row[reference] else 1.0 for a in row] for row in found]


def language_share(tokens: list[np.ndarray]) -> float:
    """Eta squared of the states [tokens, width] of each language, every language weighing the same."""
    means = [t.mean(0) for t in tokens]
    centre = sum(means) / len(means)
    total = np.mean([((t - centre) ** 2).sum(1).mean() for t in tokens])
    return float(np.mean([((m - centre) ** 2).sum() for m in means]) / total)


def noise(positive: np.ndarray, tokens: np.ndarray) -> float:
    """[groups, neurons, languages] and [groups, languages]: expected deviation of one layer from documents alone."""
    g, n, k = positive.shape
    p, total = positive.sum(0) / tokens.sum(0), 0.0
    for i in range(g):
        e = np.array([[(positive[i, j, x] - p[j, x] * tokens[i, x]) / tokens[:, x].sum() for x in range(k)] for j in range(n)])
        total += sum((e[j, x] - e[j].mean()) ** 2 for j in range(n) for x in range(k))
    return total / n / k * g / (g - 1)
