"""Named numpy arrays in one safetensors file, written atomically and read one at a time: statistics, masks, directions, edits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from polygraft import files
from polygraft.checkpoint import FileWeights
from polygraft.errors import InputError, StepFailed
from polygraft.header import build, read_header

KINDS = {"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
         "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}  # fmt: skip
NAMES = {np.dtype(kind): name for name, kind in KINDS.items()}


class Arrays(Mapping[str, np.ndarray]):
    """A file of arrays; `arrays[name]` reads that one. Raises InputError naming file and array where something is wrong."""

    def __init__(self, path: Path):
        header = read_header(path)
        self.path, self.metadata = path, header.metadata
        self._weights = FileWeights(path.parent, {path.name: header})

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._weights.tensors:
            raise KeyError(name)
        t = self._weights.tensors[name]
        if t.dtype not in KINDS:
            raise InputError("an array of a kind that is not read", where=f"{self.path}: {name}", found=t.dtype,
                             expected=", ".join(KINDS))
        out = np.empty(t.shape, KINDS[t.dtype])
        if out.nbytes:
            self._weights.readinto(name, 0, out.reshape(-1))
        return out

    def row(self, name: str, i: int) -> np.ndarray:
        """`arrays[name][i]`, reading that row alone. Raises KeyError and IndexError."""
        t = self._weights.tensors[name]
        if not 0 <= i < t.shape[0]:
            raise IndexError(f"row {i} of {name}, which has {t.shape[0]}")
        out = np.empty(t.shape[1:], KINDS[t.dtype])
        if out.nbytes:
            self._weights.readinto(name, i * out.nbytes, out.reshape(-1))
        return out

    def raw(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of one array, as the file stores it."""
        return self._weights.read_range(name, start, stop)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights.tensors)

    def __len__(self) -> int:
        return len(self._weights.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one array, from the header."""
        return self._weights.info(name).shape


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """All of the file or none of it; nothing is copied but an array that does not lie as the format has it, one at a time.

    Raises InputError for a kind of array that the format does not have.
    """
    specs = {}
    for name in arrays:
        a = np.asarray(arrays[name])
        kind = a.dtype.newbyteorder("<")
        if kind not in NAMES:
            raise InputError("an array of a kind that cannot be written", where=name, found=str(a.dtype), expected=", ".join(KINDS))
        specs[name] = (NAMES[kind], a.shape)
    head, order = build(specs, metadata, path.name)

    def chunks() -> Iterator[bytes | memoryview]:
        yield head
        for t in order:
            if t.nbytes:
                yield np.ascontiguousarray(arrays[t.key], KINDS[t.dtype]).reshape(-1).view(np.uint8).data

    files.write_atomic(path, chunks(), len(head) + sum(t.nbytes for t in order))


def write_bytes(path: Path, sizes: Mapping[str, int], made: Iterable[bytes | memoryview]) -> None:
    """Arrays of so many bytes each (uint8), one after another in pieces that are asked for when the one before is written.

    Raises StepFailed for other pieces than the sizes say.
    """
    head, order = build({name: ("U8", (size,)) for name, size in sizes.items()}, None, path.name, sizes)
    whole = sum(t.nbytes for t in order)

    def chunks() -> Iterator[bytes | memoryview]:
        yield head
        left = whole
        for piece in made:
            left -= len(piece)
            yield piece
        if left:
            raise StepFailed("other bytes than were announced", where=path, found=f"{whole - left:,}", expected=f"{whole:,}")

    files.write_atomic(path, chunks(), len(head) + whole)
