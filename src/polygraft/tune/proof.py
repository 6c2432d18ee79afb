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
    still: int = 0  # selected elements of rows (or columns) that are, all of them, as they were

    @property
    def sentence(self) -> str:
        rest = self.total - self.selected
        others = f"and not one byte of the other {rest:,}" if rest else "and there are no others: everything was trained"
        return f"The written files show it: {self.changed:,} of these changed, {others}."

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why fewer numbers changed than were trained, if so."""
        return unchanged(self.selected, self.changed, self.still)

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


IDLE = "words that no example has, neurons that never fire"


def unchanged(selected: int, changed: int, still: int, idle: str = IDLE) -> tuple[str, ...]:
    """Why so many of the selected numbers, and no more, differ from the start's, in a sentence; () where all do."""
    single = selected - changed - still
    if not still + single:
        return ()
    why = []
    if still:
        why.append(f"{still:,} in whole rows or columns without a gradient ({idle})")
    if single:
        why.append(f"{single:,} single ones without one, or with steps too small for the file's type")
    share = (still + single) / selected
    return (f"{still + single:,} of the trained numbers ({share:.2%} of them) are as they were: {'; '.join(why)}",)


def prove(base: Checkpoint, out: Checkpoint, selection: Selection, memory: Callable[[str], bytes | bytearray]) -> Proof:
    """Compare the files of a trained model with its start and with what memory held, a piece of a tensor at a time.

    `memory(key)`: the bytes that tensor `key` should have. Raises StepFailed at the first byte outside the selection that differs,
    and at the first tensor that is not what memory held: both would be faults of this program, or of the disk.
    """
    changed = moved = still = 0
    for key in base.tensors:
        if key not in selection:
            _same(base, out, key)
            continue
        n, idle = _changed(base, out, selection, key, memory(key))
        changed, moved, still = changed + n, moved + bool(n), still + idle
    shapes = {key: t.shape for key, t in base.tensors.items()}
    total = sum(t.numel for t in base.tensors.values())
    return Proof(total, selection.count(shapes), changed, len(selection), moved, still)


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


def _changed(base: Checkpoint, out: Checkpoint, selection: Selection, key: str, memory: bytes | bytearray
             ) -> tuple[int, int]:  # fmt: skip
    """How many selected numbers of the tensor differ from the start's, and how many lie in rows where none does.

    Raises StepFailed as `prove` does.
    """
    info, rows, axis = base.tensors[key], selection.rows[key], selection.axis.get(key, 0)
    held, changed, shape = np.frombuffer(memory, np.uint8), 0, info.shape or (1,)
    idle = np.zeros(shape[axis], bool)  # the selected rows of which no number has changed yet
    idle[... if rows is None else rows] = True
    for start, before, now in _pieces(base, out, key):
        if not np.array_equal(now, held[start : start + len(now)]):
            raise StepFailed("a written tensor is not what memory held", where=key, fix="the disk may be failing: train again")
        differs = (before != now).reshape(-1, info.itemsize).any(1)
        at = _index(np.flatnonzero(differs) + start // info.itemsize, shape, axis)
        if rows is not None and not np.isin(at, rows).all():
            raise StepFailed("a row outside the selection changed", where=key)
        changed += int(differs.sum())
        idle[at] = False
    return changed, int(idle.sum()) * (prod(shape) // max(1, shape[axis]))


def _index(flat: np.ndarray, shape: Sequence[int], axis: int) -> np.ndarray:
    """The index along `axis` of the elements at these flat positions."""
    return flat // prod(shape[axis + 1 :]) % shape[axis]
