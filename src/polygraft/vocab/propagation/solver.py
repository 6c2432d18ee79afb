"""One solver for every way of propagation: W that carries rows A of the base to rows B of the instruct model, A W ~ B.

What is solved for is the change W - 1 from the sums A'A and A'(B - A): where nothing changed it is exactly zero, and the ridge of
`(A'A + s lambda 1)(W - 1) = A'(B - A)`, s = trace(A'A) / d, draws W towards the identity (ours; published code has no ridge).
Squared sums lose half the digits, so they are used where A is well conditioned; elsewhere the rows are gone through again for
R of A = QR, which loses none, and the least squares of the smallest norm come from there, as lstsq(gelsy) has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SOUND = 1e8  # condition of A'A (with columns of length 1) up to which W has 7 digits from it
EPSILON = float(np.finfo(np.float64).eps)


@dataclass
class Moments:
    """Sums over rows: `gram` A'A and `cross` A'(B - A), float64 [d, d]; `rows` that were summed."""

    gram: np.ndarray
    cross: np.ndarray
    rows: int = 0

    @classmethod
    def of(cls, width: int) -> Moments:
        return cls(np.zeros((width, width)), np.zeros((width, width)))

    def add(self, a: np.ndarray, change: np.ndarray) -> None:
        """Rows of A and of B - A, float64 [n, d]."""
        self.gram += a.T @ a
        self.cross += a.T @ change
        self.rows += len(a)

    def absorb(self, other: Moments) -> None:
        self.gram += other.gram
        self.cross += other.cross
        self.rows += other.rows

    def weight(self, ridge: float) -> float:
        """The ridge in the units of A'A."""
        return ridge * float(np.trace(self.gram)) / len(self.gram)


@dataclass(frozen=True)
class Solved:
    """`change` W - 1, float64 [d, d]; the `rank` of A, its `condition` (columns of length 1; None where the rank is not full), and
    the way that it was solved."""

    change: np.ndarray
    rank: int
    condition: float | None
    way: str


def from_sums(sums: Moments, ridge: float) -> Solved | None:
    """W by Cholesky; None where the sums are too ill conditioned to tell it."""
    from scipy.linalg import lapack

    added = sums.weight(ridge)
    diagonal = sums.gram.diagonal() + added
    if not (diagonal > 0).all():
        return None
    scale = 1 / np.sqrt(diagonal)
    system = sums.gram * scale
    system *= scale[:, None]
    np.fill_diagonal(system, 1.0)
    size = float(np.abs(system).sum(0).max())
    factor, failed = lapack.dpotrf(system.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    reciprocal, _ = lapack.dpocon(factor, size, uplo="L")
    if not reciprocal * SOUND >= 1:
        return None
    change, _ = lapack.dpotrs(factor, sums.cross * scale[:, None], lower=1)
    change *= scale[:, None]
    return Solved(np.ascontiguousarray(change), len(scale), float(np.sqrt(1 / reciprocal)), "sums")


@dataclass
class Triangle:
    """A = QR, row block by row block: `r` [k, d] and `cross` Q'(B - A) [k, d], k at most d."""

    r: np.ndarray
    cross: np.ndarray
    rows: int = 0

    @classmethod
    def of(cls, width: int, added: float = 0.0) -> Triangle:
        """Empty, or with `added` (a ridge in the units of A'A) times the identity below A."""
        r = np.sqrt(added) * np.eye(width if added else 0, width)
        return cls(r, np.zeros_like(r))

    def add(self, a: np.ndarray, change: np.ndarray) -> None:
        q, self.r = np.linalg.qr(np.vstack([self.r, a]))
        self.cross = q.T @ np.vstack([self.cross, change])
        self.rows += len(a)

    def solve(self) -> Solved:
        """Least squares of the smallest norm: columns of R below `eps * max(rows, d)` of the first do not count, as in gelsy."""
        from scipy.linalg import lapack, lstsq

        width = self.r.shape[1]
        cut = EPSILON * max(self.rows, width)
        change, _, rank, _ = lstsq(self.r, self.cross, cond=cut, lapack_driver="gelsy")
        condition = None
        if rank < width:
            whole, _, rank, _ = lstsq(self.r, self.r + self.cross, cond=cut, lapack_driver="gelsy")
            change = whole - np.eye(width)
        else:
            lengths = np.maximum(np.linalg.norm(self.r, axis=0), np.finfo(np.float64).tiny)
            reciprocal, _ = lapack.dtrcon(np.asfortranarray(self.r / lengths))
            condition = float(1 / reciprocal) if reciprocal else None
        return Solved(change, int(rank), condition, "qr")


def orthogonal(sums: Moments) -> Solved:
    """The rotation nearest to carrying A to B: U V' of A'B = U S V' (Schoenemann 1966)."""
    from scipy.linalg import svd

    u, s, vt = svd(sums.gram + sums.cross, overwrite_a=True, check_finite=False)
    rank = int((s > EPSILON * len(s) * s[0]).sum()) if s[0] > 0 else 0
    return Solved(u @ vt - np.eye(len(s)), rank, None, "svd")
