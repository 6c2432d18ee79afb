"""Sample logs: what an evaluation has already measured survives a cut at any byte."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError
from polygraft.files import resource_errors, write_all
from polygraft.redact import redact


class SampleLog:
    """An append-only log of JSON rows, one a line, each with its own checksum: `{"crc":"1a2b3c4d","row":{...}}`.

    Opening it drops a last line that an interruption tore; damage anywhere else is refused. `append` returns when the rows are on
    the disk, so that an interruption costs the rows of the batch under way and no more.
    """

    def __init__(self, path: Path):
        """Read `path` if it exists. Raises InputError naming the line that is damaged."""
        self.path = Path(path)
        data = self.path.read_bytes() if self.path.exists() else b""
        self.rows, good = _read_rows(data, self.path)
        with resource_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = files.OPS.open(str(self.path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if good < len(data):
                files.OPS.ftruncate(self._fd, good)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows and wait until they are on the disk. Raises ResourceError when there is no room; earlier rows stay."""
        rows = list(rows)
        with resource_errors(self.path):
            write_all(self._fd, b"".join(line(row) for row in redact(rows)))
            files.OPS.fsync(self._fd)
        self.rows += rows

    def close(self) -> None:
        if self._fd >= 0:
            files.OPS.close(self._fd)
            self._fd = -1

    def __enter__(self) -> SampleLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_HEAD, _MIDDLE, _TAIL = b'{"crc":"', b'","row":', b"}\n"


def line(row: dict[str, Any]) -> bytes:
    """A row as it stands in a log, with its checksum and its newline."""
    body = files.canonical(row)
    return _HEAD + b"%08x" % zlib.crc32(body) + _MIDDLE + body + _TAIL


def _read_rows(data: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log and how many bytes of it they take. Only an unfinished last line may be dropped."""
    rows: list[dict[str, Any]] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        row = read_line(data[good : end + 1])
        if row is None:
            raise InputError("a line does not match its checksum", where=f"{path}:{len(rows) + 1}",
                             fix="the file was altered or the disk is failing: delete this file, and its rows are made again")
        rows.append(row)
        good = end + 1
    return rows, good


def read_line(line: bytes) -> dict[str, Any] | None:
    """The row of a whole line, newline included; None when it does not match its checksum."""
    head, middle = len(_HEAD), len(_HEAD) + 8
    body = line[middle + len(_MIDDLE) : -len(_TAIL)]
    if line[:head] != _HEAD or line[middle : middle + len(_MIDDLE)] != _MIDDLE or line[-len(_TAIL) :] != _TAIL:
        return None
    return json.loads(body) if line[head:middle] == b"%08x" % zlib.crc32(body) else None
