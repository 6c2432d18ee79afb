"""Pruning block by block: one layer's statistics on what the pruned layers below give, its matrices pruned, and on to the next.

A finished layer lies in a file of its own, so that a killed run goes on behind it: the layers that are done are read from there and
only sent through. Memory holds one layer, what lies outside the layers, and the statistics of one layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays
from polygraft.blocks import Blocks
from polygraft.checkpoint import Weights
from polygraft.errors import StepFailed
from polygraft.floats import from_f32, to_f32
from polygraft.model import view
from polygraft.prune.gather import Weighing, gather
from polygraft.prune.sites import oriented, sites
from polygraft.prune.statistics import Moments

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.sources import Source

MASK = "mask:"


def layer_file(layer: int) -> str:
    return f"layer.{layer}.safetensors"


@dataclass(frozen=True)
class Pruned:
    """What became of one matrix [out, in]: `keep` bool, True where a weight stays; `values` float32 if weights were changed, else
    None (kept weights stay byte for byte); `note` says what did not go as asked."""

    keep: torch.Tensor
    values: torch.Tensor | None = None
    note: str = ""


# (matrices of one site by key, float32 [out, in]; the moments of their input) -> what becomes of each. Together, since they share
# what is costly: one factorisation serves q, k and v.
Method = Callable[[Mapping[str, "torch.Tensor"], Moments], Mapping[str, Pruned]]


@dataclass(frozen=True)
class Module:
    """One pruned matrix: its zeros, its weights, and its relative output error on the calibration text (None: not known)."""

    key: str
    zeros: int
    size: int
    error: float | None
    note: str = ""

    @property
    def sparsity(self) -> float:
        return self.zeros / self.size


@dataclass
class Work:
    """A pruning: the model, what it reads (batches, and of every token its weight), the method, and whether it needs products."""

    source: Source
    batches: Sequence[Mapping[str, Any]]
    weighing: Weighing
    method: Method
    gram: bool
    dtype: str = "auto"
    device: str = "cpu"


def prune(work: Work, folder: Path, progress: Callable[..., None] = lambda *_: None) -> dict[str, Module]:
    """Prune every layer; each leaves `layer.N.safetensors` in `folder` (tensors as raw bytes, and packed masks).

    Finished layers found there are kept: the same work must have made them (the caller's key says so). Raises StepFailed where
    statistics or results are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, Module] = {}
    with Blocks.open(work.source, dtype=work.dtype, device=work.device, spill=folder / "states") as blocks:
        blocks.feed([dict(b) for b in work.batches])
        layers = blocks.live.anatomy.layers
        for block in blocks:
            path = folder / layer_file(block.layer)
            if not path.exists():
                made = prune_layer(work, blocks, block)
                told = {m.key: json.dumps({k: v for k, v in asdict(m).items() if k != "key"}) for m, _ in made}
                arrays.write(path, contents(blocks.weights, blocks.live.anatomy, made), told)
            done |= put_back(blocks, path)
            block.run()
            progress(block.layer + 1, layers, f"layer {block.layer}")
    return done


def prune_layer(work: Work, blocks: Blocks, block: Any) -> list[tuple[Module, Pruned]]:
    """One layer in memory: its statistics, then every matrix. The live layer is left as it was."""
    import torch

    live, weights = blocks.live, blocks.weights
    shapes = {key: t.shape for key, t in weights.tensors.items()}
    found = sites(live.anatomy, shapes, block.layer)
    matrices = {site: {k: oriented(view(live.model, live.anatomy, k), live.anatomy).float() for k in keys}  # type: ignore[arg-type]
                for site, keys in found.items()}  # fmt: skip
    widths = {site: next(iter(ws.values())).shape[1] for site, ws in matrices.items()}
    moments = gather(block, live, found, widths, work.weighing, work.gram)
    result = []
    for site, ws in matrices.items():
        stats = moments[site]
        if not (np.isfinite(stats.squares).all() and (stats.gram is None or np.isfinite(stats.gram).all())):
            raise StepFailed("what a matrix reads is not finite", where=", ".join(ws), fix="compute in float32: --dtype float32")
        for key, pruned in work.method(ws, stats).items():
            new = ws[key] if pruned.values is None else pruned.values
            if not bool(torch.isfinite(new).all()):
                raise StepFailed("a pruned matrix is not finite", where=key, fix="a larger damping, or another method")
            result.append((Module(key, int((~pruned.keep).sum()), pruned.keep.numel(), error(ws[key], new * pruned.keep, stats),
                                  pruned.note), pruned))  # fmt: skip
    return result


def error(before: torch.Tensor, after: torch.Tensor, stats: Moments) -> float | None:
    """sum |(W - W') x|^2 / sum |W x|^2 over the calibration tokens: exact from the products, None without them."""
    import torch

    if stats.gram is None:
        return None
    gram = torch.from_numpy(stats.gram).to(before.device)
    lost = before - after
    whole = float(((before @ gram) * before).sum(dtype=torch.float64))
    return float(((lost @ gram) * lost).sum(dtype=torch.float64)) / whole if whole > 0 else 0.0


def contents(weights: Weights, anatomy: Anatomy, made: Sequence[tuple[Module, Pruned]]) -> dict[str, np.ndarray]:
    """Raw bytes (uint8) of every pruned tensor as the file stores it, and its packed keep-mask, in the file's orientation."""
    found: dict[str, np.ndarray] = {}
    for module, pruned in made:
        info, kind = weights.tensors[module.key], f"V{weights.tensors[module.key].itemsize}"
        keep = np.ascontiguousarray(oriented(pruned.keep, anatomy).cpu().numpy())
        if pruned.values is None:
            raw = np.frombuffer(weights.read(module.key), kind).reshape(info.shape).copy()
        else:
            values = np.ascontiguousarray(oriented(pruned.values, anatomy).cpu().numpy(), np.float32)
            raw = np.frombuffer(from_f32(values.reshape(-1), info.dtype), kind).reshape(info.shape).copy()
        raw[~keep] = np.zeros((), raw.dtype)
        found[module.key] = raw.reshape(-1).view(np.uint8)
        found[MASK + module.key] = np.packbits(keep.ravel(), bitorder="little")
    return found


def put_back(blocks: Blocks, path: Path) -> dict[str, Module]:
    """Fill the live layer with what its file holds, as a reader of the finished model will see it."""
    import torch

    kept = arrays.Arrays(path)
    for key in kept:
        if not key.startswith(MASK):
            target, info = view(blocks.live.model, blocks.live.anatomy, key), blocks.weights.tensors[key]
            assert target is not None
            target.copy_(torch.from_numpy(to_f32(kept[key].tobytes(), info.dtype)).reshape(info.shape))
    return {key: Module(key, **json.loads(told)) for key, told in kept.metadata.items()}


class Overlay(Weights):
    """A checkpoint with the pruned tensors of finished layers in the place of its own."""

    def __init__(self, under: Weights, folder: Path, layers: int):
        self.under, self.path, self.config, self.tensors = under, under.path, under.config, under.tensors
        self.extras, self.identity, self.warnings = under.extras, under.identity, under.warnings
        done = [arrays.Arrays(folder / layer_file(i)) for i in range(layers)]
        self.where = {key: a for a in done for key in a}

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        if key not in self.where:
            return self.under.read_range(key, start, stop)
        return self.where[key][key][start:stop].tobytes()

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Packed keep-masks by tensor: uint8, `packbits(mask.ravel(), bitorder="little")` in the file's orientation."""
        return {key.removeprefix(MASK): a[key] for key, a in self.where.items() if key.startswith(MASK)}
