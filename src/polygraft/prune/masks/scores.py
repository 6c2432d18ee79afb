"""What a weight is worth, by its size and by what it reads: magnitude, Wanda and its variant, RIA. The smallest go.

Each is `(w float32 [out, in], moments, pattern, protected bool [out, in] | None) -> Pruned`; kept weights stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polygraft.prune.engine import Pruned
from polygraft.prune.masks.pattern import Pattern, chosen
from polygraft.prune.statistics import Moments

if TYPE_CHECKING:
    import torch

UNREAD = "no token reached it: by magnitude, row by row"


def magnitude(w: torch.Tensor, _moments: Moments | None, pattern: Pattern, protected: torch.Tensor | None = None) -> Pruned:
    """|W|, over the whole matrix: the baseline that reads no text."""
    return Pruned(chosen(w.abs(), pattern, protected, "matrix"))


def norms(moments: Moments, w: torch.Tensor) -> torch.Tensor | None:
    """Root mean square of every input, float32 [in] where `w` is; None where no token came, or all of them were zero."""
    import torch

    found = moments.norms
    return torch.from_numpy(found.astype(np.float32)).to(w.device) if found.any() else None


def wanda(w: torch.Tensor, moments: Moments, pattern: Pattern, protected: torch.Tensor | None = None) -> Pruned:
    """|W_ij| * |X_j|, compared within a row (Sun et al., 2306.11695, eq. 1)."""
    x = norms(moments, w)
    if x is None:
        return Pruned(chosen(w.abs(), pattern, protected), note=UNREAD)
    return Pruned(chosen(w.abs().mul_(x), pattern, protected))


def wanda_variant(w: torch.Tensor, moments: Moments, pattern: Pattern, protected: torch.Tensor | None = None) -> Pruned:
    """Wanda whose rows give up an equal share of their score's sum, not an equal count (`use_variant` of the authors' code).

    A weight goes when the sum of its row's scores up to its own is at most alpha of the row's. The authors bisect alpha to within
    0.001 of the sparsity; ours is exact: sorted by that running share, the first ones of the matrix go.
    """
    x = norms(moments, w)
    if x is None:
        return Pruned(chosen(w.abs(), pattern, protected), note=UNREAD)
    score = w.abs() * x
    if pattern.m:
        return Pruned(chosen(score, pattern, protected))
    import torch

    ordered, order = score.sort(dim=1, stable=True)
    running = ordered.double().cumsum(1)
    share = torch.empty_like(running).scatter_(1, order, running / running[:, -1:].clamp(min=torch.finfo(torch.float64).tiny))
    return Pruned(chosen(share, pattern, protected, "matrix"))


def ria(w: torch.Tensor, moments: Moments, pattern: Pattern, protected: torch.Tensor | None = None, power: float = 0.5) -> Pruned:
    """(|W| / its column's sum + |W| / its row's sum) * |X_j|^power, over the whole matrix (Zhang et al., ICLR 2024).

    The default of the authors' code compares the whole matrix; `power` is their `a`, 0.5.
    """
    x, size = norms(moments, w), w.abs()
    tiny = 1e-30  # a column or row of zeros has score 0, not 0 / 0
    score = size / size.sum(0).clamp(min=tiny) + size / size.sum(1, keepdim=True).clamp(min=tiny)
    if x is None:
        return Pruned(chosen(score, pattern, protected, "matrix"), note="no token reached it: by relative importance alone")
    return Pruned(chosen(score * x**power, pattern, protected, "matrix"))
