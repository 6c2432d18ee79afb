"""New rows from tokens that are used alike: a sparse convex mix of the old rows of tokens that both vocabularies have.

FOCUS (Dobler & de Melo 2023, arXiv 2305.14481), eq. 2-4: sparsemax of the cosine similarities to all overlapping tokens, in an
auxiliary space of the new tokenizer's tokens. Here that space is counted from text (`vectors`), not trained by fastText.
"""

from __future__ import annotations

import numpy as np

from polygraft.vocab.init.mixture import Mixture, joined

SIMILARITIES = 64 << 20  # bytes of similarities in memory at a time


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex to each row of scores [n, m] (Martins & Astudillo 2016), float64.

    p = max(z - t, 0), where t makes the sum 1. t rises from below by Newton's steps, each of which is exact for its support.
    """
    z = np.asarray(scores, np.float64)
    z = z - z.max(1, keepdims=True)
    support, size = z > -1.0, np.zeros(len(z), np.int64)  # nothing further below the largest than 1 can have weight
    while (support.sum(1) != size).any():
        size = support.sum(1)
        threshold = (np.where(support, z, 0).sum(1) - 1) / size
        support &= z > threshold[:, None]
    return np.maximum(z - threshold[:, None], 0) * support


def mixed(tokens: np.ndarray, known: np.ndarray, vectors: np.ndarray, shared: np.ndarray, old: np.ndarray, size: int) -> Mixture:
    """Each of `tokens` that has a vector as a mix of old rows; the others get nothing.

    `known` int64 [n] are the tokens (sorted) that `vectors` float64 [n, width] of unit norm belong to; `shared` the new ids of the
    overlap and `old` its old ids; `size`: tokens of the new vocabulary.
    """
    both = np.isin(shared, known)
    shared, old = shared[both], old[both]
    if not len(shared):
        return joined([], size)
    anchors = vectors[np.searchsorted(known, shared)]
    wanted = tokens[np.isin(tokens, known)]
    step, parts = max(1, SIMILARITIES // (8 * len(shared))), []
    for start in range(0, len(wanted), step):
        some = wanted[start : start + step]
        weights = sparsemax(vectors[np.searchsorted(known, some)] @ anchors.T)
        for token, row in zip(some, weights):
            at = np.flatnonzero(row)
            parts.append((int(token), old[at].astype(np.int32), row[at]))
    return joined(parts, size)
