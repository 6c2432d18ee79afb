"""The response store: what a model once answered is not computed again, in this run or in a later one.

A response is named by (model digest, task@version, language, shots, prompt, seed, decoding) and by nothing else. One file holds one
model's answers to one task in one language, so a run reads only what it may need. Batches are appended; processes that evaluate the
same model at once append to the same files in turn. A line that was torn or damaged is asked again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from polygraft import files, samplelog
from polygraft.errors import InputError, ResourceError
from polygraft.files import resource_errors
from polygraft.gguf import cache_root
from polygraft.redact import redact

VARIABLE = "POLYGRAFT_RESPONSES"
NONE = "none"
SYNC_SECONDS = 1.0  # a power cut may cost as much; a killed process loses only the batch under way


class About(NamedTuple):
    """What is asked besides the prompt itself: `belebele@1`, its language, worked examples, and the seed of the evaluation."""

    task: str
    language: str = ""
    shots: int = 0
    seed: int = 0


@lru_cache(maxsize=256)
def _head(*parts: str) -> bytes:
    return json.dumps(parts).encode()


def response_key(model: str, about: About, prompt: Sequence[str], decoding: str) -> str:
    """The name of one response, 32 hex digits. `prompt` is all text that decides it; `decoding` how it is computed, as JSON."""
    found = hashlib.sha256(_head(model, about.task, about.language, str(about.shots), str(about.seed), decoding))
    for text in prompt:
        data = text.encode("utf-8", "surrogatepass")
        found.update(b"%d:" % len(data))
        found.update(data)
    return found.hexdigest()[:32]


def store_root(named: str | None = None) -> Path | None:
    """Where responses are kept: what is named, else $POLYGRAFT_RESPONSES, else `responses` in the cache. `none` is nowhere."""
    where = named or os.environ.get(VARIABLE) or cache_root() / "responses"
    return None if str(where) == NONE else Path(where).expanduser()


def check_root(root: Path | None) -> None:
    """Raises InputError or ResourceError, before anything is computed, where responses could not be kept."""
    if root is None:
        return
    there = next(p for p in (root, *root.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError("the response store is not a folder", where=there, expected="a folder", fix="name a folder, or `none`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ResourceError("the response store cannot be written", where=there, fix="name another folder with --store, or `none`")


class Store:
    """The responses of one model below `root` (None: in memory, for as long as this lives). `model` is its digest.

    `get` and `put` read and write rows (JSON objects) by key. What `put` has taken survives a kill of the process.
    """

    def __init__(self, root: Path | None, model: str):
        self.root, self.model = root, model
        self._parts: dict[tuple[str, str], _Part] = {}

    @cached_property
    def folder(self) -> Path | None:
        return None if self.root is None else self.root / hashlib.sha256(self.model.encode()).hexdigest()[:24]

    def get(self, about: About, key: str) -> dict[str, Any] | None:
        return self._part(about).rows.get(key)

    def put(self, about: About, rows: Mapping[str, dict[str, Any]]) -> None:
        """Add rows. Raises ResourceError when they cannot be written; earlier rows stay."""
        self._part(about).put(rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should be told: files in which lines were damaged."""
        bad = [(p.path, p.damaged) for p in self._parts.values() if p.damaged]
        return tuple(f"{path}: {n} damaged line{'s' * (n > 1)} passed over; what stood there was asked again." for path, n in bad)

    def _part(self, about: About) -> _Part:
        name = (about.task, about.language)
        if name not in self._parts:
            self._parts[name] = _Part(None if self.folder is None else self.folder / _file_name(*name))
        return self._parts[name]

    def close(self) -> None:
        for part in self._parts.values():
            part.close()
        self._parts.clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _file_name(task: str, language: str) -> str:
    """`mgsm@1.sw-1a2b3c4d.jsonl`: readable, plain, and different for different tasks whatever their names hold."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "@.-_") else "_" for c in f"{task}.{language}")
    return f"{plain[:100]}-{files.digest([task, language])[:8]}.jsonl"


class _Part:
    """One file of a store, read whole when it is first needed, then appended to."""

    def __init__(self, path: Path | None):
        self.path, self.damaged, self._fd, self._synced = path, 0, -1, 0.0
        self.rows: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            with resource_errors(path):
                data = path.read_bytes()
            for line in data.splitlines(keepends=True):
                row = samplelog.read_line(line)
                if row is not None and isinstance(row.get("key"), str):
                    self.rows[row.pop("key")] = row
                else:
                    self.damaged += line.endswith(b"\n")  # what has no end is being written, or was cut

    def put(self, rows: Mapping[str, dict[str, Any]]) -> None:
        if self.path is not None:
            data = b"".join(samplelog.line(row) for row in redact([{"key": k, **row} for k, row in rows.items()]))
            with resource_errors(self.path, len(data)):
                self._append(self.path, data)
        self.rows.update(rows)

    def _append(self, path: Path, data: bytes) -> None:
        if self._fd < 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = files.OPS.open(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        locked = _lock(self._fd, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"  # by a writer that was killed
            if torn and locked:
                files.OPS.ftruncate(self._fd, path.read_bytes().rfind(b"\n") + 1)
            files.write_all(self._fd, b"\n" * (torn and not locked) + data)
        finally:
            _lock(self._fd, fcntl.LOCK_UN)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            files.OPS.fsync(self._fd)
            self._synced = time.monotonic()

    def close(self) -> None:
        if self._fd >= 0 and self.path is not None:
            with resource_errors(self.path):
                files.OPS.fsync(self._fd)
                files.OPS.close(self._fd)
            self._fd = -1


def _lock(fd: int, how: int) -> bool:
    """Whether the kernel did it. Some file systems have no locks: appending whole lines is then all the care there is."""
    try:
        fcntl.flock(fd, how)
    except OSError:
        return False
    return True
