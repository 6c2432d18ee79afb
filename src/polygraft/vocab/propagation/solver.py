"""One solver for every way of propagation: W that carries rows A of the base to rows B of the instruct model, A W ~ B.

What is solved for is the change W - 1 from the sums A'A and A'(B - A): where nothing changed it is exactly zero, and the ridge of
`(A'A + s lambda 1)(W - 1) = A'(B - A)`, s = trace(A'A) / d, draws W towards the identity (ours; published code has no ridge).
Squared sums lose half the digits, so they are used where A is well conditioned; elsewhere the rows are gone through again for
R of A = QR, which loses none, and the least squares of the smallest norm come from there, as lstsq(gelsy) has them.
Sums may come from float32 products (products.py); those are used where their rounding is far below that of the numbers that the
result is written in, see `rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SOUND = 1e8  # condition of A'A (with columns of length 1) up to which W has 7 digits from it
EPSILON = float(np.finfo(np.float64).eps)
UNIT = 2.0**-24  # rounding of a float32 operation
NEAR = 0.1  # |H^-1| |dH| up to which float32 sums tell their own H^-1
SMALLEST = 1e-24  # mean square of a column below which float32 products lose digits to underflow
PROBES = 16  # random directions that |H^-1| is measured along


@dataclass
class Moments:
    """Sums over rows: `gram` A'A and `cross` A'(B - A), float64 [d, d]; `rows` that were summed. Of float32 products, too: the
    rows of a `chunk` (0: float64 products), |B - A|^2 as `moved`, and how much relative error is `allowed`."""

    gram: np.ndarray
    cross: np.ndarray
    rows: int = 0
    chunk: int = 0
    moved: float = 0.0
    allowed: float = 0.0

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
        self.moved += other.moved

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


@dataclass(frozen=True)
class Factor:
    """L L' = H = S (A'A + ridge) S, columns of A and the ridge scaled to length 1 by `scale`, the diagonal of S; `reciprocal` of
    H's condition in the 1-norm."""

    lower: np.ndarray
    scale: np.ndarray
    reciprocal: float

    def solve(self, right: np.ndarray) -> np.ndarray:
        """H^-1 right."""
        from scipy.linalg import lapack

        return lapack.dpotrs(self.lower, right, lower=1)[0]


def factored(sums: Moments, ridge: float) -> Factor | None:
    """None where the sums are too ill conditioned to tell W."""
    from scipy.linalg import lapack

    added = sums.weight(ridge)
    diagonal = sums.gram.diagonal() + added
    if not ((diagonal > 0) & (diagonal < np.inf)).all() or (sums.chunk and not np.isfinite(sums.gram.sum() + sums.cross.sum())):
        return None
    scale = 1 / np.sqrt(diagonal)
    system = sums.gram * scale
    system *= scale[:, None]
    np.fill_diagonal(system, 1.0)
    size = float(np.abs(system).sum(0).max())
    lower, failed = lapack.dpotrf(system.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    reciprocal, _ = lapack.dpocon(lower, size, uplo="L")
    if not reciprocal * SOUND >= 1:
        return None
    made = Factor(lower, scale, float(reciprocal))
    return made if not sums.chunk or rounding(sums, made) <= sums.allowed else None


def rounding(sums: Moments, factor: Factor) -> float:
    """About how far float32 products put rows off, |e dW| / |e| in the mean square over rows e; inf where they cannot tell.

    A sum of c products in float32 is off by u sqrt(c) |a_i| |b_j| with u = 2^-24 (Higham and Mary, SIAM J. Sci. Comput. 41, 2019:
    rounding errors of mean zero; Cauchy and Schwarz for the sum of absolute products); chunks are taken to err all alike, which
    they do not. With columns of length 1, H = S A'A S and Y = S^-1 (W - 1) = H^-1 S A'(B - A), the errors of the sums have
    |E_j| = u sqrt(c) (|b_j - a_j| + |Y_j|) in each entry of column j, and dY = H^-1 E. So over all columns

        error = u sqrt(c) |H^-1| (|B - A| + |Y|) / |A|        (Frobenius norms; ours),

    at most u sqrt(c) sqrt(d) cond(A'A), times the share of the rows that the change is. |H^-1| and |Y| are measured along PROBES
    random directions: E |H^-1 z|^2 = |H^-1|^2. This needs sums that tell H^-1 itself: |H^-1| u sqrt(c d) <= NEAR.
    """
    width = len(factor.scale)
    directions = np.random.default_rng(0).standard_normal((width, PROBES))
    inverse = factor.solve(directions)
    size = float(np.linalg.norm(inverse)) / np.sqrt(PROBES)
    change = float(np.linalg.norm((inverse * factor.scale[:, None]).T @ sums.cross)) / np.sqrt(PROBES)
    unit = UNIT * np.sqrt(sums.chunk)
    if not size * unit * np.sqrt(width) <= NEAR or sums.gram.diagonal().min() < SMALLEST * sums.rows:
        return float("inf")
    return float(unit * size * (np.sqrt(sums.moved) + change) / np.sqrt(np.trace(sums.gram)))


def from_sums(sums: Moments, ridge: float) -> Solved | None:
    """W by Cholesky; None where the sums are too ill conditioned, or too coarse, to tell it."""
    if (factor := factored(sums, ridge)) is None:
        return None
    change = factor.solve(sums.cross * factor.scale[:, None])
    change *= factor.scale[:, None]
    way = "sums" if not sums.chunk else "sums of float32 products"
    return Solved(np.ascontiguousarray(change), len(change), float(np.sqrt(1 / factor.reciprocal)), way)


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
