"""The proof after training, read from the written files: what was to stay is the base's to the byte, what was trained is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polygraft.errors import StepFailed
from polygraft.result import Table

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.selection import Selection


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


def prove(base: Checkpoint, out: Checkpoint, selection: Selection, memory: Callable[[str], bytes]) -> Proof:
    """Compare the files of a trained model with its start and with what memory held.

    `memory(key)`: the bytes that tensor `key` should have. Raises StepFailed at the first byte outside the selection that differs,
    and at the first tensor that is not what memory held: both would be faults of this program.
    """
    total = selected = changed = moved = 0
    for key, info in base.tensors.items():
        total += info.numel
        before, now = base.read(key), out.read(key)
        if key not in selection:
            _same(before, now, key)
            continue
        if now != memory(key):
            raise StepFailed("a written tensor is not what memory held", where=key, fix="the disk may be failing: train again")
        differs = (np.frombuffer(before, np.uint8) != np.frombuffer(now, np.uint8)).reshape(-1, info.itemsize).any(1)
        rows = selection.rows[key]
        if rows is not None:
            differs = differs.reshape(info.shape)
            axis = selection.axis.get(key, 0)
            chosen = differs.take(rows, axis)
            if differs.sum() != chosen.sum():
                raise StepFailed("a row outside the selection changed", where=key)
            differs = chosen
        selected, changed, moved = selected + differs.size, changed + int(differs.sum()), moved + bool(differs.any())
    return Proof(total, selected, changed, len(selection), moved)


def _same(before: bytes, now: bytes, key: str) -> None:
    if before != now:
        raise StepFailed("a tensor outside the selection changed", where=key)
