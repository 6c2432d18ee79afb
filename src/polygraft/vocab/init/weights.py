"""Weights of a token's pieces, and the token as their weighted mean.

uniform: FVT (Gee et al. 2022), LEP eq. (1) (arXiv 2412.21140); first: EEVE's output rows (arXiv 2402.14714); decay: exp(-i) of
piece i, as the published code of LEP has it; length: by characters, the output rule of "Beyond Initialization Loss"
(arXiv 2608.03494).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.init.mixture import Mixture
from polygraft.vocab.pieces import Pieces

Weighting = Literal["uniform", "first", "last", "length", "decay"]
MEANINGLESS = 0.1  # LEP's published code weighs a piece of nothing but spaces so much less


def characters(pieces: list[bytes]) -> np.ndarray:
    """Characters of each piece, float64: a byte of a character of n bytes is 1 / n of it, a byte of no character a whole one."""
    shares = [1 / size for c in b"".join(pieces).decode("utf-8", "surrogateescape")
              for size in [len(c.encode("utf-8", "surrogateescape"))] for _ in range(size)]  # fmt: skip
    ends = np.cumsum([len(p) for p in pieces])
    return np.diff(np.concatenate([[0.0], np.cumsum(shares)[ends - 1]]))


def of_pieces(pieces: list[bytes], rule: Weighting, spaces: float) -> np.ndarray:
    """Weights of one token's pieces, float64 [pieces], sum 1. `spaces` scales those of nothing but white space."""
    n = len(pieces)
    found = {
        "uniform": lambda: np.ones(n),
        "first": lambda: np.eye(n)[0],
        "last": lambda: np.eye(n)[-1],
        "length": lambda: characters(pieces),
        "decay": lambda: np.exp(-np.arange(n)),
    }[rule]()
    if n > 1 and spaces != 1 and rule not in ("first", "last"):
        found = found * [spaces if not p.strip() else 1.0 for p in pieces]
    return found / found.sum()


def of_tokens(pieces: Pieces, old: Vocabulary, rule: Weighting, spaces: float = 1.0) -> Mixture:
    """Every new token that has pieces as their weighted mean; a copied one is the old token whole."""
    weights = np.ones(len(pieces.ids))
    for token in np.flatnonzero(pieces.counts > 1):
        parts = [old.contents[i] or b"" for i in pieces.of(int(token))]
        weights[pieces.offsets[token] : pieces.offsets[token + 1]] = of_pieces(parts, rule, spaces)
    return Mixture(pieces.ids, weights, pieces.offsets)
