"""Principal angles (Bjoerck, Golub 1973) between what varies within languages, and between language subspaces of depths."""

from __future__ import annotations

import numpy as np

from polygraft.analysis.groups import Groups


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of the principal angles between orthonormal a [D, p] and b [D, q]: [min(p, q)], descending, within [0, 1]."""
    return np.clip(np.linalg.svd(a.T @ b, compute_uv=False), 0.0, 1.0)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared cosine of the principal angles: 1 where one lies in the other, max(p, q) / D by chance, 0 where one is empty."""
    return float((cosines(a, b) ** 2).mean()) if min(a.shape[1], b.shape[1]) else 0.0


def content(items: np.ndarray, directions: int) -> np.ndarray:
    """Orthonormal [D, <= directions]: along which the groups [G, D] of one language vary most. Less where they span less."""
    centred = items - items.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    return vt[: min(directions, int((s > 1e-9 * np.linalg.norm(items)).sum()))].T


def between(groups: Groups, directions: int) -> np.ndarray:
    """float64 [K, K]: overlap of what varies between texts of language a (groups 0, 2, ...) and of b (groups 1, 3, ...).

    The halves are disjoint text, so the diagonal is what one language keeps of itself: the ceiling that sampling leaves. Off the
    diagonal both ways round are averaged. Ours.
    """
    first, second = ([content(x, directions) for x in groups.half(i).items] for i in (0, 1))
    table = np.array([[overlap(a, b) for b in second] for a in first])
    return (table + table.T) / 2


def depths(bases: list[np.ndarray]) -> np.ndarray:
    """float64 [depths, depths]: overlap of the language subspace of every two depths."""
    return np.array([[overlap(a, b) for b in bases] for a in bases])
