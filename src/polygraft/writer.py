"""Stream tensors into safetensors files: headers first, every tensor at its offset, then fsync, re-read and compare.

Memory stays at a few chunks whatever the model's size. Bytes depend on the tensors alone: not on threads, order of writing or
hash seeds. With one shard the file equals what the reference implementation writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError, ResourceError
from polygraft.files import resource_errors
from polygraft.header import TensorInfo, build, spec_bytes

READ = 4 << 20
BEHIND = 8  # shards that may wait to be checked
Chunk = bytes | bytearray | memoryview
Specs = Mapping[str, tuple[str, tuple[int, ...]]]


def natural(key: str) -> tuple[Any, ...]:
    """Sort key under which layer 2 comes before layer 10."""
    return tuple((0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in re.split(r"([0-9]+)", key) if p)


def split(specs: Specs, shard_bytes: float) -> list[list[str]]:
    """Keys per shard: greedy in natural key order, a shard closed before it would grow past `shard_bytes`."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for key in sorted(specs, key=natural):
        size = spec_bytes(*specs[key])
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(key)
        room -= size
    return shards


class _Shard:
    def __init__(self, path: Path, head: bytes, tensors: list[TensorInfo]):
        self.path, self.head, self.tensors = path, head, tensors
        self.size = tensors[-1].end if tensors else len(head)
        self.left = {t.key for t in tensors}
        self.fd = -1


class CheckpointWriter:
    """Write each tensor once, in any order and from several threads, then `close()`.

    `folder` must exist (normally a `.partial` of `files.commit`). `specs` maps each key to (dtype, shape). Raises ResourceError
    before the first byte when the disk has too little room, InputError when the bytes given do not fill a tensor exactly.
    As a context manager it closes files on an error; only `close()` finishes. An index is written for several shards, or when
    asked for.
    """

    def __init__(self, folder: Path, specs: Specs, shard_bytes: float = 5e9, metadata: dict[str, str] | None = None,
                 index: bool = False):  # fmt: skip
        self.folder, self.index = Path(folder), index
        parts = split(specs, shard_bytes)
        names = (
            ["model.safetensors"]
            if len(parts) == 1
            else [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
        )
        self.shards = []
        for name, keys in zip(names, parts, strict=True):
            head, tensors = build({k: specs[k] for k in keys}, metadata or {"format": "pt"}, name)
            self.shards.append(_Shard(self.folder / name, head, tensors))
        self.total = sum(s.size for s in self.shards)
        self.digests: dict[str, str] = {}
        self._crcs: dict[str, int] = {}
        self._where = {t.key: (s, t) for s in self.shards for t in s.tensors}
        self._files: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._hashers = ThreadPoolExecutor(2, "hash")  # SHA-256 releases the interpreter's lock
        self._checkers = ThreadPoolExecutor(1, "check")
        self._checks: list[Future[None]] = []
        self._need_room()

    def _need_room(self) -> None:
        free = files.free_space(self.folder)
        if free < self.total:
            raise ResourceError(
                "not enough room on the disk",
                where=self.folder,
                found=f"{free:,} bytes free",
                expected=f"{self.total:,} bytes",
                fix="free some room, or write to another disk",
            )

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._checkers, self._hashers):
            pool.shutdown(wait=True, cancel_futures=True)
        for shard in self.shards:
            if shard.fd >= 0:
                files.OPS.close(shard.fd)
                shard.fd = -1

    def _open(self, shard: _Shard) -> int:
        with self._lock, resource_errors(shard.path, self.total):
            if shard.fd < 0:
                shard.fd = files.OPS.open(str(shard.path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                files.OPS.ftruncate(shard.fd, shard.size)
                _pwrite_all(shard.fd, shard.head, 0)
            return shard.fd

    def write(self, key: str, chunks: Iterable[Chunk] | Chunk) -> str:
        """Put one tensor's bytes, given whole or in pieces, at its place; returns their SHA-256 (hex)."""
        shard, t = self._take(key)
        fd, position, digest, crc = self._open(shard), t.start, hashlib.sha256(), 0
        for chunk in [chunks] if isinstance(chunks, bytes | bytearray | memoryview) else chunks:
            view = memoryview(chunk).cast("B")
            if position + len(view) > t.end:
                raise InputError("more bytes than the tensor holds", where=key, expected=f"{t.nbytes:,}")
            hashing = self._hashers.submit(digest.update, view)
            with resource_errors(shard.path, t.end - position):
                _pwrite_all(fd, view, position)
            crc = zlib.crc32(view, crc)
            hashing.result()
            position += len(view)
        if position != t.end:
            raise InputError(
                "fewer bytes than the tensor holds", where=key, found=f"{position - t.start:,}", expected=f"{t.nbytes:,}"
            )
        self._crcs[key] = crc
        self._wrote(shard, key, digest.hexdigest())
        return self.digests[key]

    def _take(self, key: str) -> tuple[_Shard, TensorInfo]:
        with self._lock:
            shard, t = self._where.pop(key, (None, None))
        if shard is None or t is None:
            raise InputError("this tensor was not announced, or is written twice", where=key)
        return shard, t

    def _wrote(self, shard: _Shard, key: str, digest: str) -> None:
        with self._lock:
            self.digests[key] = digest
            shard.left.discard(key)
            if not shard.left:
                self._checks.append(self._checkers.submit(self._finish, shard))
            late = self._checks[-BEHIND] if len(self._checks) >= BEHIND else None
        if late is not None:
            late.result()  # writing waits for checking, so that few files are open at once, whatever their number

    def _finish(self, shard: _Shard) -> None:
        """fsync a complete shard, read it back and compare every tensor with what was meant to be written.

        The comparison is by CRC-32, which no accident of a disk slips past, so that the second SHA-256 pass is the file's own.
        """
        with resource_errors(shard.path):
            files.OPS.fsync(shard.fd)
        whole = hashlib.sha256()
        head = os.pread(shard.fd, len(shard.head), 0)
        whole.update(head)
        bad = None if head == shard.head else "its header"
        hashing: Future[None] | None = None
        for t in shard.tensors:
            crc = 0
            for start in range(t.start, t.end, READ):
                block = os.pread(shard.fd, min(READ, t.end - start), start)
                crc = zlib.crc32(block, crc)
                if hashing is not None:
                    hashing.result()
                hashing = self._hashers.submit(whole.update, block)
            if crc != self._crcs[t.key]:
                bad = bad or t.key
        if hashing is not None:
            hashing.result()
        if bad or os.fstat(shard.fd).st_size != shard.size:
            raise ResourceError(
                "the disk gave back other bytes than were written",
                where=shard.path,
                found=f"a difference in {bad or 'its size'}",
                fix="check the disk; nothing was put in the output's place",
            )
        self._files[shard.path.name] = {"sha256": whole.hexdigest(), "size": shard.size}
        fd, shard.fd = shard.fd, -1
        with resource_errors(shard.path):
            files.OPS.close(fd)

    def close(self) -> dict[str, Any]:
        """Wait until every shard is on the disk and verified; write the index. Raises InputError when a tensor was never written.

        Returns {"files": {name: {"sha256", "size"}}, "tensors": {key: sha256}}.
        """
        try:
            if left := [k for s in self.shards for k in sorted(s.left)]:
                raise InputError("tensors were never written", where=self.folder, found=f"{len(left):,}, first {left[0]}")
            for shard in self.shards:
                if not shard.tensors:
                    self._open(shard)
                    self._finish(shard)
            for check in self._checks:
                check.result()
        finally:
            self.__exit__()
        if len(self.shards) > 1 or self.index:
            self._write_index()
        return {"files": dict(sorted(self._files.items())), "tensors": dict(sorted(self.digests.items()))}

    def _write_index(self) -> None:
        weights = {t.key: s.path.name for s in self.shards for t in s.tensors}
        size = sum(t.nbytes for s in self.shards for t in s.tensors)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weights.items()))}
        data = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
        files.write_atomic(self.folder / "model.safetensors.index.json", data)
        self._files["model.safetensors.index.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _pwrite_all(fd: int, data: Chunk, position: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        done = files.OPS.pwrite(fd, view, position)
        view, position = view[done:], position + done
