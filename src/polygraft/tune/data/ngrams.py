"""Runs of n units (words, or characters where a script writes no spaces) of many texts at once, as 64-bit hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing


@dataclass(frozen=True)
class Grams:
    """n-grams of `rows` texts, as `hashes` uint64 [m] one text after another; `starts` int64 [rows + 1] says where each begins."""

    hashes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def owners(self) -> np.ndarray:
        """int64 [m]: the text that each n-gram stands in."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def grams(texts: Iterable[Sequence[str]], n: int, least: int = 1) -> Grams:
    """All n-grams of texts given as lists of units. A text of fewer than n units is one n-gram, of fewer than `least` none.

    An n-gram's hash is a polynomial of its units' BLAKE2b hashes modulo 2^64: equal n-grams have equal hashes, and m different ones
    collide with probability about m^2 / 2^65.
    """
    known: dict[str, int] = {}
    ids, sizes = [], []
    for units in texts:
        units = units if len(units) >= least else []
        sizes.append(len(units))
        for unit in units:
            ids.append(known.setdefault(unit, len(known)))
    values = np.array([_hash(unit) for unit in known] or [0], np.uint64)
    return _runs(values[np.array(ids, np.int64)], np.array(sizes, np.int64), n)


def _hash(unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _runs(values: np.ndarray, sizes: np.ndarray, n: int) -> Grams:
    """The n-grams of texts whose units' hashes stand one text after another in `values`."""
    begins = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.where(sizes == 0, 0, np.maximum(sizes - n + 1, 1))
    starts = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], counts) + np.repeat(begins[:-1], counts)  # of each n-gram's first unit
    lengths = np.repeat(np.minimum(sizes, n), counts)
    out = lengths.astype(np.uint64)
    for k in range(n):
        inside = lengths > k
        unit = values[np.where(inside, places + k, 0)] if len(values) else out
        out = np.where(inside, out * BASE + unit, out)
    return Grams(out, starts)


def distinct(found: Grams) -> Grams:
    """Each text's n-grams once, sorted by hash."""
    owners = found.owners
    order = np.lexsort((found.hashes, owners))
    hashes, owners = found.hashes[order], owners[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    counts = np.bincount(owners[first], minlength=len(found))
    return Grams(hashes[first], np.concatenate([[0], np.cumsum(counts)]))
