"""What an evaluation leaves: every item's record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygraft.files import write_atomic


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
