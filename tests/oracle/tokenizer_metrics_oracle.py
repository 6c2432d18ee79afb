"""Figures of tokenizers written from their formulas, in plain loops."""

from __future__ import annotations

import math

import numpy as np


def fertility(cuts: list[int]) -> float:
    """Rust et al. 2021: sum over words of their tokens, by the number of words."""
    return sum(cuts) / len(cuts)


def continued(cuts: list[int]) -> float:
    """Share of words that are two tokens or more, in percent."""
    return 100 * len([c for c in cuts if c >= 2]) / len(cuts)


def renyi(counts: list[int], size: int, alpha: float) -> float:
    """Zouhar et al. 2023: H_alpha / log2 |V|."""
    total = sum(counts)
    if alpha == 1:
        return -sum(c / total * math.log2(c / total) for c in counts if c) / math.log2(size)
    return math.log2(sum((c / total) ** alpha for c in counts if c)) / (1 - alpha) / math.log2(size)


def gini(x: list[float]) -> float:
    """Mean absolute difference of all pairs, by twice the mean."""
    n = len(x)
    return sum(abs(a - b) for a in x for b in x) / (2 * n * n * (sum(x) / n))


def cosine_distances(rows: np.ndarray, unused: list[int]) -> np.ndarray:
    """Land & Bartolo 2024: 1 - cos(row, mean of unused rows)."""
    centre = np.mean([np.asarray(rows[i], np.float64) for i in unused], axis=0)
    return np.array([1 - r @ centre / (np.linalg.norm(r) * np.linalg.norm(centre)) for r in np.asarray(rows, np.float64)])


def unreachable(tokenizer, texts: dict[int, str]) -> set[int]:
    """encode(decode(i)) != [i], for tokens that are texts of their own."""
    return {i for i, text in texts.items() if tokenizer.encode(text, add_special_tokens=False).ids != [i]}
