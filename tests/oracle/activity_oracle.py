"""What a reading must hold, from its definition: every value in a list, float64, no batches."""

from __future__ import annotations

import numpy as np


def windows(documents: list[list[int]], window: int, bos: int | None, tokens: int) -> list[tuple[list[int], list[int]]]:
    """(what the model reads, document of each token that counts) of every window."""
    flat = [(t, d) for d, text in enumerate(documents) for t in text][:tokens]
    width, first = window - (bos is not None), [] if bos is None else [bos]
    cut = [flat[i : i + width] for i in range(0, len(flat), width)]
    return [(first + [t for t, _ in w], [d for _, d in w]) for w in cut]


def sums(a: np.ndarray, groups: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Of values [tokens, neurons] and each token's group."""
    a = a.astype(np.float64)
    of = [a[groups == g] for g in range(count)]
    return {"positive": (a > 0).sum(0), "sum": a.sum(0), "square": (a * a).sum(0),
            "group.positive": np.stack([(v > 0).sum(0) for v in of]), "group.sum": np.stack([v.sum(0) for v in of])}


def bin_of(value: float, edges: np.ndarray) -> int:
    """A bin of positive values and 0 holds its lower edge, of negative ones its upper."""
    for i in range(len(edges) - 1):
        low, high = edges[i], edges[i + 1]
        if (low <= value < high) if value >= 0 else (low < value <= high):
            return i
    return 0 if value < 0 else len(edges) - 2


def percentile_bin(values: np.ndarray, q: float, edges: np.ndarray) -> tuple[float, float]:
    """The borders of the bin that holds the value of rank ceil(q / 100 n)."""
    rank = max(1, int(np.ceil(q / 100 * len(values))))
    i = bin_of(float(np.sort(values)[rank - 1]), edges)
    return float(edges[i]), float(edges[i + 1])
