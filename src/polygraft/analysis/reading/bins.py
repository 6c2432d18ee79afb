"""Bins of activation values: fixed, finer towards 0, two to an octave, read off the bits of a float32.

Sign, exponent and first bit of the mantissa are the upper ten bits, so that a table of 1,024 entries gives the bin of a value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

BINS = 64
SHIFT = 22  # bits of a float32 below its sign, exponent and first mantissa bit
CODES = 1 << (32 - SHIFT)
NEGATIVE = (-9, 1)  # magnitudes from 2^-9 to 2^1: gated activations end at -0.28, others seldom go far below
POSITIVE = (-13, 7)  # from 2^-13 to 2^7
ENDS = float(np.finfo(np.float32).max)  # the outermost edges: every finite value has a bin, and edges can be written as JSON


def _halves(low: int, high: int) -> list[float]:
    """2^low, 1.5 * 2^low, 2 * 2^low ... 2^high."""
    return [m * 2.0**e for e in range(low, high) for m in (1.0, 1.5)] + [2.0**high]


@lru_cache(1)
def edges() -> np.ndarray:
    """float64 [BINS + 1], rising, with 0 among them. A bin of positive values holds its lower edge, of negative ones its upper."""
    below, above = _halves(*NEGATIVE), _halves(*POSITIVE)
    return np.array([-ENDS, *(-v for v in reversed(below)), 0.0, *above, ENDS])


@lru_cache(1)
def table() -> np.ndarray:
    """int32 [CODES]: the bin of every pattern of the upper ten bits. What is nearer to 0 than any normal number counts as 0."""
    bits = (np.arange(CODES, dtype=np.uint32) << SHIFT).view(np.float32).astype(np.float64)
    magnitude, negative = np.abs(bits), np.signbit(bits)
    inner = edges()[1:-1]
    found = np.where(negative, np.searchsorted(inner, -magnitude, "left"), np.searchsorted(inner, magnitude, "right"))
    found[magnitude < np.finfo(np.float32).tiny] = zero()
    found[~np.isfinite(magnitude)] = np.where(negative[~np.isfinite(magnitude)], 0, BINS - 1)
    return found.astype(np.int32)


def zero() -> int:
    """The bin that holds 0: the lowest of those that are not negative."""
    return int(np.searchsorted(edges(), 0.0, "right")) - 1


def percentile(histogram: np.ndarray, borders: np.ndarray, q: float) -> np.ndarray:
    """float64 [...]: the q-th percentile (0 to 100) of histograms [..., bins] with `borders` [bins + 1]; 0 without counts.

    The bin is exact: it holds the value of rank ceil(q / 100 * n). Within it the values are taken to lie evenly, so that the error
    is below its width; of the outermost bins, which have no end, the finite border is given.
    """
    n = histogram.sum(-1, keepdims=True, dtype=np.float64)
    rank = np.clip(np.ceil(q / 100 * n), 1, None)
    reached = histogram.cumsum(-1, dtype=np.int64)
    at = np.minimum((reached < rank).sum(-1), histogram.shape[-1] - 1)
    inside = np.take_along_axis(histogram, at[..., None], -1)[..., 0]
    before = np.take_along_axis(reached, at[..., None], -1)[..., 0] - inside
    part = np.divide(rank[..., 0] - before, inside, out=np.zeros(at.shape), where=inside > 0)
    low, high = borders.astype(np.float64)[at], borders.astype(np.float64)[at + 1]
    low, high = np.where(at == 0, high, low), np.where(at == histogram.shape[-1] - 1, low, high)
    found: Any = np.where(n[..., 0] > 0, low + np.clip(part, 0, 1) * (high - low), 0.0)
    return np.asarray(found)
