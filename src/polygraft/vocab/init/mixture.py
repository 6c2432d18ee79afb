"""New rows as weighted sums of old ones: which old tokens a new one is made of, and with what weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from polygraft.vocab.tables import Table

ROOM = 64 << 20  # bytes of float32 rows that are in memory for one block of new tokens


@dataclass(frozen=True)
class Mixture:
    """New token i is sum_j weights[j] * old row ids[j] for j in offsets[i]..offsets[i + 1]; one without any has no row yet.

    `ids` int32 [n], `weights` float64 [n], `offsets` int64 [new + 1].
    """

    ids: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """Old rows of every new token, int64 [new]."""
        return np.diff(self.offsets)

    def of(self, token: int | np.integer[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Old ids and weights of one new token."""
        part = slice(self.offsets[token], self.offsets[token + 1])
        return self.ids[part], self.weights[part]

    def take(self, tokens: np.ndarray) -> Mixture:
        """Those of some new tokens, in this order."""
        counts = self.counts[tokens]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[tokens] - offsets[:-1], counts)
        return Mixture(self.ids[at], self.weights[at], offsets)

    def over(self, values: np.ndarray) -> np.ndarray:
        """The same sums of old numbers: values [old] or [old, width] -> float64 [new] or [new, width]."""
        from scipy.sparse import csr_matrix

        made = csr_matrix((self.weights, self.ids, self.offsets), shape=(len(self), len(values)))
        return np.asarray(made @ np.asarray(values, np.float64))


def joined(parts: Sequence[tuple[int, np.ndarray, np.ndarray]], tokens: int) -> Mixture:
    """A Mixture of `tokens` new tokens from (token, old ids, weights) of some of them, in any order."""
    counts = np.zeros(tokens, np.int64)
    for token, ids, _ in parts:
        counts[token] = len(ids)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    made, weights = np.empty(offsets[-1], np.int32), np.empty(offsets[-1])
    for token, ids, some in parts:
        made[offsets[token] : offsets[token + 1]] = ids
        weights[offsets[token] : offsets[token + 1]] = some
    return Mixture(made, weights, offsets)


def first_of(a: Mixture, b: Mixture) -> Mixture:
    """`a`, and `b` for tokens that `a` has nothing for."""
    own = np.flatnonzero(a.counts)
    other = np.flatnonzero((a.counts == 0) & (b.counts > 0))
    return joined([*((int(i), *a.of(i)) for i in own), *((int(i), *b.of(i)) for i in other)], len(a))


def rows(mixture: Mixture, table: Table) -> np.ndarray:
    """Every new token's sum of rows, float64 [len(mixture), width]; zero where there is none."""
    wanted, local = np.unique(mixture.ids, return_inverse=True)
    return Mixture(local.astype(np.int32), mixture.weights, mixture.offsets).over(table.gather(wanted))


def blocks(tokens: np.ndarray, counts: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """`tokens` in their order, in pieces whose sources' rows take about ROOM bytes."""
    room, start = max(1, ROOM // (4 * width)), 0
    ends = np.cumsum(np.maximum(1, counts[tokens]))
    while start < len(tokens):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + room, "right")))
        yield tokens[start:stop]
        start = stop


def described(mixture: Mixture, token: int, names: dict[int, str]) -> list[list[Any]]:
    """[[old token, weight], ...] of one new token, for the log."""
    ids, weights = mixture.of(token)
    return [[names.get(int(i), f"<id {int(i)}>"), round(float(w), 6)] for i, w in zip(ids, weights)]
