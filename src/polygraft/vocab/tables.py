"""The tables of a model that have one row a token: the embedding, and the head where it is a tensor of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary

Side = Literal["in", "out"]
SIDES: dict[Side, str] = {"in": "embedding", "out": "head"}
BLOCK = 8 << 20  # bytes of float32 that are in memory of one table at a time
GAP = 16 << 10  # bytes between two wanted rows that are cheaper to read than to skip


@dataclass(frozen=True)
class Table:
    """One tensor [rows, width] of a file. Rows come as float32."""

    weights: Weights
    key: str

    @property
    def shape(self) -> tuple[int, int]:
        rows, width = self.weights.tensors[self.key].shape
        return rows, width

    @property
    def dtype(self) -> str:
        return self.weights.tensors[self.key].dtype

    def block(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop, float32 [stop - start, width]."""
        width = self.shape[1]
        return self.weights.f32(self.key, start * width, stop * width).reshape(-1, width)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows float32 [n, width]) from top to bottom, about BLOCK bytes at a time."""
        rows, width = self.shape
        step = max(1, BLOCK // (4 * width))
        for start in range(0, rows, step):
            yield start, self.block(start, min(rows, start + step))

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """These rows in this order, repeated where an id is, float32 [len(ids), width]; each is read once."""
        return self._gathered(ids, self.block, np.empty((0, self.shape[1]), np.float32))

    def raw_block(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop as their bytes, uint8 [stop - start, width * itemsize]."""
        size = self.shape[1] * self.weights.tensors[self.key].itemsize
        return np.frombuffer(self.weights.read_range(self.key, start * size, stop * size), np.uint8).reshape(-1, size)

    def raw(self, ids: np.ndarray) -> np.ndarray:
        """`gather` of the bytes: what is copied keeps its bits, uint8 [len(ids), width * itemsize]."""
        size = self.shape[1] * self.weights.tensors[self.key].itemsize
        return self._gathered(ids, self.raw_block, np.empty((0, size), np.uint8))

    def _gathered(self, ids: np.ndarray, block: Callable[[int, int], np.ndarray], none: np.ndarray) -> np.ndarray:
        rows, width = self.shape
        if len(ids) == 0:
            return none
        wanted, back = np.unique(np.asarray(ids, np.int64), return_inverse=True)
        if wanted[0] < 0 or wanted[-1] >= rows:
            beyond = int(wanted[-1] if wanted[-1] >= rows else wanted[0])
            raise InputError("an id beyond the table", where=self.key, found=beyond, expected=f"0 to {rows - 1}")
        held = np.empty((len(wanted), none.shape[1]), none.dtype)
        room = max(1, GAP // (width * self.weights.tensors[self.key].itemsize))
        longest = max(1, BLOCK // (4 * width))
        start = 0
        while start < len(wanted):  # runs of rows that lie close together are read at once
            stop = start + 1
            while stop < len(wanted) and wanted[stop] - wanted[stop - 1] <= room and wanted[stop] - wanted[start] < longest:
                stop += 1
            first = int(wanted[start])
            found = block(first, int(wanted[stop - 1]) + 1)
            held[start:stop] = found if len(found) == stop - start else found[wanted[start:stop] - first]
            start = stop
        return held if np.array_equal(wanted, ids) else held[back]


def tables(weights: Weights, anatomy: Anatomy) -> dict[Side, Table]:
    """The embedding as `in`, and the head as `out` where it is untied."""
    two = {key: p.label for key, p in anatomy.parts.items()
           if p.label in ("embed", "head") and len(weights.tensors[key].shape) == 2}  # fmt: skip
    found: dict[Side, Table] = {}
    for side, label in (("in", "embed"), ("out", "head")):
        keys = [key for key, name in two.items() if name == label]
        if keys and not (side == "out" and anatomy.tied):
            found[side] = Table(weights, keys[0])  # type: ignore[index]
    return found


def stored(weights: Weights, anatomy: Anatomy) -> dict[str, tuple[Side, int]]:
    """Every tensor with a row a token: key -> (the side whose rows it holds, dimensions). A tied head that is stored all the same
    is its embedding again; a bias of the head has one dimension."""
    found: dict[str, tuple[Side, int]] = {}
    for key, part in anatomy.parts.items():
        if part.label in ("embed", "head"):
            side: Side = "in" if part.label == "embed" or (anatomy.tied and len(weights.tensors[key].shape) == 2) else "out"
            found[key] = (side, len(weights.tensors[key].shape))
    return found


def check_fits(vocabulary: Vocabulary, found: Mapping[Side, Table], where: object) -> None:
    """Raise InputError for a tokenizer whose ids exceed the embedding; fewer tokens than rows (padding) are usual."""
    for side, table in found.items():
        if vocabulary.size > table.shape[0]:
            raise InputError(f"the tokenizer has ids beyond the {SIDES[side]}", where=where,
                             found=f"id {vocabulary.size - 1} ({vocabulary.names[vocabulary.size - 1]!r})",
                             expected=f"below {table.shape[0]:,}, the rows of {table.key}",
                             fix="the tokenizer belongs to another model, or the model was not resized for it")
