"""A pruned model on disk: a plain dense model folder, its keep-masks beside it, and the proof that both say the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import arrays, files
from polygraft.checkpoint import Checkpoint, Weights
from polygraft.errors import InputError, StepFailed
from polygraft.folder import MASKS
from polygraft.prune.engine import Module, Overlay
from polygraft.prune.masks.pattern import Pattern
from polygraft.writer import CheckpointWriter

SHARD_BYTES = 5e9
ORDER = "packbits(mask.ravel(), bitorder='little'), 1 where a weight stays, in the orientation of the stored tensor"


def write_model(overlay: Weights, out: Path, progress: Callable[..., None] = lambda *_: None, *,
                anew: bool = False) -> dict[str, Any]:  # fmt: skip
    """Tensors, config and tokenizer as they are in `overlay`, into a folder that may exist but holds no model.

    config.json is copied as it lies beside the model; `anew`: written from `overlay.config`, which says something else.
    Returns {"files", "tensors"} for a manifest. The index is written for one shard too: loaders that read every .safetensors
    of a folder without one would take the masks for weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    specs = {key: (t.dtype, tuple(t.shape)) for key, t in overlay.tensors.items()}
    total, done = sum(t.nbytes for t in overlay.tensors.values()), 0
    with CheckpointWriter(out, specs, SHARD_BYTES, index=True) as writer:
        for key in specs:
            writer.write(key, overlay.chunks(key))
            done += overlay.tensors[key].nbytes
            progress(done, total, "writing the model")
        written = writer.close()
    config = overlay.path / "config.json"
    told = config.read_bytes() if config.is_file() and not anew else (json.dumps(overlay.config, indent=2) + "\n").encode()
    files.write_atomic(out / "config.json", told)
    for name, path in sorted(overlay.extras.items()):
        files.write_atomic(out / name, path.read_bytes())
    return written


def write_masks(overlay: Overlay, out: Path) -> str:
    """`masks.safetensors`: uint8 [ceil(n / 8)] for every pruned tensor, by its key; shapes and digest in its metadata.

    Returns the digest: SHA-256 over the canonical JSON of {key: SHA-256 of the packed mask}.
    """
    masks = overlay.masks
    digest = files.digest({key: files.hashlib.sha256(masks[key].tobytes()).hexdigest() for key in masks})
    shapes = {key: list(overlay.tensors[key].shape) for key in masks}
    arrays.write(out / MASKS, masks, {"order": ORDER, "shapes": json.dumps(shapes), "sha256": digest})
    return digest


class Masks(Mapping[str, np.ndarray]):
    """Keep-masks of a pruned model folder: bool, as the tensors are stored. Raises InputError for a file that is none."""

    def __init__(self, folder: Path):
        self.path = folder / MASKS if folder.is_dir() else folder
        self.packed = arrays.Arrays(self.path)
        self.digest = self.packed.metadata.get("sha256", "")
        try:
            told = json.loads(self.packed.metadata["shapes"])
            self.shapes = {str(key): tuple(map(int, told[key])) for key in self.packed}
        except (KeyError, TypeError, ValueError) as e:
            raise InputError("not a file of masks", where=self.path, found=f"metadata without shapes ({e})"[:200],
                             expected=f"{MASKS} of a pruned model") from None

    def __getitem__(self, key: str) -> np.ndarray:
        packed, shape = self.packed[key], self.shapes[key]
        n = int(np.prod(shape, dtype=np.int64))
        if packed.dtype != np.uint8 or packed.size != -(-n // 8):
            raise InputError("a mask of another size than its tensor", where=f"{self.path}: {key}",
                             found=f"{packed.size:,} bytes", expected=f"{-(-n // 8):,}")
        return np.unpackbits(packed, count=n, bitorder="little").astype(bool).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def verified(out: Path, modules: Mapping[str, Module], pattern: Pattern, transposed: bool = False) -> dict[str, int]:
    """Read model and masks again: the zeros of every pruned tensor as it lies on the disk, those that it had before too.

    Raises StepFailed where a weight that was to go is there, another number of them went than was told, or more of a group of N:M
    than should; `transposed`: tensors are stored [in, out].
    """
    model, masks, zeros = Checkpoint.open(out), Masks(out), dict[str, int]()
    if masks.keys() != modules.keys():
        raise StepFailed("the file of masks does not name what was pruned", where=out / MASKS, found=f"{len(masks):,} tensors",
                         expected=f"{len(modules):,}")
    for key, module in modules.items():
        keep, there = masks[key].ravel(), model.f32(key) != 0
        gone = keep.size - int(np.count_nonzero(keep))
        if gone != module.zeros or (there & ~keep).any():
            left = int(np.count_nonzero(there & ~keep))
            raise StepFailed("a matrix on the disk is not as it was pruned", where=f"{out}: {key}",
                             found=f"{gone:,} masked weights, {left:,} of them not zero", expected=f"{module.zeros:,}, all zero",
                             fix="check the disk and run again")
        if pattern.m and (most := largest(masks[key].T if transposed else masks[key], pattern.m)) > pattern.m - pattern.n:
            raise StepFailed("a group of neighbours lost more than the pattern says", where=f"{out}: {key}", found=f"{most}",
                             expected=f"{pattern.m - pattern.n} of {pattern.m}", fix="check the disk and run again")
        zeros[key] = int(there.size - np.count_nonzero(there))
    return zeros


def largest(keep: np.ndarray, m: int) -> int:
    """The most weights that went from any group of `m` neighbouring inputs; keep bool [out, in]."""
    return int((~keep.reshape(-1, m)).sum(1).max())
