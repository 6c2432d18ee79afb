"""A'A and A'(B - A) from float32 products: a chunk of rows is multiplied in float32, chunks are added in float64.

Half the work of float64, and only for a result in bf16 or fp16, whose rounding is far coarser: `solver.rounding` says how far off W
may be, and with more than a 16th of the result's own rounding the rows are summed again in float64. Torch multiplies, since its
float32 products take two thirds of the time of numpy's; of the symmetric A'A it makes the blocks on and above the diagonal.
"""

from __future__ import annotations

import numpy as np

from polygraft.vocab.propagation.solver import Moments

CHUNK = 4096  # rows that are multiplied at a time
BLOCKS = 4  # of columns of A'A
UNITS = {"BF16": 2.0**-8, "F16": 2.0**-11}  # rounding of the numbers that a result is written in
SHARE = 1 / 16  # of that rounding that float32 products may add
WORTH = 1e10  # rows d^2, from which on time matters


def allowed(dtype: str, rows: int, width: int) -> float:
    """The relative error that W may have from float32 products; 0 where it is to be summed in float64."""
    return SHARE * UNITS.get(dtype, 0.0) if rows * width**2 >= WORTH else 0.0


class Products:
    """Sums that grow by rows of A and of B - A in float32 [n, d]."""

    def __init__(self, width: int, error: float):
        import torch

        self.sums = Moments(np.zeros((width, width)), np.zeros((width, width)), chunk=CHUNK, allowed=error)
        self.edges = [width * i // BLOCKS for i in range(BLOCKS + 1)]
        # Own memory, so that its place in a page, which the order of additions depends on, is the same in every run.
        self.a, self.change, self.made = (torch.empty(n, width) for n in (CHUNK, CHUNK, width))

    def add(self, a: np.ndarray, change: np.ndarray) -> None:
        import torch

        for start in range(0, len(a), CHUNK):
            rows = min(CHUNK, len(a) - start)
            mine, moved = self.a[:rows], self.change[:rows]
            mine.copy_(torch.from_numpy(a[start : start + rows]))
            moved.copy_(torch.from_numpy(change[start : start + rows]))
            for low, high in zip(self.edges, self.edges[1:]):
                made = self.made.view(-1)[: high * (high - low)].view(high, high - low)
                self.sums.gram[:high, low:high] += torch.mm(mine[:, :high].T, mine[:, low:high], out=made).numpy()
            self.sums.cross += torch.mm(mine.T, moved, out=self.made).numpy()
            self.sums.moved += float(torch.linalg.vector_norm(moved)) ** 2
            self.sums.rows += rows

    def total(self) -> Moments:
        """The sums so far."""
        gram = self.sums.gram
        for low, high in zip(self.edges, self.edges[1:]):
            gram[low:high, :low] = gram[:low, low:high].T
        return self.sums
