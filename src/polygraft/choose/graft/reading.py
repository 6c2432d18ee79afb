"""Which rows are read as branches of one tree and which alone; that the former are exact is tried, not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polygraft.choose.graft import pieces
from polygraft.choose.graft.pieces import Read
from polygraft.errors import InputError
from polygraft.evals.engines import tree
from polygraft.evals.engines.exact import FAILS, Branches, judged, probes

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Reader:
    """Rows of ids as pieces. `branches` knows which rows may stand in a tree; `context`: how many tokens a row may have besides its
    last."""

    model: Any
    device: str
    context: int
    branches: Branches

    def groups(self, rows: Rows, scored: Sequence[int], most: int | None) -> list[list[int]]:
        """Numbers of rows that are read together: those that begin alike, about `most` tokens (None: all).

        Rows of which nothing is scored are left out. Raises InputError for a row that the model cannot read.
        """
        for number, row in enumerate(rows):
            self._check(number, row, scored[number])
        return _groups(rows, [i for i, n in enumerate(scored) if n > 0], most)

    def read(self, rows: Rows, scored: Sequence[int], piece: int) -> Read:
        """Rows that this model reads exactly as branches in a tree, the others padded, at most `piece` tokens in a call."""
        exact = {n: self.branches.exact(n) for n in {len(row) for row in rows}}
        together = [i for i, row in enumerate(rows) if exact[len(row)]]
        alone = [i for i, row in enumerate(rows) if not exact[len(row)]]
        tried = pieces.branches(self.model, *_some(rows, scored, together), piece, self.device)
        rest = pieces.padded(*_some(rows, scored, alone), piece, self.device, tried.tokens)
        return pieces.joined(tried, rest, [*together, *alone])

    def _check(self, number: int, row: Sequence[int], scored: int) -> None:
        where = f"row {number}"
        if not 0 <= scored < max(1, len(row)):
            raise InputError("more tokens to score than can be", where=where, found=scored, expected=f"at most {len(row) - 1}")
        if len(row) > self.context + 1:
            raise InputError("longer than the model's context", where=where, found=f"{len(row):,} tokens",
                             expected=f"at most {self.context + 1:,}", fix="cut its beginning")
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        if bad := [i for i in row if not 0 <= i < vocabulary]:
            raise InputError("an id that the model has no embedding for", where=where, found=bad[0],
                             expected=f"below {vocabulary:,}", fix="use the model's own tokenizer")


def agree(model: Any, device: str, alone: Callable[[Read], np.ndarray], stem: int) -> tuple[bool, str]:
    """(whether rows that branch after `stem` tokens are read as they are alone, why not), as `evals.engines.exact.agree` tries it.

    alone: gives the nats of each row of a read under one model.
    """
    rows = probes(model.get_input_embeddings().weight.shape[0], stem)
    scored = [min(24, len(row) - 1) for row in rows]
    # fewer tokens in a piece than a row has, so that the path is carried on, too
    tried = pieces.branches(model, rows, scored, max(7, stem // 2), device)
    both = pieces.joined(tried, pieces.padded(rows, scored, 1, device, tried.tokens), range(2 * len(rows)))
    try:
        together, apart = np.split(alone(both), 2)
    except FAILS as error:
        return False, f"{type(error).__name__} on a row of branches"
    return judged(model.dtype, apart, together)


def _groups(rows: Rows, asked: Sequence[int], most: int | None) -> list[list[int]]:
    """Rows in groups of about `most` tokens, what they share counted once; all in one where there is no bound."""
    groups: list[list[int]] = []
    size = 0
    before: Sequence[int] = ()
    for i in sorted(asked, key=lambda i: list(rows[i])):
        more = len(rows[i]) - tree.shared(before, rows[i])
        if not groups or (most is not None and size + more > most):
            groups.append([])
            size, more = 0, len(rows[i])
        groups[-1].append(i)
        size, before = size + more, rows[i]
    return groups


def _some(rows: Rows, scored: Sequence[int], chosen: Sequence[int]) -> tuple[list[Sequence[int]], list[int]]:
    return [rows[i] for i in chosen], [scored[i] for i in chosen]
