"""How sparse each layer becomes, at the same sparsity in all: layers with many outliers among their scores keep more (OWL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from polygraft.errors import RecipeError
from polygraft.prune.masks.scores import norms

if TYPE_CHECKING:
    import torch

    from polygraft.prune.statistics import Moments

TIMES = 5.0  # a score counts as an outlier above this many times the layer's mean
SPREAD = 0.08  # layers differ by at most twice this


def outliers(ws: Mapping[str, torch.Tensor], moments: Mapping[str, Moments], times: float = TIMES) -> float:
    """Per cent of a layer's Wanda scores above `times` their mean (Yin et al., 2310.05175, eq. 2).

    `moments[key]` are of what each matrix reads; one that no token reached has no score and does not count.
    """
    scores = [(w.abs() * x).flatten() for key, w in ws.items() if (x := norms(moments[key], w)) is not None]
    size = sum(s.numel() for s in scores)
    if not size:
        return 0.0
    mean = sum(float(s.double().sum()) for s in scores) / size
    return 100 * sum(int((s > times * mean).count_nonzero()) for s in scores) / size


def owl(ratios: np.ndarray, sizes: np.ndarray, sparsity: float, spread: float = SPREAD) -> np.ndarray:
    """Sparsity of every layer, float64 [layers], from its outlier ratio: what it keeps follows the ratio, over a range of 2 spread.

    The mean over weights is `sparsity`, where the authors' code takes the mean over layers: the same when layers are equal in
    `sizes`. Layers with equal ratios are equal. What would go below 0 or above 1 stays there, and the others make up for it.
    """
    ratios, sizes = np.asarray(ratios, np.float64), np.asarray(sizes, np.float64)
    if not 0 <= spread <= 0.5:
        raise RecipeError("not a spread of sparsities", where="spread", found=spread, expected="0 to 0.5")
    wide = np.ptp(ratios)
    rescaled = (ratios - ratios.min()) / wide * 2 * spread if wide > 0 else np.zeros_like(ratios)
    return 1 - shifted(rescaled, sizes, 1 - sparsity)


def shifted(values: np.ndarray, sizes: np.ndarray, mean: float) -> np.ndarray:
    """clip(values + c, 0, 1) with the c that gives them this mean, weighted by `sizes`; `mean` is within 0 and 1."""
    low, high = -values.max(), 1 - values.min()
    share = sizes / sizes.sum()
    plain = values - share @ values + mean
    if plain.min() >= 0 and plain.max() <= 1:
        return plain
    for _ in range(100):
        middle = (low + high) / 2
        if share @ np.clip(values + middle, 0, 1) < mean:
            low = middle
        else:
            high = middle
    return np.clip(values + high, 0, 1)


def across(ratios: Mapping[str, np.ndarray], sizes: np.ndarray, sparsity: float, spread: float = SPREAD,
           worst: bool = False) -> np.ndarray:  # fmt: skip
    """Sparsity of every layer from the outlier ratios [layers] that each language's text shows there (ours).

    Each language's ratios are brought to 0 to 1, so that none counts more for reading louder. A layer is worth their mean, or with
    `worst` as much as it is to the language to which it is worth most: what one language needs is kept though others do not.
    """
    scaled = []
    for found in ratios.values():
        wide = np.ptp(found)
        scaled.append((found - np.min(found)) / wide if wide > 0 else np.zeros(len(found)))
    stacked = np.stack(scaled)
    return owl(stacked.max(0) if worst else stacked.mean(0), sizes, sparsity, spread)


def spared(sizes: Mapping[str, int], protected: Mapping[str, int], sparsity: float) -> dict[str, float]:
    """Sparsity of every matrix such that what is free loses the same share everywhere, and all together lose `sparsity` (ours).

    `sizes` and `protected`: weights of every matrix, and those among them that stay. Raises RecipeError where too few are free.
    """
    total = sum(sizes.values())
    free = {key: n - protected.get(key, 0) for key, n in sizes.items()}
    if sparsity * total > sum(free.values()):
        raise RecipeError("too much is protected for this sparsity", where="protect", expected=f"at least {sparsity:.1%}",
                          found=f"{sum(free.values()) / total:.1%} free", fix="protect less, or prune less")  # fmt: skip
    share = sparsity * total / max(sum(free.values()), 1)
    return {key: share * free[key] / n for key, n in sizes.items()}
