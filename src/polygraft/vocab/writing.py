"""A model folder with new tables: their rows as given, every other tensor byte for byte, config and tokenizer as given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polygraft.checkpoint import Weights
from polygraft.errors import StepFailed
from polygraft.files import write_atomic, write_json
from polygraft.floats import from_f32
from polygraft.writer import CheckpointWriter

Rows = Callable[[], Iterable[np.ndarray]]  # makes blocks float32 [n, width] (a bias: [n]) from top to bottom
SHARD_BYTES = 5e9
LARGEST = {"F16": 65504.0, "BF16": 3.3895e38, "F32": 3.4028e38, "F64": 3.4028e38}  # what is computed is float32


def write_model(body: Weights, out: Path, rows: int, tables: Mapping[str, Rows], config: Mapping[str, Any],
                extras: Mapping[str, bytes | Path], shard_bytes: float = SHARD_BYTES) -> dict[str, str]:  # fmt: skip
    """Write `out` (must not hold a model): tensors of `tables` with `rows` rows, all others as `body` has them.

    A block that is already bytes (uint8 [n]) is written as it is: what is copied keeps its bits. Returns SHA-256 by key. Raises
    StepFailed for a value that is not finite in the file's numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    specs = {k: (t.dtype, (rows, *t.shape[1:]) if k in tables else tuple(t.shape)) for k, t in body.tensors.items()}
    with CheckpointWriter(out, specs, shard_bytes) as writer:
        for key, (dtype, _) in specs.items():
            made = tables.get(key)
            writer.write(key, (encoded(block, dtype, key) for block in made()) if made else body.chunks(key))
        digests = dict(writer.digests)
        writer.close()
    write_json(out / "config.json", dict(config))
    for name, content in extras.items():
        write_atomic(out / name, content if isinstance(content, bytes) else content.read_bytes())
    return digests


def encoded(block: np.ndarray, dtype: str, key: str) -> bytes:
    """A block as the file's bytes, rounded once; one of bytes as it is. Raises StepFailed for what is not finite there."""
    if block.dtype == np.uint8:
        return block.tobytes()
    most = float(np.abs(block).max(initial=0.0))
    if not most <= LARGEST[dtype]:  # NaN is not
        raise StepFailed("a new row does not fit into the file's numbers", where=key, found=most,
                         expected=f"at most {LARGEST[dtype]:g}")
    return from_f32(np.ascontiguousarray(block, np.float32).reshape(-1), dtype)
