"""Which weights go, given a score of each: the smallest of a group, as many as the pattern says, ties by the lowest index.

Two patterns. Unstructured: a share of every group, which is a row, the whole matrix or a block of columns, as the method has it.
N:M: of M neighbouring inputs of a row N are KEPT, as hardware counts non-zeros; "1:4" is thus 75 % sparse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from polygraft.errors import InputError, RecipeError

if TYPE_CHECKING:
    import torch

Group = Literal["row", "matrix"]  # what competes: the weights of one output, or all of a matrix
FEW = 4  # weights of a group
AT_ONCE = 1 << 20  # scores among which the smallest are looked for at once


@dataclass(frozen=True)
class Pattern:
    """What is asked of a matrix: `sparsity`, the share that goes (0 to 1), and for N:M also `n` kept of `m` neighbours.

    Of every group int(size * sparsity) go, as published code has it; where `exact`, round(size * sparsity) of the whole matrix.
    """

    sparsity: float
    n: int = 0
    m: int = 0  # 0: unstructured
    exact: bool = False

    @classmethod
    def of(cls, sparsity: float | None = None, text: str | None = None) -> Pattern:
        """From what is typed: a sparsity, or "2:4", or both where they agree. Raises RecipeError."""
        if text is None:
            if sparsity is None or not 0 <= sparsity <= 1:
                raise RecipeError("not a share of weights", where="sparsity", found=sparsity, expected="0 to 1")
            return cls(float(sparsity))
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
        n, m = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= n <= m:
            raise RecipeError("not a pattern", where="pattern", found=text, expected="N:M, N kept of M, such as 2:4")
        if sparsity is not None and abs(sparsity - (1 - n / m)) > 1e-9:
            raise RecipeError("pattern and sparsity disagree", where="pattern", found=f"{text} and {sparsity}",
                              expected=f"{text} keeps {n} of {m}: {1 - n / m:g}", fix="give one of both")  # fmt: skip
        return cls(1 - n / m, n, m)

    def at(self, sparsity: float, exact: bool = False) -> Pattern:
        """The same with another sparsity. Raises RecipeError for N:M, whose sparsity is fixed."""
        if self.m and abs(sparsity - self.sparsity) > 1e-9:
            raise RecipeError("N:M fixes the sparsity of every matrix", found=f"{self} and {sparsity:g}",
                              fix="allocate layers without a pattern")  # fmt: skip
        return replace(self, sparsity=float(sparsity), exact=exact and not self.m)

    def check(self, key: str, width: int) -> None:
        """Raises InputError where a matrix's `width` inputs do not divide into groups."""
        if self.m and width % self.m:
            raise InputError("the inputs of a matrix do not divide into groups", where=key, found=f"{width} inputs, {self}",
                             expected=f"a multiple of {self.m}", fix="another pattern, or --sparsity alone")  # fmt: skip

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.m else f"{self.sparsity:g}"


def quotas(sizes: torch.Tensor, free: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """How many weights go from each group of a matrix, int64 [groups]; `sizes` and `free` int64 [groups].

    `free` are those that are not protected. What protected weights leave undone is done in the whole of the groups, in proportion
    to what is free in each (largest remainders, ties to the lowest group), so that the matrix's count stays where it can.
    """

    asked = (sizes.double() * pattern.sparsity).long()
    if not pattern.exact and bool((free == sizes).all()):
        return asked
    wanted = round(int(sizes.sum()) * pattern.sparsity) if pattern.exact else int(asked.sum())
    room = int(free.sum())
    if wanted >= room:
        return free.clone()
    shares = free.double() * (wanted / room)
    counts = shares.floor().long()
    counts[(shares - counts).argsort(descending=True, stable=True)[: wanted - int(counts.sum())]] += 1
    return counts


def smallest(score: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """bool like `score` [groups, size]: the `counts[g]` smallest of each group; among equal ones the lowest index goes first.

    The same as a stable sort gives, from the value of the last one that goes: selecting it is cheaper than sorting. Some groups at
    a time, since it takes several times the memory of their scores.
    """
    import torch

    gone = torch.zeros_like(score, dtype=torch.bool)
    groups = max(1, AT_ONCE // max(score.shape[1], 1))
    for a in range(0, len(score), groups):
        if bool((own := counts[a : a + groups]).any()):
            gone[a : a + groups] = _smallest(score[a : a + groups], own)
    return gone


def _smallest(score: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    import torch

    last = lasts(score, counts)
    below, equal = score < last, score == last
    left = counts[:, None] - below.sum(1, keepdim=True, dtype=torch.int32)
    if bool((left < equal.sum(1, keepdim=True, dtype=torch.int32)).any()):  # ties that not all go, or groups that lose nothing
        equal &= equal.cumsum(1, dtype=torch.int32) <= left
    return below | equal


def lasts(score: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """[groups, 1]: the `counts[g]`-th smallest value of each group of `score` [groups, size]; the smallest where that is 0.

    numpy selects and sorts several times as fast as torch does on a CPU, but for groups of a few.
    """
    import torch

    alike, on_cpu = bool((counts == counts[0]).all()), score.device.type == "cpu" and score.dtype in (torch.float32, torch.float64)
    if alike and on_cpu and score.shape[1] > FEW:
        at = int(counts[0]) - 1
        return torch.from_numpy(np.ascontiguousarray(np.partition(score.numpy(), at, axis=1)[:, at : at + 1]))
    if alike:
        return score.kthvalue(int(counts[0]), dim=1, keepdim=True).values
    ordered = torch.from_numpy(np.sort(score.numpy(), axis=1)) if on_cpu else score.sort(dim=1).values
    return ordered.gather(1, (counts - 1).clamp(min=0)[:, None])


def chosen(score: torch.Tensor, pattern: Pattern, protected: torch.Tensor | None = None, group: Group = "row") -> torch.Tensor:
    """Keep-mask, bool [out, in]: the pattern's share of smallest scores goes.

    score float [out, in], finite; protected bool [out, in]: these stay. With N:M a group that has more than N protected weights
    keeps them all.
    """
    import torch

    out, width = score.shape
    rows, size = (out * width // pattern.m, pattern.m) if pattern.m else (out, width) if group == "row" else (1, out * width)
    flat = score.reshape(rows, size)
    free = torch.full((rows,), size, device=score.device)
    if protected is not None:
        flat = flat.masked_fill(protected.reshape(rows, size), torch.inf)
        free = (~protected).reshape(rows, size).sum(1)
    if pattern.m:
        counts = free.clamp(max=pattern.m - pattern.n)
    else:
        counts = quotas(torch.full_like(free, size), free, pattern)
    return smallest(flat, counts).logical_not_().reshape(out, width)
