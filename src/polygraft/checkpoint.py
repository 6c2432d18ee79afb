"""A model folder, read only: headers and config at once, tensors by positioned reads in chunks; never code, never pickle."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from polygraft import files, floats
from polygraft.errors import InputError
from polygraft.floats import from_f32, to_f32
from polygraft.folder import (
    EMBEDDINGS,
    EXTRAS,
    check_config,
    check_index,
    check_one_owner,
    checked_folder,
    config_value,
    find_shards,
    read_config,
    refuse_stray_link,
)
from polygraft.header import Header, TensorInfo, open_plain, read_header

__all__ = ["CHUNK", "Checkpoint", "TensorInfo", "Weights", "config_value", "from_f32", "tied_conflict", "to_f32"]

CHUNK = 4 << 20
MAX_OPEN = 16
ReadHeaders = Callable[[list[str]], dict[str, Header]]


class Weights:
    """Tensors by name. Subclasses give `path config tensors extras identity warnings` and `read_range`."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    extras: dict[str, Path]
    identity: str
    warnings: tuple[str, ...] = ()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of one tensor, counted from its first byte."""
        raise InputError("these weights cannot be read", where=key)

    def info(self, key: str) -> TensorInfo:
        """Where the tensor lies. Raises InputError for a name that is not there."""
        try:
            return self.tensors[key]
        except KeyError:
            raise InputError(
                "no tensor of this name", where=self.path, found=key, expected=f"one of {len(self.tensors):,} tensors"
            ) from None

    def read(self, key: str) -> bytes:
        """All bytes of one tensor."""
        return self.read_range(key, 0, self.info(key).nbytes)

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[bytes | memoryview]:
        """The tensor's bytes in order, at most `size` at a time. A chunk may be a view, valid until the next is asked for."""
        for start in range(0, n := self.info(key).nbytes, size):
            yield self.read_range(key, start, min(start + size, n))

    def f32(self, key: str, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Elements start..stop, flat, as float32 (into `out` if given). Raises InputError unless F32, F16, BF16 or F64."""
        t = self.info(key)
        floats.refuse_not_float(t.dtype, f"{self.path}: {key}")
        stop = t.numel if stop is None else stop
        return to_f32(self.read_range(key, start * t.itemsize, stop * t.itemsize), t.dtype, out)

    def tensor_sha256(self, key: str) -> str:
        """SHA-256 (hex) of the tensor's bytes."""
        h = hashlib.sha256()
        for chunk in self.chunks(key):
            h.update(chunk)
        return h.hexdigest()

    def close(self) -> None:
        """Close what is open; reading opens it again."""


class _OpenFiles:
    """At most `MAX_OPEN` descriptors over any number of shards, shared by threads; refuses a file that changed since its header."""

    def __init__(self, folder: Path, headers: dict[str, Header]):
        self.folder, self.headers = folder, headers
        self.lock = threading.Lock()
        self.open: OrderedDict[str, list[int]] = OrderedDict()  # name -> [descriptor, readers]

    @contextmanager
    def use(self, name: str) -> Iterator[int]:
        with self.lock:
            entry = self.open.get(name) or self._open(name)
            self.open.move_to_end(name)
            entry[1] += 1
        try:
            yield entry[0]
        finally:
            with self.lock:
                entry[1] -= 1
                self._shrink(MAX_OPEN)

    def _open(self, name: str) -> list[int]:
        fd = open_plain(self.folder / name)
        now, then = os.fstat(fd), self.headers[name]
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (then.size, then.mtime_ns, then.inode):
            os.close(fd)
            raise InputError(
                "the file changed after its header was read", where=self.folder / name, fix="run again when nothing writes to it"
            )
        self.open[name] = [fd, 0]
        return self.open[name]

    def _shrink(self, limit: int) -> None:
        for name in [n for n, (_, readers) in self.open.items() if not readers][: max(0, len(self.open) - limit)]:
            os.close(self.open.pop(name)[0])

    def close(self) -> None:
        with self.lock:
            self._shrink(0)

    def __del__(self) -> None:
        self._shrink(0)


class FileWeights(Weights):
    """Tensors in safetensors files of one folder, read by position: neither memory maps nor whole tensors are needed."""

    def __init__(self, path: Path, headers: dict[str, Header]):
        self.path, self.headers = path, headers
        self.tensors = {t.key: t for h in headers.values() for t in h.tensors}
        self._files = _OpenFiles(path, headers)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of one tensor. Raises InputError when the range or the file does not reach so far."""
        t = self._range(key, start, stop)
        with self._files.use(t.file) as fd:
            data = os.pread(fd, stop - start, t.start + start)
            while len(data) < stop - start:
                more = os.pread(fd, stop - start - len(data), t.start + start + len(data))
                if not more:
                    raise InputError(
                        "the file was shortened while it was read",
                        where=self.path / t.file,
                        fix="run again when nothing writes to it",
                    )
                data += more
        return data

    def readinto(self, key: str, start: int, buffer: bytearray | memoryview | np.ndarray) -> None:
        """Fill the whole buffer with the tensor's bytes from `start` on: no allocation, for loops that count."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        t = self._range(key, start, start + len(view))
        done = 0
        with self._files.use(t.file) as fd:
            while done < len(view):
                got = os.preadv(fd, [view[done:]], t.start + start + done)
                if not got:
                    raise InputError(
                        "the file was shortened while it was read",
                        where=self.path / t.file,
                        fix="run again when nothing writes to it",
                    )
                done += got

    def _range(self, key: str, start: int, stop: int) -> TensorInfo:
        t = self.info(key)
        if not 0 <= start <= stop <= t.nbytes:
            raise InputError(
                "outside the tensor", where=f"{self.path}: {key}", found=f"bytes {start:,}..{stop:,}", expected=f"0..{t.nbytes:,}"
            )
        return t

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[memoryview]:
        """The tensor's bytes in order; each chunk is a view into one reused buffer, valid until the next is asked for."""
        n = self.info(key).nbytes
        buffer = memoryview(bytearray(min(size, n)))
        for start in range(0, n, size):
            view = buffer[: min(size, n - start)]
            self.readinto(key, start, view)
            yield view

    def close(self) -> None:
        """Close the open files; reading opens them again."""
        self._files.close()


class Checkpoint(FileWeights):
    """A folder of safetensors with config.json. Only headers and small JSON files are read when it is opened."""

    def __init__(
        self,
        headers: dict[str, Header],
        path: Path,
        config: dict[str, Any],
        extras: dict[str, Path],
        identity: str,
        warnings: tuple[str, ...],
    ):
        super().__init__(path, headers)
        self.config, self.extras, self.identity, self.warnings = config, extras, identity, warnings

    @classmethod
    def open(cls, path: str | Path, *, identity: str | None = None) -> Checkpoint:
        """Headers, index and config of a folder, checked against one another. `identity` (hub revision) replaces the computed one.

        Raises InputError naming file and reason for anything that is missing, damaged, ambiguous, hostile or pickle.
        """
        path = checked_folder(path)
        return cls._open(path, (), lambda names: {n: read_header(path / n) for n in names}, identity)

    @classmethod
    def _open(cls, path: Path, elsewhere: Iterable[str], read: ReadHeaders, identity: str | None) -> Self:
        config = read_config(path)
        shards, warnings = find_shards(path, elsewhere)
        headers = read(shards)
        check_one_owner(path, headers)
        if shards.table is not None:
            warnings += check_index(path, shards.table, headers)
        extras = {n: path / n for n in EXTRAS if (path / n).is_file()}
        for extra in extras.values():
            refuse_stray_link(extra)
        warnings += check_config(path, config, headers)
        return cls(headers, path, config, extras, identity or _identity(path, headers, extras), tuple(warnings))


class RemoteCheckpoint(Checkpoint):
    """A checkpoint of which only headers and small files are here: all is known of its tensors but their values."""

    missing_bytes = 0  # what has to be fetched before a tensor can be read

    @classmethod
    def of(cls, path: Path, sizes: dict[str, int], read: ReadHeaders, identity: str) -> Self:
        """Judged like a local folder. `path` holds the small files; `sizes` are the files elsewhere, whose headers `read` gives."""
        self = cls._open(checked_folder(path), sizes, read, identity)
        self.missing_bytes = sum(sizes.get(name, 0) for name in self.headers if not (path / name).exists())
        return self

    def _range(self, key: str, start: int, stop: int) -> TensorInfo:
        raise InputError("only the headers of this model are here", where=f"{self.identity}: {key}", fix="download the model first")


def _identity(path: Path, headers: dict[str, Header], extras: dict[str, Path]) -> str:
    """Changes with any header byte, config byte, file size or modification time; never reads a tensor."""
    parts: list[Any] = [[n, h.size, h.mtime_ns, hashlib.sha256(h.raw).hexdigest()] for n, h in sorted(headers.items())]
    parts.append(files.sha256_file(path / "config.json"))
    parts += [[n, (s := p.stat()).st_size, s.st_mtime_ns] for n, p in sorted(extras.items())]
    return "headers:" + files.digest(parts)


def tied_conflict(weights: Weights) -> str | None:
    """The head's name when config ties it to the embedding but both are stored with different bytes; reads both."""
    if config_value(weights.config, "tie_word_embeddings") is not True or "lm_head.weight" not in weights.tensors:
        return None
    embedding = next((k for k in weights.tensors if EMBEDDINGS.search(k)), None)
    if embedding is None or weights.tensor_sha256(embedding) == weights.tensor_sha256("lm_head.weight"):
        return None
    return "lm_head.weight"
