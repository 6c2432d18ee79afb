"""LSAR: a low-rank subspace of directions that differ between languages (Xie et al., EMNLP 2022, arXiv 2401.05792).

With M [D, K] of mean states: min ||M - mu 1^T - M_s Gamma^T||_F^2 such that mu is orthogonal to span(M_s).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.errors import RecipeError

TINY = 1e-9  # a singular value below this part of ||M|| is rounding


@dataclass(frozen=True)
class Subspace:
    """`mu` float64 [D], `basis` float64 [D, r] orthonormal columns, `strength` float64 [r] descending (singular values)."""

    mu: np.ndarray
    basis: np.ndarray
    strength: np.ndarray

    @property
    def rank(self) -> int:
        return self.basis.shape[1]


def lsar(means: np.ndarray, rank: int | None = None) -> Subspace:
    """The subspace of `means` float64 [D, K]: rank K - 1 unless fewer are asked for, less where the means span less.

    The published code centres M by its mean w, takes the best rank-r fit B = w 1^T + U S V^T, and then moves to the point of B's
    affine hull that is nearest to the origin, mu = x / ||x||^2 with x = pinv(B)^T 1, because w itself is not orthogonal to U. As
    V^T 1 = 0, that x solves w . x = 1 and U^T x = 0, so mu = w - U U^T w: computed so, it needs no inverse and also holds where
    the hull passes through the origin (mu = 0). B - mu 1^T lies in span(U), and its left singular vectors are the basis.

    Raises RecipeError for a rank that K languages of width D cannot have.
    """
    width, count = means.shape
    most = min(count - 1, width - 1)
    if rank is not None and not 1 <= rank <= most:
        raise RecipeError("no subspace of this rank", where="rank", found=rank,
                          expected=f"1 to {most}: less than the number of languages ({count}) and the width ({width})")
    centre = means.mean(1)
    u, s, vt = np.linalg.svd(means - centre[:, None], full_matrices=False)
    r = min(most if rank is None else rank, int((s > TINY * np.linalg.norm(means)).sum()))
    along = u[:, :r].T @ centre
    mu = centre - u[:, :r] @ along
    inner, strength, _ = np.linalg.svd(along[:, None] + s[:r, None] * vt[:r], full_matrices=False)
    return Subspace(mu, u[:, :r] @ inner, strength)
