"""What pruning knows of a matrix's input: sums over tokens, of squares (Wanda, RIA) and of products (SparseGPT, swaps).

A token counts once, whatever the length of its text; padding does not. Weights of tokens make mixtures of languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

STRIP = 192  # inputs
RUN = 256  # tokens whose squares are added up in float32


@dataclass
class Moments:
    """Sums over the tokens that reached one site: `tokens` their weight, `squares` float64 [in] of sum w x_j^2, `gram` float32
    [in, in] of sum w x x^T, or None where it is not kept; `each`: the same of every language by itself, where that is kept."""

    tokens: float
    squares: np.ndarray
    gram: np.ndarray | None = None
    each: Mapping[str, Moments] | None = None

    @classmethod
    def empty(cls, width: int, gram: bool) -> Moments:
        return cls(0.0, np.zeros(width), np.zeros((width, width), np.float32) if gram else None)

    def add(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """More tokens: x [tokens, in] of any float dtype; weights float [tokens], None for 1 each."""
        import torch

        self.tokens += float(len(x) if weights is None else weights.double().sum())
        if self.gram is not None:
            self.squares += add_products(torch.from_numpy(self.gram), weighed(x, weights))
            return
        counts = torch.ones(len(x), device=x.device) if weights is None else weights.float()
        for a in range(0, len(x), RUN):  # a product is the fastest sum, and of so many squares float32 is exact enough
            self.squares += (counts[a : a + RUN] @ x[a : a + RUN].float().square()).double().cpu().numpy()

    def __add__(self, other: Moments) -> Moments:
        gram = None if self.gram is None or other.gram is None else self.gram + other.gram
        return Moments(self.tokens + other.tokens, self.squares + other.squares, gram)

    @classmethod
    def together(cls, each: Mapping[str, Moments]) -> Moments:
        """All languages, and every one by itself."""
        first, *rest = each.values()
        total = replace(first, gram=first.gram if first.gram is None or not rest else first.gram.copy())
        for other in rest:
            total.tokens, total.squares = total.tokens + other.tokens, total.squares + other.squares
            if total.gram is not None and other.gram is not None:
                total.gram += other.gram
        return replace(total, each=dict(each))

    def scaled(self, factor: float) -> Moments:
        """The same text, weighing `factor` times as much."""
        gram = None if self.gram is None else self.gram * np.float32(factor)
        return Moments(self.tokens * factor, self.squares * factor, gram)

    @property
    def norms(self) -> np.ndarray:
        """Root of the mean square of every input, float64 [in]; 0 where nothing came."""
        return np.sqrt(self.squares / self.tokens) if self.tokens > 0 else np.zeros_like(self.squares)


def weighed(x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """float32 [tokens, in]: each token times the root of its weight."""
    return x.float() if weights is None else x.float() * weights.float().sqrt()[:, None]


def add_products(whole: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """whole [in, in] += x'x of x [tokens, in]: by strips from the diagonal on, each mirrored, for half of the work of a product.

    Returns what the diagonal gained, float64 [in]. A strip made on an accelerator is carried over: that costs less than making it.
    """
    squares = np.empty(x.shape[1])
    for a in range(0, x.shape[1], STRIP):
        b = a + STRIP
        part = (x[:, a:b].T @ x[:, a:]).cpu()
        whole[a:b, a:] += part
        whole[b:, a:b] += part[:, STRIP:].T
        squares[a:b] = part.diagonal().double().numpy()
    return squares
