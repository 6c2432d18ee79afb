"""What a pruning did to matrices, states, masks and neurons, as numbers. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polygraft.prune.study.around import Specific

AGNOSTIC = 0.95  # a neuron whose entropy lies above this quantile of the dense model's fires alike in all languages


def decibels(signal: float, noise: float) -> float | None:
    """Signal-to-noise ratio 10 log10(E[X^2] / E[(X - X')^2]), X the dense model's (Kuzmin et al. 2023, arXiv 2307.02973).

    None where nothing changed, or where there was nothing.
    """
    return 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None


# ------------------------------------------------------------------------------------------------------------------- masks


def overlap(a: np.ndarray, b: np.ndarray, size: int) -> tuple[float, float]:
    """(IoU of two packed keep-masks of `size` bits, what chance gives at their densities); both 1.0 where both keep nothing.

    |A and B| / |A or B|; two random masks of densities p and q have pq / (p + q - pq), which is k / (2 - k) for p = q = k.
    """
    both, either = int(np.bitwise_count(a & b).sum(dtype=np.int64)), int(np.bitwise_count(a | b).sum(dtype=np.int64))
    p, q = (int(np.bitwise_count(m).sum(dtype=np.int64)) / size for m in (a, b))
    return (both / either, p * q / (p + q - p * q)) if either else (1.0, 1.0)


def beyond(iou: float, chance: float) -> float | None:
    """0 at chance, 1 where the masks are the same; None where chance gives the same mask."""
    return (iou - chance) / (1 - chance) if chance < 1 else None


# ------------------------------------------------------------------------------------------------------------------ states

TOTAL, LOST, OWN, OWN_LOST = range(4)  # columns of sums over tokens: |h|^2, |h - h'|^2, and both within the languages' subspace


def sums(h: np.ndarray, pruned: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """float64 [4] over tokens: |h|^2, |e|^2, |B^T h|^2, |B^T e|^2 with e = h - h'. h, h' [tokens, D]; basis B [D, r]."""
    e = h.astype(np.float64) - pruned
    inside = basis.astype(np.float32)
    return np.array([np.square(h, dtype=np.float64).sum(), np.square(e).sum(),
                     np.square(h @ inside, dtype=np.float64).sum(), np.square(e @ basis).sum()])  # fmt: skip


def subspace_errors(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(specific, agnostic) relative errors from sums [..., 4]: |B B^T e|^2 / |B B^T h|^2, and the same on the complement.

    0 where the dense model has nothing there.
    """
    lost, own = found[..., LOST] - found[..., OWN_LOST], found[..., TOTAL] - found[..., OWN]
    return _over(found[..., OWN_LOST], found[..., OWN]), _over(np.maximum(lost, 0), own)


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)


# ----------------------------------------------------------------------------------------------------------------- neurons


@dataclass(frozen=True)
class Thresholds:
    """Of the dense model: `filter` and `bar` of firing probability, `specific` and `agnostic` of entropy."""

    filter: float
    bar: float
    specific: float
    agnostic: float


def thresholds(found: Specific, entropies: np.ndarray, fires: np.ndarray) -> Thresholds:
    """Those that LAPE chose of the dense model. `entropies` [layers, neurons], `fires`: neurons that fire at all."""
    taken = found.owned.any(-1)
    specific = float(found.score[taken].max()) if taken.any() else 0.0
    agnostic = float(np.quantile(entropies[fires], AGNOSTIC)) if fires.any() else 0.0
    return Thresholds(found.thresholds["filter"], found.thresholds["bar"], specific, agnostic)


def owned(p: np.ndarray, entropies: np.ndarray, at: Thresholds) -> np.ndarray:
    """bool [layers, neurons, languages]: LAPE's neurons of languages under given thresholds: those of the dense model stay fixed,
    since order statistics taken anew would hide every shift."""
    kept: np.ndarray = (p.max(-1) > at.filter) & (entropies <= at.specific)
    return kept[..., None] & (p > at.bar)


@dataclass(frozen=True)
class Shift:
    """Neurons of languages before and after; `shift`: mean change of entropy of neurons that fire in both."""

    before: int
    after: int
    both: int
    agnostic_before: int
    agnostic_after: int
    shift: float


def shift(dense: np.ndarray, pruned: np.ndarray, entropy: Callable[[np.ndarray], np.ndarray], at: Thresholds) -> Shift:
    """What became of neurons of languages. `dense`, `pruned` float64 [layers, neurons, languages]: shares of tokens that fire."""
    first, then = entropy(dense), entropy(pruned)
    a, b = owned(dense, first, at).any(-1), owned(pruned, then, at).any(-1)
    fires = dense.any(-1) & pruned.any(-1)
    return Shift(int(a.sum()), int(b.sum()), int((a & b).sum()), _above(dense, first, at), _above(pruned, then, at),
                 float((then - first)[fires].mean()) if fires.any() else 0.0)  # fmt: skip


def _above(p: np.ndarray, entropies: np.ndarray, at: Thresholds) -> int:
    return int(((entropies > at.agnostic) & p.any(-1)).sum())
