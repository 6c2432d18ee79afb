"""SparseSwaps (Zimmer et al., 2512.10922): a better mask from any mask, by exchanging one kept and one pruned weight of a row.

With d the weights of a row that are gone and c = G d, pruning p and restoring u changes the row's error d'Gd by
    2 w_p c_p + w_p^2 G_pp  -  2 w_u c_u + w_u^2 G_uu  -  2 w_p w_u G_pu,
so the best pair is known from the products of inputs alone. Rows keep their counts, groups of N:M theirs. The error is that of
whatever text the products are of: with a mixture of languages, of the mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polygraft.prune.engine import Method, Pruned
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.statistics import Moments

if TYPE_CHECKING:
    import torch

# (matrix, keep-mask, products, swaps, m, protected) -> keep-mask; products of every language by themselves: [languages, in, in]
Swap = Callable[..., "torch.Tensor"]
ROWS = 256  # rows in work at a time
SHORT = 64  # of those to prune, and of those to restore, the likeliest
LEAST = 1e-6  # of a row's error: a swap that gains less is not made


def refined(method: Method, pattern: Pattern, swaps: int, protected: Callable[[str], torch.Tensor | None],
            swap: Swap | None = None) -> Method:  # fmt: skip
    """A method that leaves weights as they are, and then at most `swaps` swaps in every row, made by `swap` (None: `swapped` on the
    products of the whole text)."""

    def then(ws: Mapping[str, torch.Tensor], moments: Moments) -> dict[str, Pruned]:
        found = method(ws, moments)
        if moments.gram is None or not moments.gram.any():
            return dict(found)
        import torch

        like = next(iter(ws.values()))
        each = (moments.each or {}).values() if swap else ()
        grams = torch.from_numpy(np.stack([m.gram for m in each if m.gram is not None]) if each else moments.gram).to(like)
        stay = {key: None if (own := protected(key)) is None else own.to(like.device) for key in ws}
        return {key: replace(p, keep=(swap or swapped)(ws[key], p.keep, grams, swaps, pattern.m, stay[key]))
                for key, p in found.items()}  # fmt: skip

    return then


def swapped(w: torch.Tensor, keep: torch.Tensor, gram: torch.Tensor, swaps: int, m: int = 0,
            protected: torch.Tensor | None = None, short: int = SHORT) -> torch.Tensor:  # fmt: skip
    """Keep-mask after at most `swaps` swaps in every row, the best first; a row is done when none makes its error smaller.

    w float32 [out, in], keep bool [out, in], gram float32 [in, in]; protected bool [out, in] stay. `m`: swaps stay within groups
    of `m` inputs, and all pairs are looked at. Otherwise pairs of the `short` cheapest to prune and the `short` best to restore
    are, each taken by itself (ours, for speed; rows of up to `short` inputs have all their pairs looked at, as published).
    """
    import torch

    keep = keep.clone()
    for start in range(0, len(w), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(w)), device=w.device)
        lost = torch.where(keep[rows], 0, w[rows]) @ gram
        for _ in range(swaps):
            own = keep[rows] if protected is None else keep[rows] & ~protected[rows]
            gain, out, back = best(w[rows], own, ~keep[rows], lost, gram, m, short)
            error = (torch.where(keep[rows], 0, w[rows]) * lost).sum(1)
            better = gain < -LEAST * error
            if not bool(better.any()):
                break
            rows, lost, out, back = rows[better], lost[better], out[better], back[better]
            lost += w[rows, out, None] * gram[out] - w[rows, back, None] * gram[back]
            keep[rows, out], keep[rows, back] = False, True
    return keep


def best(w: torch.Tensor, kept: torch.Tensor, gone: torch.Tensor, lost: torch.Tensor, gram: torch.Tensor, m: int,
         short: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """The best swap of each row: change of the error (inf where there is none), what to prune, what to restore: each [rows].

    kept and gone bool [rows, in]: what may be pruned, and restored.
    """
    import torch

    own = w.square() * gram.diagonal()
    prune = (own + 2 * w * lost).masked_fill(~kept, torch.inf)
    restore = (own - 2 * w * lost).masked_fill(~gone, torch.inf)
    if m:
        groups = (len(w), w.shape[1] // m, m)
        out = back = torch.arange(w.shape[1], device=w.device).expand_as(w).reshape(groups)
        blocks = gram.reshape(groups[1], m, groups[1], m).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # [groups, m, m]
        a, b, ws = prune.reshape(groups), restore.reshape(groups), w.reshape(groups)
        both = ws[..., :, None] * ws[..., None, :] * blocks
    else:
        a, out = prune.topk(min(short, w.shape[1]), largest=False)
        b, back = restore.topk(min(short, w.shape[1]), largest=False)
        both = w.gather(1, out)[:, :, None] * w.gather(1, back)[:, None, :] * gram[out[:, :, None], back[:, None, :]]
    change = (a[..., :, None] + b[..., None, :] - 2 * both).reshape(len(w), -1)
    gain, at = change.min(1)
    width = a.shape[-1]
    first = (at // width).clamp(max=out[0].numel() - 1)  # the pair's first, counted over all groups
    second = at // (width * width) * width + at % width
    pick = torch.arange(len(w), device=w.device)
    return gain, out.reshape(len(w), -1)[pick, first], back.reshape(len(w), -1)[pick, second]
