"""W of one table: which rows it is fitted on, how well it carries rows that it has not seen, and the fit to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from polygraft.errors import InputError
from polygraft.result import Estimate
from polygraft.stats import resampled, summarise
from polygraft.vocab.init.mixture import Mixture, blocks, rows
from polygraft.vocab.propagation.products import Products, allowed
from polygraft.vocab.propagation.solver import Moments, Solved, Triangle, factored, from_sums, orthogonal
from polygraft.vocab.tables import Table

HELD = 0.05  # of the rows, that the tried W does not see
MOST = 8192  # held-out rows: more would tell nothing more
FEWEST = 20  # rows that a W can be fitted and tried on
GRID = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)  # and none of W: the identity
IDENTITY = float("inf")
EARLY = 8  # times d rows tell whether float32 products will do
Tell = Callable[[int, int], None]  # rows read so far, of how many


def _quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Both:
    """Rows of one meaning in base and instruct model: those of `ids`, or the sums of old rows that `mixture` makes for `ids`."""

    base: Table
    instruct: Table
    ids: np.ndarray
    mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        return self.base.shape[1]

    def take(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A and B of these: float32 [n, d] as tables have them, float64 for sums of rows."""
        if self.mixture is None:
            return self.base.gather(ids), self.instruct.gather(ids)
        some = self.mixture.take(ids)
        return rows(some, self.base), rows(some, self.instruct)

    def chunks(self, at: np.ndarray, dtype: type = np.float64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A and B - A of the rows at these places, in their order and this dtype, some 64 MB of float32 at a time."""
        counts = np.ones(max(self.base.shape[0], 1), np.int64) if self.mixture is None else self.mixture.counts
        for part in blocks(self.ids[at], counts, self.width):
            a, b = self.take(part)
            change = np.subtract(b, a, dtype=np.promote_types(b.dtype, dtype))
            yield a.astype(dtype, copy=False), change.astype(dtype, copy=False)


@dataclass(frozen=True)
class Tried:
    """Root sums of squares over held-out rows: |AW - B|, |A - B| and |B|; `ratio` of the first two with its interval."""

    rows: int
    error: float
    unchanged: float
    size: float
    ratio: Estimate | None

    @property
    def relative(self) -> float | None:
        """|AW - B| / |B|."""
        return self.error / self.size if self.size else None

    @property
    def nothing(self) -> float | None:
        """|A - B| / |B|: the same for W = 1."""
        return self.unchanged / self.size if self.size else None


@dataclass(frozen=True)
class Fit:
    """W of one table, fitted on `rows` rows, and how the W of a fit without the held-out ones did on these. `tries`: ridge ->
    |AW - B| on the rows that the ridge was chosen by (None: not told apart from nothing at this precision)."""

    solved: Solved
    ridge: float
    rows: int
    tried: Tried
    tries: dict[float, float | None]


def split(n: int, seed: int, halves: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places to fit on, to choose the ridge by (none unless `halves`) and to report, each ascending."""
    drawn = np.random.default_rng(seed).permutation(n)
    held = min(MOST, max(2 if halves else 1, round(HELD * n)))
    choosing = held // 2 if halves else 0
    return np.sort(drawn[held:]), np.sort(drawn[:choosing]), np.sort(drawn[choosing:held])


def fit(both: Both, ridge: float | None, seed: int, *, rotate: bool = False, tell: Tell = _quiet) -> Fit:
    """W of all rows, and the error of a separate fit on held-out ones. `rotate`: Procrustes instead of least squares.

    Without `ridge` the one of GRID, or the identity, that does best on one half of the held-out rows; the other half gives the
    error. Raises InputError for too few rows.
    """
    if len(both) < FEWEST:
        raise InputError("too few tokens to learn from how their rows changed", where=both.base.key, found=len(both),
                         expected=f"{FEWEST} or more", fix="propagate with `mode: swap`, which learns nothing")
    train, choose, report = split(len(both), seed, ridge is None)
    sums = sums_of(both, train, ridge or 0.0, rotate, lambda n: tell(n, len(both)))
    tries: dict[float, float | None] = {}
    if ridge is None:
        tries = tried_out(both, sums, choose)
        ridge = min((error, r) for r, error in tries.items() if error is not None)[1]
    first = solved(both, sums, train, ridge, rotate)
    found = trial(both, first.change, report, seed)
    rest = np.sort(np.concatenate([choose, report]))
    sums.absorb((coarse if sums.chunk else summed)(both, rest, lambda n: tell(len(train) + n, len(both))))
    return Fit(solved(both, sums, np.arange(len(both)), ridge, rotate), ridge, len(both), found, tries)


def sums_of(both: Both, at: np.ndarray, ridge: float, rotate: bool = False,
            tell: Callable[[int], None] = lambda n: None) -> Moments:
    """A'A and A'(B - A) over the rows at these places: of float32 products where W has enough digits from them, else of float64
    ones. A rotation is always of float64: how much it takes depends on gaps between singular values."""
    error = 0.0 if rotate else allowed(both.instruct.dtype, len(both), both.width)
    if error:
        first, others = np.split(at, [min(EARLY * both.width, len(at))])
        sums = coarse(both, first, tell, error)
        if factored(sums, ridge) is not None:  # else it shows early that float64 is needed
            sums.absorb(coarse(both, others, lambda n: tell(len(first) + n)))
            return sums
    return summed(both, at, tell)


def coarse(both: Both, at: np.ndarray, tell: Callable[[int], None] = lambda n: None, error: float = 0.0) -> Moments:
    """The sums of float32 products over the rows at these places, W of which may be off by `error`."""
    products = Products(both.width, error)
    for a, change in both.chunks(at, np.float32):
        products.add(a, change)
        tell(products.sums.rows)
    return products.total()


def summed(both: Both, at: np.ndarray, tell: Callable[[int], None] = lambda n: None) -> Moments:
    """The sums of float64 products over the rows at these places."""
    sums = Moments.of(both.width)
    for a, change in both.chunks(at):
        sums.add(a, change)
        tell(sums.rows)
    if not (np.isfinite(sums.gram.sum()) and np.isfinite(sums.cross.sum())):
        raise InputError("rows that are not finite numbers, or too large to be summed", where=both.base.key,
                         found=f"|A'A| {np.abs(sums.gram).max():g}, |A'(B - A)| {np.abs(sums.cross).max():g}",
                         expected="finite rows in base and instruct model", fix="get the models again; training may have diverged")
    return sums


def solved(both: Both, sums: Moments, at: np.ndarray, ridge: float, rotate: bool = False) -> Solved:
    """W of the rows at these places, whose sums are given; they are read again where the sums do not tell it."""
    if rotate:
        return orthogonal(sums)
    if ridge == IDENTITY:
        return Solved(np.zeros_like(sums.gram), both.width, None, "identity")
    if (found := from_sums(sums, ridge)) is not None:
        return found
    if sums.chunk:
        return solved(both, summed(both, at), at, ridge)
    triangle = Triangle.of(both.width, sums.weight(ridge))
    for a, change in both.chunks(at):
        triangle.add(a, change)
    return triangle.solve()


def tried_out(both: Both, sums: Moments, at: np.ndarray) -> dict[float, float | None]:
    """Ridge -> |AW - B| on the rows at these places; None where the sums do not tell W."""
    found: dict[float, float | None] = {IDENTITY: float(np.sqrt(squares(both, None, at)[:, 0].sum()))}
    for ridge in GRID:
        made = from_sums(sums, ridge)
        found[ridge] = None if made is None else float(np.sqrt(squares(both, made.change, at)[:, 0].sum()))
    return found


def squares(both: Both, change: np.ndarray | None, at: np.ndarray) -> np.ndarray:
    """|aW - b|^2, |a - b|^2 and |b|^2 of every row at these places, float64 [n, 3]."""
    found = []
    for a, d in both.chunks(at):
        left = d if change is None else a @ change - d
        found.append(np.stack([np.einsum("nd,nd->n", x, x) for x in (left, d, a + d)], 1))
    return np.concatenate(found) if found else np.empty((0, 3))


def trial(both: Both, change: np.ndarray | None, at: np.ndarray, seed: int) -> Tried:
    """How W does on the rows at these places, with a bootstrap over them."""
    each = squares(both, change, at)
    error, unchanged, size = (float(x) for x in np.sqrt(each.sum(0)))
    return Tried(len(each), error, unchanged, size, ratio_of(each, seed))


def ratio_of(each: np.ndarray, seed: int) -> Estimate | None:
    """|AW - B| / |A - B| with its 95 % interval from drawing rows; None where no row changed, or hardly any were held out."""
    if (each[:, 1] > 0).sum() < 2:
        return None
    value = float(np.sqrt(each[:, 0].sum() / each[:, 1].sum()))
    sums = np.concatenate([s for (s,) in resampled([each], seed=seed, draws=1000)])
    some = sums[sums[:, 1] > 0]
    draws = np.sqrt(some[:, 0] / some[:, 1])
    made = summarise(value - 1, draws - 1, len(each))
    words = "better" if made.high < 0 else "worse" if made.low > 0 else "not distinguishable"
    return Estimate(value, made.low + 1, made.high + 1, len(each), "x doing nothing", words)
