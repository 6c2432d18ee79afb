"""Vectors of tokens from nothing but text: how often tokens stand near one another, as PPMI, cut to its largest directions.

Levy & Goldberg 2014 (PPMI and SVD as word embeddings), Levy et al. 2015 (smoothed contexts, the root of the singular values),
Halko et al. 2011 (the singular vectors from random projections). Takes the place of fastText in FOCUS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.tokenfile import Vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WINDOW = 5  # tokens to each side
CONTEXTS = 8192  # only the most frequent tokens are columns: it bounds memory
FEWEST = 10  # occurrences, below which a token gets no vector (FOCUS: minCount)
WIDTH = 100
SMOOTH = 0.75
MOST = 50_000_000  # tokens of text that are read
TOGETHER = 1_000_000  # tokens that are counted at a time
DOCUMENTS = 256


def tokenised(documents: Iterable[str], vocabulary: Vocabulary, most: int = MOST) -> np.ndarray:
    """Token ids of all documents with -1 between them, int32 [n]; reading stops at `most` tokens."""
    found, total = [np.empty(0, np.int32)], 0
    for some in _batches(documents):
        for one in vocabulary.tokenizer.encode_batch_fast(some, add_special_tokens=False):
            found.append(np.array([*one.ids, -1], np.int32))
            total += len(one.ids)
        if total >= most:
            break
    return np.concatenate(found)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for text in documents:
        some.append(text)
        if len(some) == DOCUMENTS:
            yield some
            some = []
    if some:
        yield some


def together(ids: np.ndarray, size: int, contexts: np.ndarray, window: int = WINDOW) -> csr_matrix:
    """How often each token stands within `window` of each of `contexts` (ids), float64 [size, len(contexts)]; -1 ends a text."""
    from scipy.sparse import csr_matrix

    column = np.full(size + 1, -1, np.int64)  # the last: what -1 leads to
    column[contexts] = np.arange(len(contexts))
    shape = (size, len(contexts))
    total = csr_matrix(shape)
    for start in range(0, len(ids), TOGETHER):
        part = ids[max(0, start - window) : start + TOGETHER].astype(np.int64)
        done = min(start, window)  # pairs within these were counted with the block before
        pairs = []
        for gap in range(1, min(window, len(part) - 1) + 1):
            first = max(0, done - gap)
            a, b = part[first : len(part) - gap], part[first + gap :]
            fine = (a >= 0) & (b >= 0) & _unbroken(part, gap)[first:]
            pairs += [(a[fine], column[b[fine]]), (b[fine], column[a[fine]])]
        rows, columns = (np.concatenate(x) for x in zip((part[:0], part[:0]), *pairs))
        known = columns >= 0
        total = total + csr_matrix((np.ones(int(known.sum())), (rows[known], columns[known])), shape=shape)
    return total


def _unbroken(ids: np.ndarray, gap: int) -> np.ndarray:
    """Whether no text ends between position i and i + gap, bool [len - gap]."""
    ends = np.concatenate([[0], np.cumsum(ids < 0)])
    return ends[gap : len(ids)] == ends[: len(ids) - gap]


def ppmi(counts: csr_matrix) -> csr_matrix:
    """max(0, ln(p(t, c) / (p(t) p(c)^SMOOTH))), contexts smoothed (Levy et al. 2015, eq. 3), float64 like `counts`."""
    from scipy.sparse import csr_matrix

    total = counts.sum()
    if total == 0:
        return counts
    row, column = np.asarray(counts.sum(1)).ravel(), np.asarray(counts.sum(0)).ravel() ** SMOOTH
    found = counts.tocoo()
    value = np.log(found.data * column.sum() / (row[found.row] * column[found.col]))
    keep = value > 0
    return csr_matrix((value[keep], (found.row[keep], found.col[keep])), shape=counts.shape)


def reduced(matrix: Any, width: int, seed: int = 0, rounds: int = 4) -> np.ndarray:
    """U sqrt(S) of the largest `width` singular directions, float64 [rows, width] (Halko et al. 2011, alg. 4.4)."""
    width = min(width, *matrix.shape)
    sample = min(width + 20, *matrix.shape)
    basis = matrix @ np.random.default_rng(seed).standard_normal((matrix.shape[1], sample))
    for _ in range(rounds):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ np.linalg.qr(basis)[0])[0])[0]
    left, sizes, _ = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    return (basis @ left)[:, :width] * np.sqrt(sizes[:width])


def vectors(ids: np.ndarray, size: int, seed: int = 0, fewest: int = FEWEST) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the tokens that occur often enough: (token ids int64 [n], unit vectors float64 [n, width])."""
    counts = np.bincount(ids[ids >= 0], minlength=size)
    contexts = np.argsort(-counts, kind="stable")[: min(CONTEXTS, int((counts > 0).sum()))]
    frequent = np.flatnonzero(counts >= fewest)
    matrix = ppmi(together(ids, size, contexts))[frequent]
    if matrix.nnz == 0:
        return np.empty(0, np.int64), np.empty((0, 0))
    found = reduced(matrix, WIDTH, seed)
    norms = np.linalg.norm(found, axis=1)
    real = norms > 1e-9 * norms.max()
    return frequent[real], found[real] / norms[real, None]
