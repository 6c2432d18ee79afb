"""How much two sets of neurons have in common, and how much they would by chance."""

from __future__ import annotations

import numpy as np


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A and B| / |A or B| of two masks; 1 where both are empty, for then they are equal."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def chance(a: np.ndarray, b: np.ndarray, real: np.ndarray) -> float:
    """The Jaccard index to be expected of random sets with as many neurons in each layer as A and B have.

    In a layer of n neurons a_l b_l / n of them are common on average; the index is that of the summed averages (ours; the ratio of
    expectations, which for sets of more than a few neurons is the expected ratio).
    """
    n = np.maximum(1, real.sum(1))
    common = float((a.sum(1) * b.sum(1) / n).sum())
    either = int(a.sum()) + int(b.sum()) - common
    return common / either if either else 1.0


def between(owned: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two float64 [languages, languages]: the index and its chance level for every pair of languages of `owned`."""
    k = owned.shape[-1]
    found, expected = np.ones((k, k)), np.ones((k, k))
    for i in range(k):
        for j in range(k):
            if i != j:
                found[i, j] = jaccard(owned[..., i], owned[..., j])
                expected[i, j] = chance(owned[..., i], owned[..., j], real)
    return found, expected
