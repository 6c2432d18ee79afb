"""The arithmetic of merging, on float32 chunks of one tensor: pure functions of arrays, no files.

Chunks are cut at fixed element counts from the start of each tensor, and the order of summation is decided by the chunks'
content, so that neither shard sizes nor threads nor the order in which sources are named can change a bit of the result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

CHUNK = 1 << 18  # elements; the few float32 arrays of this size that a blend needs stay near the core
NEAR = 0.9995  # beyond this |cosine| the arc is so flat that linear and spherical interpolation agree


def order(raws: Sequence[bytes], weights: Sequence[float], anchor: int | None = None) -> list[int]:
    """The order of summation: the anchor (or the heaviest) first, then by weight, then by content. Names play no part."""
    return sorted(range(len(raws)), key=lambda i: (i != anchor, -weights[i], raws[i]))


def affine(arrays: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """sum_i w_i x_i for weights that sum to 1, as x_0 + sum_i w_i (x_i - x_0), float32.

    Where all sources hold the same number the result is that number exactly, whatever the weights.
    """
    first = arrays[0]
    total = first.copy()
    for x, w in zip(arrays[1:], weights[1:]):
        step = x - first
        step *= np.float32(w)
        total += step
    return total


def combination(arrays: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """sum_i w_i x_i for any weights, float32."""
    total = arrays[0] * np.float32(weights[0])
    for x, w in zip(arrays[1:], weights[1:]):
        total += x * np.float32(w)
    return total


def slerp_weights(dot: float, square_a: float, square_b: float, t: float) -> tuple[float, float]:
    """Weights (a, b) of the spherical interpolation of two flattened tensors, from their inner products.

    sin((1-t) phi)/sin phi and sin(t phi)/sin phi with phi the angle between them (Shoemake 1985). Nearly collinear tensors, and a
    tensor of norm 0 (which has no direction), are interpolated linearly.
    """
    if square_a == 0.0 or square_b == 0.0:
        return 1.0 - t, t
    cosine = max(-1.0, min(1.0, dot / math.sqrt(square_a) / math.sqrt(square_b)))
    if abs(cosine) > NEAR:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


# -------------------------------------------------------------------------------------------------------- task vectors


def kept(density: float, n: int) -> int:
    """How many of n entries TIES keeps: int(density * n)."""
    return int(density * n)


class Drop:
    """The random mask of DARE for one tensor of one source: chunk after chunk from a counter-based generator.

    Philox raw bits keep their meaning across numpy versions; the key is a digest of seed, tensor key and source name.
    """

    def __init__(self, density: float, seed: int, key: str, source: str):
        digest = hashlib.sha256(f"{seed}\0{key}\0{source}".encode()).digest()
        self.bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
        self.density = density
        self.limit = round(density * (1 << 32))

    def apply(self, delta: np.ndarray) -> np.ndarray:
        """Entries kept with probability `density` and divided by it; the others 0."""
        draws = self.bits.random_raw((delta.size + 1) // 2).view(np.uint32)[: delta.size]
        if self.limit == 0:
            return np.zeros_like(delta)
        return np.where(draws < self.limit, delta / np.float32(self.density), np.float32(0)) if self.density < 1 else delta


def elect_and_average(deltas: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """TIES (arXiv 2306.01708): per entry, the sign of the weighted sum is elected; the weighted mean of what agrees with it.

    An entry where the sum is exactly 0, or nothing was kept, gets 0.
    """
    weighted = [d * np.float32(w) for d, w in zip(deltas, weights)]
    elected = np.sign(sum(weighted[1:], weighted[0]))
    total, share = np.zeros_like(weighted[0]), np.zeros_like(weighted[0])
    for d, wd, w in zip(deltas, weighted, weights):
        agrees = (np.sign(d) == elected) & (d != 0)
        total += np.where(agrees, wd, np.float32(0))
        share += np.where(agrees, np.float32(w), np.float32(0))
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0)
