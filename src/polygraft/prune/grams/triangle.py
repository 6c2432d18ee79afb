"""Symmetric matrices by their upper triangle, row by row: half of the room, and inner products without unpacking."""

from __future__ import annotations

import numpy as np


def size(width: int) -> int:
    """Numbers in the upper triangle, diagonal included."""
    return width * (width + 1) // 2


def starts(width: int) -> np.ndarray:
    """int64 [width + 1]: where the row i of the triangle, [i, i:], begins."""
    i = np.arange(width + 1, dtype=np.int64)
    return i * width - i * (i - 1) // 2


def pack(square: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """float32 [n (n + 1) / 2] of a symmetric [n, n]; what lies below the diagonal is not looked at."""
    n = len(square)
    packed = np.empty(size(n), np.float32) if out is None else out
    at = starts(n)
    for i in range(n):
        packed[at[i] : at[i + 1]] = square[i, i:]
    return packed


def unpack(packed: np.ndarray, width: int) -> np.ndarray:
    """float32 [width, width], symmetric."""
    full, at = np.empty((width, width), np.float32), starts(width)
    for i in range(width):
        full[i, i:] = packed[at[i] : at[i + 1]]
        full[i:, i] = full[i, i:]
    return full


def diagonals(packed: np.ndarray, width: int) -> np.ndarray:
    """float64 [k, width] of packed [k, n (n + 1) / 2]."""
    return packed[:, starts(width)[:-1]].astype(np.float64)


def inner(square: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """<A, G_k> = sum_ij A_ij G_k,ij of a symmetric A float32 [n, n] and packed G float32 [k, n (n + 1) / 2]: float64 [k].

    Row by row: products of float32, each row's sum added up in float64.
    """
    n = len(square)
    at, total = starts(n), np.zeros(len(packed))
    for i in range(n):
        total += packed[:, at[i] : at[i + 1]] @ square[i, i:]
    return 2 * total - packed[:, at[:-1]].astype(np.float64) @ np.diagonal(square).astype(np.float64)
