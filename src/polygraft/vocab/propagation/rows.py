"""The new rows of one table, from top to bottom: the donor's carried over, the instruct model's own kept, padding filled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from polygraft.errors import InputError
from polygraft.floats import to_f32
from polygraft.vocab.init.mixture import Mixture, rows
from polygraft.vocab.tables import Table
from polygraft.vocab.writing import encoded

FACTOR = 3.0  # a norm so many times beyond what the instruct model has is told
QUANTILES = (0.001, 0.999)


@dataclass
class Carrying:
    """One table of the result, in the instruct model's numbers: `size` rows, with `change` W - 1 (None: W = 1) or `pieces` (delta:
    T over rows of base and instruct), `kept` int64 [n, 2] (new id, instruct id). `norms` float64 [size] is filled as it goes.
    """

    base: Table
    instruct: Table
    donor: Table
    size: int
    kept: np.ndarray
    change: np.ndarray | None = None
    pieces: Mixture | None = None
    norms: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def copies(self) -> bool:
        """Whether the donor's rows keep their bits."""
        return self.change is None and self.pieces is None and self.donor.dtype == self.instruct.dtype

    def blocks(self) -> Iterator[np.ndarray]:
        """Bytes of rows, uint8 [n, width * itemsize], from top to bottom."""
        self.norms, total = np.zeros(self.size), np.zeros(self.donor.shape[1])
        stop = min(self.donor.shape[0], self.size)
        for start, found in self.donor.blocks():
            values = self.carried(start, found[: stop - start].astype(np.float64))
            total += values.sum(0)
            yield self._written(start, values)
        if self.size > stop:  # rows that the donor has none for and no token kept: the mean of the others
            yield self._written(stop, np.tile(total / max(1, stop), (self.size - stop, 1)))

    def carried(self, start: int, values: np.ndarray) -> np.ndarray:
        """The donor's rows from `start` on, float64, as the instruct model should have them."""
        if self.change is not None:
            return values + values @ self.change
        if self.pieces is not None:
            some = self.pieces.take(np.arange(start, min(start + len(values), len(self.pieces))))
            values[: len(some)] += rows(some, self.instruct) - rows(some, self.base)
        return values

    def _written(self, start: int, values: np.ndarray) -> np.ndarray:
        stop = start + len(values)
        self.norms[start:stop] = np.linalg.norm(values, axis=1)
        check_finite(self.norms[start:stop], start, f"donor {self.donor.key}")
        if self.copies and stop <= self.donor.shape[0]:
            made = self.donor.raw_block(start, stop).copy()
        else:
            with np.errstate(over="ignore"):  # what is too large is refused by name
                raw = encoded(values.astype(np.float32), self.instruct.dtype, self.instruct.key)
            made = np.frombuffer(raw, np.uint8).reshape(len(values), -1).copy()
        here = self.kept[(self.kept[:, 0] >= start) & (self.kept[:, 0] < stop)]
        made[here[:, 0] - start] = self.instruct.raw(here[:, 1])
        return made


@dataclass(frozen=True)
class Norms:
    """Norms of the instruct model's rows: the range from `low` to `high` holds all but the outermost 0.2 % of its tokens."""

    low: float
    high: float
    median: float

    @classmethod
    def of(cls, table: Table, ids: np.ndarray) -> Norms:
        found = np.concatenate([np.linalg.norm(block.astype(np.float64), axis=1) for _, block in table.blocks()])
        check_finite(found, 0, f"instruct {table.key}")
        low, high = np.quantile(found[ids], QUANTILES)
        return cls(float(low), float(high), float(np.median(found[ids])))

    def odd(self, norms: np.ndarray) -> np.ndarray:
        """Places of norms that are FACTOR times beyond the range."""
        return np.flatnonzero((norms > FACTOR * self.high) | (norms < self.low / FACTOR))


def check_finite(norms: np.ndarray, start: int, where: str) -> None:
    """Raise InputError naming the first row, counted from `start`, whose numbers are not finite."""
    if len(bad := np.flatnonzero(~np.isfinite(norms))):
        raise InputError("a row that is not finite numbers", where=f"{where}, row {start + int(bad[0])}",
                         found=f"{len(bad)} such rows here", expected="finite numbers", fix="training may have diverged")


def odd_dimensions(change: np.ndarray | None) -> np.ndarray:
    """Rows of W whose norm is FACTOR times off their median: what they carry is blown up, or lost."""
    if change is None:
        return np.empty(0, np.int64)
    norms = np.linalg.norm(change + np.eye(len(change)), axis=1)
    middle = float(np.median(norms))
    return np.flatnonzero((norms > FACTOR * middle) | (norms < middle / FACTOR))


@dataclass(frozen=True)
class Bias:
    """The head's bias, one number a token: the donor's, with the change of its pieces from base to instruct (swap: without)."""

    base: np.ndarray
    instruct: np.ndarray
    donor: np.ndarray
    size: int
    kept: np.ndarray
    pieces: Mixture | None

    @cached_property
    def values(self) -> np.ndarray:
        """float32 [size]."""
        made = np.full(self.size, float(self.donor.mean()))
        stop = min(len(self.donor), self.size)
        made[:stop] = self.donor[:stop]
        if self.pieces is not None:
            made[: len(self.pieces)] += self.pieces.over(self.instruct) - self.pieces.over(self.base)
        made[self.kept[:, 0]] = self.instruct[self.kept[:, 1]]
        return made.astype(np.float32)


def numbers(raw: bytes, dtype: str) -> np.ndarray:
    """A whole small tensor as float64."""
    return to_f32(raw, dtype).astype(np.float64)
