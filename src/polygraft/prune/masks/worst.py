"""Swaps for the language that loses most: SparseSwaps on one Gram matrix a language, weighed by what each loses (ours).

The objective of a matrix W is min over masks of max over languages g of e_g = |(W - W') X_g|^2 / |W X_g|^2, at the same counts in
rows. Swaps make sum_g share_g e_g smaller. They are made in stages; between two of them a language's share is multiplied by
exp(RATE (e_g / mean - 1)), multiplicative weights on the max (Freund and Schapire 1999). Of the masks behind all stages and the
one at the beginning, that with the least max is returned: no language loses more than the one that lost most before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraft.prune.masks.swaps import swapped

if TYPE_CHECKING:
    import torch

STAGES = 8
RATE = 3.0


def swapped_for_the_worst(w: torch.Tensor, keep: torch.Tensor, grams: torch.Tensor, swaps: int, m: int = 0,
                          protected: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
    """Keep-mask after at most `swaps` swaps in every row.

    w float32 [out, in], keep bool [out, in], grams float32 [languages, in, in]; the others as in `swaps.swapped`. A language in
    which the matrix gives nothing (an expert that it never chose) does not count.
    """
    import torch

    energies = losses(w, torch.zeros_like(keep), grams)
    known = energies > 0
    if not bool(known.any()):
        return keep
    scale = torch.where(known, 1 / energies.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    shares = known.double() / known.sum()
    errors = losses(w, keep, grams) * scale
    best, least = keep, float(errors.max())
    for stage in stages(swaps):
        keep = swapped(w, keep, torch.tensordot((shares * scale).to(grams.dtype), grams, 1), stage, m, protected)
        errors = losses(w, keep, grams) * scale
        if float(errors.max()) < least:
            best, least = keep, float(errors.max())
        if not bool(errors.any()):
            break
        shares = shares * torch.exp(RATE * (errors / errors[known].mean() - 1))
        shares /= shares.sum()
    return best


def losses(w: torch.Tensor, keep: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
    """sum over rows of d G_g d, d the weights that go: float64 [languages]."""
    import torch

    d = torch.where(keep, 0, w)
    return torch.stack([((d @ g) * d).sum(dtype=torch.float64) for g in grams]).clamp(min=0)


def stages(swaps: int) -> list[int]:
    """So many swaps in STAGES parts, the longer ones first; fewer parts where there are not as many swaps."""
    short, more = divmod(swaps, STAGES)
    return [n for i in range(STAGES) if (n := short + (i < more))]
