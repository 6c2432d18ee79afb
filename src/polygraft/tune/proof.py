"""The proof after training, read from the written files: what was to stay is the base's to the byte, what was trained is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from polygraft.errors import StepFailed
from polygraft.result import Table

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.selection import Selection


PIECE = 1 << 24  # bytes read of each file at a time


@dataclass(frozen=True)
class Proof:
    """Elements of the files: all, selected, selected ones whose bytes changed; tensors with a selection, and those that changed."""

    total: int
    selected: int
    changed: int
    tensors: int
    moved: int

    @property
    def sentence(self) -> str:
        rest = self.total - self.selected
        return f"The written files show it: {self.changed:,} of these changed, and not one byte of the other {rest:,}."

    def table(self) -> Table:
        def share(n: int) -> str:
            return f"{n / self.total:.2%}"

        outside = self.total - self.selected
        rows = (("parameters selected", self.selected, share(self.selected)),
                ("of them changed", self.changed, share(self.changed)),
                ("parameters outside the selection", outside, share(outside)), ("of them changed", 0, share(0)),
                ("tensors with a selection", self.tensors, ""), ("of them changed", self.moved, ""))
        return Table("What the written files show", ("what", "count", "share of the model"), rows,
                     "every tensor was read again from the files and compared with the start's, byte by byte")


def prove(base: Checkpoint, out: Checkpoint, selection: Selection, memory: Callable[[str], bytes | bytearray]) -> Proof:
    """Compare the files of a trained model with its start and with what memory held, a piece of a tensor at a time.

    `memory(key)`: the bytes that tensor `key` should have. Raises StepFailed at the first byte outside the selection that differs,
    and at the first tensor that is not what memory held: both would be faults of this program, or of the disk.
    """
    changed = moved = 0
    for key in base.tensors:
        if key not in selection:
            _same(base, out, key)
            continue
        n = _changed(base, out, selection, key, memory(key))
        changed, moved = changed + n, moved + bool(n)
    shapes = {key: t.shape for key, t in base.tensors.items()}
    total = sum(t.numel for t in base.tensors.values())
    return Proof(total, selection.count(shapes), changed, len(selection), moved)


def _pieces(base: Checkpoint, out: Checkpoint, key: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first byte, bytes of the one, bytes of the other) in order, whole numbers at a time."""
    size = base.tensors[key].nbytes
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        before, now = (np.frombuffer(c.read_range(key, start, stop), np.uint8) for c in (base, out))
        yield start, before, now


def _same(base: Checkpoint, out: Checkpoint, key: str) -> None:
    if any(not np.array_equal(before, now) for _, before, now in _pieces(base, out, key)):
        raise StepFailed("a tensor outside the selection changed", where=key)


def _changed(base: Checkpoint, out: Checkpoint, selection: Selection, key: str, memory: bytes | bytearray) -> int:
    """How many selected numbers of the tensor differ from the start's. Raises StepFailed as `prove` does."""
    info, rows, axis = base.tensors[key], selection.rows[key], selection.axis.get(key, 0)
    held, changed = np.frombuffer(memory, np.uint8), 0
    for start, before, now in _pieces(base, out, key):
        if not np.array_equal(now, held[start : start + len(now)]):
            raise StepFailed("a written tensor is not what memory held", where=key, fix="the disk may be failing: train again")
        differs = (before != now).reshape(-1, info.itemsize).any(1)
        if rows is not None and not np.isin(_index(np.flatnonzero(differs) + start // info.itemsize, info.shape, axis), rows).all():
            raise StepFailed("a row outside the selection changed", where=key)
        changed += int(differs.sum())
    return changed


def _index(flat: np.ndarray, shape: Sequence[int], axis: int) -> np.ndarray:
    """The index along `axis` of the elements at these flat positions."""
    return flat // prod(shape[axis + 1 :]) % shape[axis]
