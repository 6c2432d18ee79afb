"""SparseGPT (Frantar and Alistarh, 2301.00774): weights go column by column, and what stays makes up for it.

Matrices that share an input share one Hessian and one factorisation, and their rows are solved together; what goes is chosen in
each matrix by itself. U is upper triangular with U'U = inv(H): U[i, i]^2 is the first diagonal element of the inverse of H[i:, i:].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polygraft.prune.engine import Pruned, finite
from polygraft.prune.masks.pattern import Pattern, quotas, smallest
from polygraft.prune.masks.scores import wanda
from polygraft.prune.statistics import Moments
from polygraft.standins import PIECE

if TYPE_CHECKING:
    import torch

LADDER = (1.0, 10.0, 100.0)  # times the damping: 0.01, 0.1, 1 of the mean diagonal
BLOCK = 128  # columns among whose weights those that go are chosen
STEP = 16  # columns between two products of matrices


def inverse_factor(gram: torch.Tensor, damping: float, tokens: float = 1.0) -> torch.Tensor | None:
    """U [in, in] for H = gram / tokens + damping * mean(diag) * I, or None where H is not positive definite.

    The mean is over inputs that tokens had; one that none had gets it as its diagonal. With R upper triangular and H = R R', the
    Cholesky factor of the matrix turned about, U = inv(R): neither the inverse of H nor a second factorisation is made. Beside
    `gram` there are never more than two such matrices: each is made in the place of what it is made of, columns being contiguous.
    """
    import torch

    each = gram.diagonal() / tokens
    mean = float(each[each != 0].double().mean())
    h, rows = torch.empty_like(gram).T, max(1, PIECE // len(gram))
    for a in range(0, len(h), rows):
        h[a : a + rows] = gram[max(len(h) - a - rows, 0) : len(h) - a].flip(0, 1) / tokens
    h.diagonal().copy_(torch.where(each == 0, mean, each).flip(0) + damping * mean)
    failed = torch.empty((), dtype=torch.int32, device=h.device)
    torch.linalg.cholesky_ex(h, out=(h, failed))
    if int(failed) or not bool(torch.isfinite(h.diagonal()).all()):
        return None
    upper = h.flip(0, 1)
    del h
    u = torch.eye(len(upper), dtype=upper.dtype, device=upper.device).T
    torch.linalg.solve_triangular(upper, u, upper=True, out=u)
    return u if finite(u.T) else None


def sparsegpt(ws: Mapping[str, torch.Tensor], moments: Moments, patterns: Mapping[str, Pattern],
              protected: Mapping[str, torch.Tensor | None], damping: float = 0.01,
              block: int = BLOCK) -> dict[str, Pruned]:  # fmt: skip
    """All matrices [out, in] of one site, float32. Protected weights keep their value, and the others make up for that too.

    Where no damping of the ladder makes the Hessian positive definite, or no token came, Wanda decides, and the note says so.
    """
    import torch

    assert moments.gram is not None
    if not moments.gram.diagonal().any():
        return {key: wanda(w, moments, patterns[key], protected[key]) for key, w in ws.items()}
    gram = torch.from_numpy(moments.gram).to(next(iter(ws.values())))
    for rung in LADDER:
        u = inverse_factor(gram, damping * rung, moments.tokens)
        if u is not None:
            note = "" if rung == 1 else f"the Hessian needed {damping * rung:g} damping"
            return Solver.of(ws, u, protected, gram.diagonal() == 0).solve(patterns, note, block)
    told = f"the Hessian is not positive definite, even with {damping * LADDER[-1]:g} damping: by wanda"
    return {key: Pruned(wanda(w, moments, patterns[key], protected[key]).keep, note=told) for key, w in ws.items()}


@dataclass
class Solver:
    """The matrices of a site while they are pruned: columns of W lie as rows, all outputs side by side, [in, outputs]."""

    left: torch.Tensor  # weights as they are now; done for columns behind
    keep: torch.Tensor  # bool
    stay: torch.Tensor  # bool: protected
    fixed: torch.Tensor | None  # the weights as they were, where some are protected
    rows: dict[str, slice]  # each matrix's outputs
    u: torch.Tensor
    cost: torch.Tensor  # [in, 1]: of a squared weight that goes; 0 for an input that no token had: it goes first

    @classmethod
    def of(cls, ws: Mapping[str, torch.Tensor], u: torch.Tensor, protected: Mapping[str, torch.Tensor | None],
           dead: torch.Tensor) -> Solver:  # fmt: skip
        import torch

        left = torch.cat([w.T for w in ws.values()], 1)
        stay = torch.zeros_like(left, dtype=torch.bool)
        rows, end = {}, 0
        for key, w in ws.items():
            rows[key], end, own = slice(end, end + len(w)), end + len(w), protected[key]
            if own is not None:
                stay[:, rows[key]] = own.T
        fixed = left.clone() if bool(stay.any()) else None
        cost = torch.where(dead, 0, u.diagonal() ** -2)[:, None]
        return cls(left, torch.ones_like(stay), stay, fixed, rows, u, cost)

    def solve(self, patterns: Mapping[str, Pattern], note: str, block: int) -> dict[str, Pruned]:
        """Block by block; for N:M a block holds whole groups."""
        one = next(iter(patterns.values()))  # all of a site have the same N:M
        width = max(block // one.m, 1) * one.m if one.m else block
        counts = {} if one.m else {key: self.counts(key, width, patterns[key]) for key in self.rows}
        for start in range(0, len(self.left), width):
            stop = min(start + width, len(self.left))
            for key, found in counts.items():
                part = self.rows[key]
                self.choose(slice(start, stop), part, found[start // width].reshape(1))
            errors = self.through(start, stop, one)
            self.left[stop:] -= self.u[start:stop, stop:].T @ errors
        return {key: Pruned(self.keep[:, part].T.contiguous(), self.left[:, part].T.contiguous(), note)
                for key, part in self.rows.items()}  # fmt: skip

    def counts(self, key: str, width: int, pattern: Pattern) -> torch.Tensor:
        """How many of a matrix's weights go in every block of `width` columns."""
        import torch

        free = [(~b).sum() for b in self.stay[:, self.rows[key]].split(width)]
        sizes = [b.numel() for b in self.stay[:, self.rows[key]].split(width)]
        return quotas(torch.tensor(sizes, device=self.left.device), torch.stack(free), pattern)

    def choose(self, columns: slice, part: slice, counts: torch.Tensor, groups: int = 1) -> None:
        """Settle what goes of some columns: `counts[g]` in each of `groups` equal groups of outputs, the cheapest."""
        score = (self.left[columns, part].square() * self.cost[columns]).masked_fill(self.stay[columns, part], float("inf"))
        gone = smallest(score.T.reshape(groups, -1), counts)
        self.keep[columns, part] = ~gone.reshape(score.T.shape).T

    def through(self, start: int, stop: int, pattern: Pattern) -> torch.Tensor:
        """One block's columns, in order; returns what was lost of each, over U's diagonal: [columns, outputs].

        Columns of a step are brought up to date at once, by a product with all errors before it, and then one by one.
        """
        import torch

        errors = torch.zeros_like(self.left[start:stop])
        step = max(STEP // pattern.m, 1) * pattern.m if pattern.m else STEP
        for a in range(start, stop, step):
            b = min(a + step, stop)
            self.left[a:b] -= self.u[start:a, a:b].T @ errors[: a - start]
            for i in range(a, b):
                if pattern.m and i % pattern.m == 0:
                    columns = slice(i, i + pattern.m)
                    free = (~self.stay[columns]).sum(0)
                    self.choose(columns, slice(None), free.clamp(max=pattern.m - pattern.n), len(free))
                w = self.left[i]
                q = w * self.keep[i]
                if self.fixed is not None:
                    q = torch.where(self.stay[i], self.fixed[i], q)
                errors[i - start] = (w - q) / self.u[i, i]
                self.left[i] = q
                self.left[i + 1 : b] -= self.u[i, i + 1 : b, None] * errors[i - start]
        return errors
