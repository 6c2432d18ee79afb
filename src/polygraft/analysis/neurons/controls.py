"""Random neurons beside a found set: as many in every layer, so that what depth alone does cannot pass for language."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def matched(mask: np.ndarray, real: np.ndarray, seed: int | Sequence[int], avoid: np.ndarray | None = None) -> np.ndarray:
    """bool [layers, neurons]: as many neurons per layer as `mask` has, drawn evenly among those outside it.

    Neurons in `avoid` (found for another language) are taken only where the layer has no others left, and those of `mask` itself
    only after them. The same seed draws the same set.
    """
    rng = np.random.default_rng(seed)
    rank = rng.random(mask.shape) + 2.0 * mask + np.where(real, 0.0, np.inf)
    if avoid is not None:
        rank += 1.0 * (avoid & ~mask)
    out = np.zeros(mask.shape, bool)
    for layer, n in enumerate(mask.sum(1)):
        out[layer, np.argsort(rank[layer], kind="stable")[:n]] = True
    return out
