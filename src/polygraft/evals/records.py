"""What an evaluation keeps: every response while it runs, so that a cut costs one batch; every item's record when it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraft.files import digest, write_atomic
from polygraft.samplelog import SampleLog


class ResponseFile:
    """A response log on disk. Its name is made from all that decides an answer, so that another model's are never read."""

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.file = SampleLog(Path(folder) / f"{digest(identity)[:24]}.jsonl")
        self.answers = {row["key"]: row["answer"] for row in self.file.rows}

    def get(self, key: str) -> Any | None:
        return self.answers.get(key)

    def put(self, items: Sequence[tuple[str, Any]]) -> None:
        self.file.append({"key": key, "answer": answer} for key, answer in items)
        self.answers.update(items)

    def __enter__(self) -> ResponseFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def prompt_hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_samples(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """`samples/<name>.jsonl`, one record a line, whole or absent."""
    path = Path(folder) / "samples" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in rows).encode("utf-8", "replace"))


def chosen(ids: Sequence[str], n: int, seed: int = 0) -> list[int]:
    """Places of n items picked by the hash of their id: nobody chose them, and everybody gets the same."""
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}/{ids[i]}".encode()).hexdigest())
    return sorted(order[:n])
