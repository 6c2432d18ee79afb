"""Propagation naively: T as a dense matrix, W from numpy's SVD, rows of the result one by one."""

import numpy as np


def transformation(pieces, new, old):
    """T [new, old] from (new token, its old pieces)."""
    t = np.zeros((new, old))
    for token, ids in pieces.items():
        for i in ids:
            t[token, i] += 1 / len(ids)
    return t


def least_squares(a, b, ridge=0.0):
    """argmin |AW - B|^2 + s ridge |W - 1|^2, s = trace(A'A) / d: of the smallest norm where ridge is 0."""
    d = a.shape[1]
    added = np.sqrt(ridge * np.trace(a.T @ a) / d) * np.eye(d)
    return np.linalg.pinv(np.vstack([a, added]) if ridge else a, rcond=1e-10) @ (np.vstack([b, added]) if ridge else b)


def rotation(a, b):
    u, _, vt = np.linalg.svd(a.T @ b)
    return u @ vt


def carried(mode, donor, t, base, instruct, overlap, shared, ridge=0.0):
    """New rows for T's tokens, float64 [new, d]."""
    rows = {"overlap": (base[overlap], instruct[overlap]), "conversion": (t @ base, t @ instruct)}
    a, b = rows.get(mode, (base[shared], instruct[shared]))
    if mode in ("swap", "delta"):
        return donor + (t @ (instruct - base) if mode == "delta" else 0)
    return donor @ (rotation(a, b) if mode == "procrustes" else least_squares(a, b, ridge))
