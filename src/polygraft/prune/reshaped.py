"""A checkpoint with fewer tensors: some left out, some under other names, of some only chosen rows; written, and proved to load."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError, StepFailed
from polygraft.header import TensorInfo
from polygraft.prune.writing import write_model

NUMBERED = re.compile(r"(?<=\b)(layers|h|blocks)\.(\d+)\.")


class Reshaped(Weights):
    """`under` as a smaller model: `names` maps each of its keys to the one it comes from, in the order of the file; of a key in
    `rows` only these rows (of its first axis) are there. All bytes are those of `under`."""

    def __init__(self, under: Weights, names: Mapping[str, str], config: Mapping[str, Any],
                 rows: Mapping[str, Sequence[int]] | None = None):  # fmt: skip
        self.under, self.names, self.rows = under, dict(names), {k: [*r] for k, r in (rows or {}).items()}
        self.path, self.extras, self.identity, self.warnings = under.path, under.extras, under.identity, under.warnings
        self.config = dict(config)
        self.tensors = {new: self._info(new, under.info(old)) for new, old in self.names.items()}

    def _info(self, key: str, info: TensorInfo) -> TensorInfo:
        if key not in self.rows:
            return TensorInfo(key, info.dtype, info.shape, info.file, info.start, info.end)
        kept = len(self.rows[key])
        return TensorInfo(key, info.dtype, (kept, *info.shape[1:]), info.file, 0, info.nbytes // info.shape[0] * kept)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        old = self.names[key]
        if key not in self.rows:
            return self.under.read_range(old, start, stop)
        lines = np.frombuffer(self.under.read(old), np.uint8).reshape(self.under.info(old).shape[0], -1)
        return lines[self.rows[key]].tobytes()[start:stop]


def renumbered(key: str, layer: int, new: int) -> str:
    """The key of a tensor of `layer` in a model where that layer has the number `new`."""
    found = next((m for m in NUMBERED.finditer(key) if int(m[2]) == layer), None)
    if found is None:
        raise InputError("a tensor of a layer whose name does not hold the layer's number", found=key)
    return f"{key[: found.start(2)]}{new}{key[found.end(2) :]}"


def decoder(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(a copy of the whole config, the part of that copy that speaks of the decoder: its `text_config`, or itself)."""
    whole: dict[str, Any] = json.loads(json.dumps(config))
    inner = whole.get("text_config")
    return (whole, inner) if isinstance(inner, dict) else (whole, whole)


def write(smaller: Weights, out: Path, batch: Mapping[str, Any], told: Mapping[str, Any],
          progress: Callable[..., None] = lambda *_: None) -> None:  # fmt: skip
    """A complete model folder, its manifest with what is `told` of it, and the proof: transformers builds it from its config, every
    parameter of every layer is filled by a tensor of its shape, and reading `batch` gives finite numbers.

    Raises InputError or StepFailed.
    """
    written = write_model(smaller, out, progress, anew=True)
    proved(out, batch)
    files.seal(out, {"kind": "model", **written, **told})


def proved(folder: Path, batch: Mapping[str, Any]) -> None:
    """Run a model folder over one batch, a layer in memory at a time. Raises StepFailed for what is not finite."""
    from polygraft.blocks import Blocks

    with Blocks.open(folder) as blocks:
        blocks.feed([dict(batch)])
        for _ in blocks:
            pass
        if not bool(blocks.hidden(0).isfinite().all()):
            raise StepFailed("the smaller model does not compute finite numbers", where=folder)


def parameters(weights: Weights, anatomy: Anatomy) -> int:
    """Parameters of the language model: what lies outside of it (towers) is not counted."""
    return sum(t.numel for key, t in weights.tensors.items() if anatomy.parts[key].kind != "outside")
