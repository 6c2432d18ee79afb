"""One safetensors file's header: parsed strictly from positioned reads, and written so that files equal the reference's bytes.

The reader accepts what the reference implementation (safetensors 0.8) accepts, minus the rules in `STRICTER`.
Layout: 8 bytes little-endian header length n, n bytes of JSON, then the tensors with neither holes nor overlaps.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from polygraft.errors import InputError

# In the order of the reference's enumeration, which is also the order of tensors in a file it writes (widest alignment last there).
BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
RANK = {name: i for i, name in enumerate(BITS)}
MAX_HEADER = 16 << 20  # real headers of 405B models stay under 1 MB; a header costs about eleven times its size in memory
MAX_TENSORS = 1_000_000
STRICTER = {
    "header over 16 MB": "the reference allows 100 MB, which costs over a gigabyte to parse",
    "first byte is not {": "the format demands it; the reference skips spaces",
    "a key given twice": "the format forbids it; the reference keeps the last",
    "a field that the format does not know": "the reference ignores it",
    "a tensor entry or the header written as an array": "the reference's parser takes fields by position",
    "__metadata__ is null": "the reference takes it for absent",
    "over a million tensors": "no model has them; memory",
    "a tensor name with control characters or over 1,000 bytes": "it would be shown to people and written into other files",
}
REDOWNLOAD = "get the file again from its source; a download may have stopped short"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: `start` and `end` are byte positions in `file` (a plain name in the checkpoint's folder)."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per element; formats below one byte an element have none and raise InputError."""
        if BITS[self.dtype] % 8:
            raise InputError("elements smaller than a byte cannot be addressed one by one", where=self.key, found=self.dtype)
        return BITS[self.dtype] // 8


@dataclass(frozen=True)
class Header:
    """A parsed file: tensors in file order, metadata, the raw header bytes (for identity), file size and modification time."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    raw: bytes
    size: int
    mtime_ns: int
    inode: int


def open_plain(path: Path) -> int:
    """A descriptor of a regular file, never waiting (a FIFO would block). Raises InputError for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        missing = "the file is missing" if e.errno == errno.ENOENT else "the file cannot be read"
        raise InputError(missing, where=path, found=e.strerror, fix="check the path and its permissions") from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError("not a plain file", where=path, expected="a file with bytes of its own, no folder, pipe or device",
                             fix="name a file, or a folder that holds real files")
    return fd


def read_header(path: Path) -> Header:
    """Parse the header of one file; reads nothing but the header. Raises InputError naming the file and what is wrong."""
    fd = open_plain(path)
    try:
        info = os.fstat(fd)
        raw = header_bytes(partial(os.pread, fd), info.st_size, path)
    except OSError as e:
        raise InputError("the file cannot be read", where=path, found=e.strerror, fix="check the disk") from e
    finally:
        os.close(fd)
    tensors, metadata = parse(raw, info.st_size, path)
    return Header(tensors, metadata, raw, info.st_size, info.st_mtime_ns, info.st_ino)


def header_bytes(read: Callable[[int, int], bytes], size: int, path: Path) -> bytes:
    """The JSON of the header of a file of `size` bytes; `read(count, position)` gives its bytes. Raises InputError."""
    head = read(512, 0)
    if size < 8 or (other := _other_format(head)):
        what = "the file is empty" if size == 0 else "the file is too short to hold anything" if size < 8 else other
        raise InputError(
            f"not a safetensors file: {what}", where=path, found=f"{size:,} bytes", expected="a safetensors file", fix=REDOWNLOAD
        )
    (n,) = struct.unpack("<Q", head[:8])
    if n > MAX_HEADER:
        raise InputError(
            "the header is larger than any real one",
            where=path,
            found=f"{n:,} bytes",
            expected=f"at most {MAX_HEADER:,}",
            fix=REDOWNLOAD,
        )
    if n + 8 > size:
        raise InputError(
            "the header runs past the end of the file",
            where=path,
            found=f"{size:,} bytes",
            expected=f"at least {n + 8:,}",
            fix=REDOWNLOAD,
        )
    raw = read(n, 8)
    if len(raw) != n:
        raise InputError("the file is being shortened while it is read", where=path, fix="wait until it is complete")
    return raw


def _other_format(head: bytes) -> str | None:
    """What a file that only bears the name really is, judged by its first bytes."""
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; the real file was not downloaded (run `git lfs pull`)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably an error message saved under this name"
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed"
    if head.startswith(b"PK\x03\x04"):
        return "it is a zip archive (PyTorch's pickle format looks like this); pickle is never read"
    if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[2:8] != b"\0" * 6:
        return "it is a pickle; pickle is never read"
    return "it is GGUF; name it with the ending .gguf" if head.startswith(b"GGUF") else None


def _strict_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        raise ValueError("the key " + repr(next(k for k, _ in pairs if k in seen or seen.add(k))) + " is given twice")  # type: ignore[func-returns-value]
    return out


def _whole(digits: str) -> int | float:
    """A JSON number without a fraction. `-0` is none of the whole numbers that sizes are, as the reference reads it."""
    return -0.0 if digits == "-0" else int(digits)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def parse(raw: bytes, file_size: int, path: Path) -> tuple[tuple[TensorInfo, ...], dict[str, str]]:
    """Tensors in file order and metadata from header bytes; pure. Raises InputError."""

    def refuse(what: str, found: object = None, expected: object = None) -> InputError:
        return InputError(what, where=path, found=None if found is None else str(found)[:200], expected=expected, fix=REDOWNLOAD)

    if raw[:1] != b"{":
        raise refuse("the header does not begin with {", raw[:16])
    if raw.count(b'"dtype"') > MAX_TENSORS:
        raise refuse("more tensors than any model has", expected=f"at most {MAX_TENSORS:,}")
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_strict_pairs, parse_int=_whole,
                           parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise refuse("the header is not valid JSON", str(e) or type(e).__name__) from e
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise refuse("__metadata__ must map text to text", metadata)
    if not all(map(_plain_text, (*metadata, *metadata.values()))):
        raise refuse("__metadata__ holds text that is not valid Unicode")
    base = 8 + len(raw)
    try:
        tensors = sorted((_entry(k, v, path.name, base) for k, v in table.items()), key=lambda t: (t.start, t.end))
    except ValueError as e:
        raise refuse(str(e)) from e
    _check_layout(tensors, base, file_size, refuse)
    return tuple(tensors), metadata


def _plain_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 64 for v in values)


def _entry(key: str, v: Any, file: str, base: int) -> TensorInfo:
    shown = repr(key[:120])
    if not _plain_text(key) or len(key.encode()) > 1000 or any(ord(c) < 32 or ord(c) == 127 for c in key):
        raise ValueError(f"tensor {shown}: the name holds control characters, broken Unicode or is over 1,000 bytes")
    if not isinstance(v, dict) or set(v) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown}: an entry must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = v["dtype"], v["shape"], v["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {shown}: unknown dtype {str(dtype)[:40]!r}")
    if not _counts(shape) or len(shape) > 64:
        raise ValueError(f"tensor {shown}: the shape must be a short list of whole numbers from 0 on")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shown}: data_offsets must be two whole numbers, the first not larger")
    if _overflows(shape, BITS[dtype]) or prod(shape) * BITS[dtype] != 8 * (offsets[1] - offsets[0]):
        raise ValueError(f"tensor {shown}: shape {shape} of {dtype} does not fill its {offsets[1] - offsets[0]:,} bytes exactly")
    return TensorInfo(key, dtype, tuple(shape), file, base + offsets[0], base + offsets[1])


def _overflows(shape: list[int], bits: int) -> bool:
    """Whether the size leaves 64 bits on the way, even if a later zero would bring it back."""
    size = 1
    for n in (*shape, bits):
        size *= n
        if size >= 1 << 64:
            return True
    return False


def _check_layout(tensors: list[TensorInfo], base: int, file_size: int, refuse: Any) -> None:
    position = base
    for t in tensors:
        if t.start != position:
            what = "a hole before" if t.start > position else "an overlap at"
            raise refuse(f"{what} tensor {t.key[:120]!r}", f"begins at byte {t.start:,}", f"byte {position:,}")
        position = t.end
    if position != file_size:
        what = "the file is cut short" if position > file_size else "bytes follow the last tensor"
        raise refuse(what, f"{file_size:,} bytes", f"{position:,}")


# --------------------------------------------------------------------------------------------------------------- writing


def spec_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes that a tensor of this dtype and shape takes in a file."""
    bits = BITS[dtype] * prod(shape)
    if bits % 8:
        raise InputError("the tensor does not end on a whole byte", found=f"{dtype} {list(shape)}")
    return bits // 8


def build(
    specs: Mapping[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str] | None, file: str, order: Iterable[str] | None = None
) -> tuple[bytes, list[TensorInfo]]:
    """Header bytes (with the length) and the place of every tensor, in file order: dtype first, then name, like the reference.

    At most one metadata key keeps the bytes equal to the reference's, whose order of several is not defined. `order`: another
    order of all names, for tensors of one dtype.
    """
    table: dict[str, Any] = {} if not metadata else {"__metadata__": dict(sorted(metadata.items()))}
    order = list(order or sorted(specs, key=lambda k: (-RANK[specs[k][0]], k.encode())))
    ends, position = {}, 0
    for key in order:
        dtype, shape = specs[key]
        ends[key] = position + spec_bytes(dtype, shape)
        table[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, ends[key]]}
        position = ends[key]
    blob = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    blob += b" " * (-len(blob) % 8)
    base = 8 + len(blob)
    infos = [
        TensorInfo(k, specs[k][0], tuple(specs[k][1]), file, base + table[k]["data_offsets"][0], base + ends[k]) for k in order
    ]
    return struct.pack("<Q", len(blob)) + blob, infos
