"""What training changed in one tensor, streamed: sums that add up over tensors, and means per row and column.

Delta = W_e - W_0 in float32, every sum in float64 (arXiv 2410.01335 looks at such changes; the kit of figures is ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.topk import TopK, magnitude_bits

CHUNK = 1 << 18  # elements of a tensor in hand at once


@dataclass
class Change:
    """Sums over the entries of one tensor, or of several added up.

    `means[a][j]` is mean |Delta| of the j-th slice along axis a of a matrix; `rows` are those of its
    output rows, joined when summed.
    """

    n: int = 0
    zeros: int = 0
    abs_delta: float = 0.0
    abs_base: float = 0.0
    square_delta: float = 0.0
    square_base: float = 0.0
    largest: float = 0.0
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0))
    means: tuple[np.ndarray, ...] = ()

    def __add__(self, other: Change) -> Change:
        return Change(
            self.n + other.n,
            self.zeros + other.zeros,
            self.abs_delta + other.abs_delta,
            self.abs_base + other.abs_base,
            self.square_delta + other.square_delta,
            self.square_base + other.square_base,
            max(self.largest, other.largest),
            np.concatenate([self.rows, other.rows]),
        )

    @property
    def mav(self) -> float | None:
        """mean |Delta|."""
        return self.abs_delta / self.n if self.n else None

    @property
    def relative_mav(self) -> float | None:
        """mean |Delta| / mean |W_0|; None where W_0 is all zero."""
        return self.abs_delta / self.abs_base if self.abs_base else None

    @property
    def relative_frobenius(self) -> float | None:
        """Frobenius norm of Delta over that of W_0; None where W_0 is all zero."""
        return float(np.sqrt(self.square_delta / self.square_base)) if self.square_base else None

    @property
    def zero_share(self) -> float | None:
        """Share of entries that did not change at all."""
        return self.zeros / self.n if self.n else None

    def row_share(self, threshold: float) -> float | None:
        """Share of rows whose mean |Delta| exceeds the threshold; None for vectors."""
        return float((self.rows > threshold).mean()) if self.rows.size else None


@dataclass
class Pair:
    """Sums over the entries of two experts' changes in the same tensor."""

    dot: float = 0.0
    square_a: float = 0.0
    square_b: float = 0.0
    both: int = 0
    opposed: int = 0
    top_both: int = 0
    top_either: int = 0

    def __add__(self, other: Pair) -> Pair:
        return Pair(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    @property
    def cosine(self) -> float | None:
        """Of the two changes; None where one of them is zero."""
        if not self.square_a or not self.square_b:
            return None
        return max(-1.0, min(1.0, self.dot / float(np.sqrt(self.square_a)) / float(np.sqrt(self.square_b))))

    @property
    def conflict(self) -> float | None:
        """Share of opposite signs among the entries that both changed by more than epsilon."""
        return self.opposed / self.both if self.both else None

    @property
    def overlap(self) -> float | None:
        """Jaccard index of the entries that each changed most; None where neither changed any."""
        return self.top_both / self.top_either if self.top_either else None


def measure(
    key: str, base: Weights, experts: Sequence[Weights], *, rows: int = 0, top: float = 0.1, epsilon: float = 0.0
) -> tuple[list[Change], Pair | None]:
    """Changes of one tensor in each expert, and how the first two relate. `rows` is the axis of a matrix's output rows.

    Raises InputError naming a tensor with a number that is not finite.
    """
    shape = base.info(key).shape
    found = [Change(means=tuple(np.zeros(n) for n in shape) if len(shape) == 2 else ()) for _ in experts]
    pair = Pair() if len(experts) > 1 else None
    tops = [_largest(key, base, e, top) for e in experts[:2]] if pair is not None and top > 0 else []
    for start, w, deltas in _chunks(key, base, experts):
        for change, delta in zip(found, deltas):
            _add(change, w, delta, start, shape)
        if pair is not None:
            _relate(pair, deltas[0], deltas[1], epsilon)
        if pair is not None and tops:
            kept = [t.keep(magnitude_bits(d)) & (d != 0) for t, d in zip(tops, deltas)]
            pair.top_both += int((kept[0] & kept[1]).sum())
            pair.top_either += int((kept[0] | kept[1]).sum())
    for change, expert in zip(found, experts):
        _finish(change, shape, rows, f"{expert.path}: {key}")
    return found, pair


def _chunks(key: str, base: Weights, experts: Sequence[Weights]) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """(first element, base, deltas) of whole rows, as float32."""
    t = base.info(key)
    width = t.shape[-1] if len(t.shape) == 2 else 1
    size = max(1, CHUNK // max(1, width)) * width
    for start in range(0, t.numel, size):
        stop = min(start + size, t.numel)
        w = base.f32(key, start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            yield start, w, [e.f32(key, start, stop) - w for e in experts]


def _add(change: Change, w: np.ndarray, delta: np.ndarray, start: int, shape: tuple[int, ...]) -> None:
    size = np.abs(delta)
    change.n += delta.size
    change.zeros += int(delta.size - np.count_nonzero(delta))
    change.abs_delta += float(size.sum(dtype=np.float64))
    change.abs_base += float(np.abs(w).sum(dtype=np.float64))
    change.square_delta += _square(delta)
    change.square_base += _square(w)
    change.largest = max(change.largest, float(size.max(initial=0.0)))
    if change.means:
        grid, row = size.reshape(-1, shape[1]), start // shape[1]
        change.means[0][row : row + grid.shape[0]] = grid.sum(axis=1, dtype=np.float64)
        change.means[1][:] += grid.sum(axis=0, dtype=np.float64)


def _square(x: np.ndarray) -> float:
    wide = x.astype(np.float64)
    wide *= wide
    return float(wide.sum())


def _relate(pair: Pair, a: np.ndarray, b: np.ndarray, epsilon: float) -> None:
    product = a.astype(np.float64) * b
    pair.dot += float(product.sum())
    pair.square_a += _square(a)
    pair.square_b += _square(b)
    both = (np.abs(a) > epsilon) & (np.abs(b) > epsilon)
    pair.both += int(both.sum())
    pair.opposed += int((both & (np.signbit(a) != np.signbit(b))).sum())


def _largest(key: str, base: Weights, expert: Weights, share: float) -> TopK:
    """The round(share n) most changed entries (at least one): two more passes over the tensor."""
    top = TopK(max(1, round(share * base.info(key).numel)))
    for feed, then in ((top.upper, top.turn), (top.lower, top.finish)):
        for _, _, (delta,) in _chunks(key, base, [expert]):
            feed(magnitude_bits(delta))
        then()
    return top


def _finish(change: Change, shape: tuple[int, ...], rows: int, where: str) -> None:
    if not np.isfinite([change.abs_delta, change.abs_base]).all():
        raise InputError("a number that is not finite, here or in the base", where=where, fix="use another checkpoint of the model")
    for axis, sums in enumerate(change.means):
        sums /= max(1, shape[1 - axis])
    if change.means:
        change.rows = change.means[rows]
