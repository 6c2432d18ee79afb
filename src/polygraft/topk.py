"""The k entries of largest magnitude of a tensor that is too large to sort: exact, streaming, in constant memory."""

from __future__ import annotations

import numpy as np


def magnitude_bits(delta: np.ndarray) -> np.ndarray:
    """|delta| as uint32: for finite float32 the bit patterns are ordered as the numbers are."""
    return np.abs(delta).view(np.uint32)


class TopK:
    """The exact k-th largest |delta| of a tensor seen in chunks, in two passes (radix select over 2 x 16 bits).

    Feed every chunk to `upper`, call `turn`, feed every chunk again to `lower`, call `finish`; then `keep` masks chunks in order.
    Of entries equal to the threshold, those of lowest index are kept.
    """

    def __init__(self, k: int):
        self.k, self.counts = k, np.zeros(1 << 16, np.int64)
        self.high = self.threshold = 0
        self.equal_left = 0

    def upper(self, bits: np.ndarray) -> None:
        self.counts += np.bincount(bits >> 16, minlength=1 << 16)

    def turn(self) -> None:
        self.high, self.equal_left = _bin_of_kth(self.counts, self.k)
        self.counts = np.zeros(1 << 16, np.int64)

    def lower(self, bits: np.ndarray) -> None:
        self.counts += np.bincount(bits[bits >> 16 == self.high] & 0xFFFF, minlength=1 << 16)

    def finish(self) -> None:
        low, self.equal_left = _bin_of_kth(self.counts, self.equal_left)
        self.threshold = self.high << 16 | low

    def keep(self, bits: np.ndarray) -> np.ndarray:
        """Boolean mask of the entries kept in this chunk; chunks must come in order."""
        if self.k <= 0:
            return np.zeros(bits.shape, bool)
        mask = bits > self.threshold
        equal = np.flatnonzero(bits == self.threshold)[: self.equal_left]
        mask[equal] = True
        self.equal_left -= equal.size
        return mask


def _bin_of_kth(counts: np.ndarray, k: int) -> tuple[int, int]:
    """The bin that holds the k-th largest entry, and how many of that bin's entries are among the k largest."""
    from_top = np.cumsum(counts[::-1])
    i = int(np.searchsorted(from_top, k))
    above = int(from_top[i - 1]) if i else 0
    return len(counts) - 1 - i, k - above
