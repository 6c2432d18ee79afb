"""Which rows are read as branches of one tree and which alone, and that the former are exact: tried, not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polygraft.choose.graft import pieces
from polygraft.choose.graft.pieces import Read
from polygraft.evals.engines.exact import FAILS, Branches, judged, probes


class Reader:
    """Rows of ids as pieces. `alone(read)` gives the nats of each row of a read under one model: what branches are tried with."""

    def __init__(self, model: Any, device: str, tokens: int, alone: Callable[[Read], np.ndarray]):
        self.model, self.device, self.tokens, self.alone = model, device, tokens, alone
        self.branches = Branches(model, self._agree)

    def read(self, rows: Sequence[Sequence[int]], scored: Sequence[int]) -> Read:
        """Rows that this model reads exactly as branches, in a tree, and the others padded."""
        exact = {n: self.branches.exact(n) for n in {len(row) for row in rows}}
        together = [i for i, row in enumerate(rows) if exact[len(row)]]
        alone = [i for i, row in enumerate(rows) if not exact[len(row)]]
        tree = pieces.branches(self.model, *_some(rows, scored, together), self.tokens, self.device)
        rest = pieces.padded(*_some(rows, scored, alone), self.tokens, self.device, tree.tokens)
        return pieces.joined(tree, rest, [*together, *alone])

    def _agree(self, stem: int) -> tuple[bool, str]:
        rows = probes(self.model.get_input_embeddings().weight.shape[0], stem)
        scored = [min(24, len(row) - 1) for row in rows]
        alone = self.alone(pieces.padded(rows, scored, 1, self.device))
        try:
            together = self.alone(pieces.branches(self.model, rows, scored, max(7, stem // 2), self.device))
        except FAILS as error:
            return False, f"{type(error).__name__} on a row of branches"
        return judged(self.model.dtype, alone, together)


def _some(rows: Sequence[Sequence[int]], scored: Sequence[int], chosen: Sequence[int]) -> tuple[list[Sequence[int]], list[int]]:
    return [rows[i] for i in chosen], [scored[i] for i in chosen]
