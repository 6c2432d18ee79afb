"""Pruning block by block: one layer's statistics on what the pruned layers below give, its matrices pruned, and on to the next.

A finished layer lies in a file of its own, so that a killed run goes on behind it: the layers that are done are read from there and
only sent through. Memory holds one layer, what lies outside the layers, and the statistics of one layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays, files
from polygraft.allocator import return_freed
from polygraft.blocks import Blocks
from polygraft.checkpoint import Weights
from polygraft.errors import InputError, StepFailed
from polygraft.floats import from_f32, to_f32
from polygraft.model import Live, view
from polygraft.prune.gather import Samples, Weighing, gather
from polygraft.prune.sites import oriented, sites
from polygraft.prune.statistics import Moments
from polygraft.standins import PIECE

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.sources import Source

MASK = "mask:"
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def layer_file(layer: int) -> str:
    return f"layer.{layer}.safetensors"


def told_file(layer: int) -> str:
    return f"layer.{layer}.json"


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
    """One pruned matrix: its zeros, weights, and relative output error on the calibration text: of all tokens where products
    are kept, else of some hundred of them (`gather.SAMPLED`); None where no token came. `errors`: in every language, where
    each has products of its own."""

    key: str
    zeros: int
    size: int
    error: float | None
    note: str = ""
    errors: Mapping[str, float | None] = field(default_factory=dict)

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
    of: Sequence[str] | None = None  # the language of each batch, where the method asks for each by itself
    judged: bool = True  # whether each matrix' error is measured


def prune(work: Work, folder: Path, progress: Callable[..., None] = lambda *_: None) -> dict[str, Module]:
    """Prune every layer; each leaves `layer.N.safetensors` in `folder` (tensors as raw bytes, and packed masks), and behind it
    `layer.N.json` (what became of them).

    Finished layers found there are kept: the same work must have made them (the caller's key says so). Raises StepFailed where
    statistics or results are not finite.
    """
    return_freed()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
        left.unlink()
    done: dict[str, Module] = {}
    with Blocks.open(work.source, dtype=work.dtype, device=work.device, spill=folder / "states") as blocks:
        blocks.feed([dict(b) for b in work.batches])
        layers = blocks.live.anatomy.layers
        for block in blocks:
            if not (finished(folder / layer_file(block.layer)) and finished(folder / told_file(block.layer))):
                prune_layer(work, blocks, block, folder)
            done |= put_back(blocks, folder, block.layer)
            progress(block.layer + 1, layers, f"layer {block.layer}")
            if block.layer + 1 == layers:  # nobody reads what it gives
                break
            block.run()
    return done


def finished(path: Path) -> bool:
    """Whether a layer's file is there and whole; one that a disk has lost part of is made again."""
    try:
        return path.exists() and bool(files.read_json(path) if path.suffix == ".json" else arrays.Arrays(path))
    except InputError:
        return False


def prune_layer(work: Work, blocks: Blocks, block: Any, folder: Path) -> None:
    """One layer in memory: its statistics, then every matrix, written when it is done. The live layer stays as it was."""
    live, weights = blocks.live, blocks.weights
    found = sites(live.anatomy, {key: t.shape for key, t in weights.tensors.items()}, block.layer)
    check_weights(live, block.layer)
    samples = Samples(work.weighing) if work.judged and not work.gram else None
    widths = {site: matrix(live, keys[0]).shape[1] for site, keys in found.items()}
    moments = gather(block, live, found, widths, work.weighing, work.gram, samples, work.of)
    modules: list[Module] = []

    def made() -> Iterator[bytes]:
        for site, keys in found.items():
            stats = moments.pop(site)  # its products are as large as a matrix
            check_finite(stats, keys)
            ws = {key: matrix(live, key).float() for key in keys}
            pruned = dict(work.method(ws, stats))
            seen = stats if work.judged else replace(stats, gram=None, each=None)
            for key in keys:
                modules.append(judged(key, ws[key], pruned[key], seen, samples.of(site) if samples else None))
                yield from contents(weights, live.anatomy, key, pruned.pop(key))

    sizes = {name: n for keys in found.values() for key in keys for name, n in lengths(weights, key).items()}
    arrays.write_bytes(folder / layer_file(block.layer), sizes, made())
    files.write_json(folder / told_file(block.layer), {m.key: {k: v for k, v in asdict(m).items() if k != "key"} for m in modules})


def matrix(live: Live, key: str) -> torch.Tensor:
    """A matrix in memory as [out, in], a view."""
    found = view(live.model, live.anatomy, key)
    assert found is not None
    return oriented(found, live.anatomy)


def check_weights(live: Live, layer: int) -> None:
    """Raise InputError for a weight of the layer, norms and biases too, that is no finite number."""
    for key in live.anatomy.keys(layer=layer):
        found = view(live.model, live.anatomy, key)
        if found is not None and not finite(found):
            raise InputError("a weight that is not finite", where=key, fix="the model is damaged: use another checkpoint of it")


def finite(values: torch.Tensor) -> bool:
    """Whether all are finite numbers. A finite sum tells so at a thirtieth of the time; where it ran over they are looked at in
    pieces, since what tells takes several times the memory of what is looked at."""
    return bool(values.sum().isfinite()) or all(bool(piece.isfinite().all()) for piece in values.reshape(-1).split(PIECE))


def check_finite(stats: Moments, keys: Sequence[str]) -> None:
    """Raise StepFailed where sums over the text ran over."""
    if not (np.isfinite(stats.squares).all() and (stats.gram is None or np.isfinite(stats.gram).all())):
        raise StepFailed("what a matrix reads is not finite", where=", ".join(keys),
                         fix="compute in float32 (--dtype float32); if it is, the model is damaged")


def judged(key: str, before: torch.Tensor, pruned: Pruned, stats: Moments, samples: torch.Tensor | None) -> Module:
    """What became of a matrix, in numbers. Raises StepFailed for values that are not finite."""
    if pruned.values is not None and not finite(pruned.values):
        raise StepFailed("a pruned matrix is not finite", where=key, fix="a larger damping, or another method")
    lost = error(before, pruned, stats) if samples is None else sampled_error(before, pruned, samples)
    each = {g: error(before, pruned, own) for g, own in (stats.each or {}).items()}
    stay = int(pruned.keep.count_nonzero())  # torch adds up booleans by way of a copy in int64: as much memory as two matrices
    return Module(key, pruned.keep.numel() - stay, pruned.keep.numel(), lost, pruned.note, each)


def losses(before: torch.Tensor, pruned: Pruned) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some rows of a matrix at a time: as they were, and what they lost; float32 [rows, in]."""
    rows = max(1, PIECE // before.shape[1])
    for a in range(0, len(before), rows):
        old = before[a : a + rows]
        new = old if pruned.values is None else pruned.values[a : a + rows]
        yield old, old - new * pruned.keep[a : a + rows]


def error(before: torch.Tensor, pruned: Pruned, stats: Moments) -> float | None:
    """sum |(W - W') x|^2 / sum |W x|^2 over the calibration tokens: exact from the products, None without them."""
    import torch

    if stats.gram is None or not stats.tokens > 0:
        return None
    gram, whole, gone = torch.from_numpy(stats.gram).to(before.device), 0.0, 0.0
    for old, lost in losses(before, pruned):
        whole += float(((old @ gram) * old).sum(dtype=torch.float64))
        gone += float(((lost @ gram) * lost).sum(dtype=torch.float64))
    return share(gone, whole)


def sampled_error(before: torch.Tensor, pruned: Pruned, x: torch.Tensor) -> float | None:
    """The same over some of the tokens, x [tokens, in]."""
    import torch

    whole, gone = 0.0, 0.0
    for old, lost in losses(before, pruned):
        whole += float((old @ x.T).square().sum(dtype=torch.float64))
        gone += float((lost @ x.T).square().sum(dtype=torch.float64))
    return share(gone, whole)


def share(lost: float, whole: float) -> float | None:
    """lost / whole; 0 of nothing, and None where float32 ran over on the way."""
    if not (math.isfinite(lost) and math.isfinite(whole)):
        return None
    return max(lost, 0.0) / whole if whole > 0 else 0.0


def lengths(weights: Weights, key: str) -> dict[str, int]:
    """Bytes of what a layer's file holds of a matrix."""
    info = weights.tensors[key]
    return {key: info.nbytes, MASK + key: -(-info.numel // 8)}


def contents(weights: Weights, anatomy: Anatomy, key: str, pruned: Pruned) -> Iterator[bytes]:
    """Raw bytes of a pruned tensor as the file stores it, in pieces, and its packed keep-mask, in the file's orientation."""
    info = weights.tensors[key]
    keep = np.ascontiguousarray(oriented(pruned.keep, anatomy).cpu().numpy()).reshape(-1)
    values = None
    if pruned.values is not None:
        values = np.ascontiguousarray(oriented(pruned.values, anatomy).cpu().numpy(), np.float32).reshape(-1)
    for a in range(0, info.numel, PIECE):
        b = min(a + PIECE, info.numel)
        stored = (weights.read_range(key, a * info.itemsize, b * info.itemsize) if values is None
                  else rounded(values[a:b], info.dtype, key))  # fmt: skip
        yield (np.frombuffer(stored, WORDS[info.itemsize]) * keep[a:b]).tobytes()  # the bits as whole numbers: kept ones stay
    yield np.packbits(keep, bitorder="little").tobytes()


def rounded(values: np.ndarray, dtype: str, key: str) -> bytes:
    """Changed weights as the file stores them. Raises StepFailed for one that is too large for that."""
    stored = from_f32(values, dtype)
    if not np.isfinite(to_f32(stored, dtype)).all():
        raise StepFailed("a changed weight does not fit into the file's numbers", where=key, found=dtype,
                         fix="another method, or the model in bfloat16")  # fmt: skip
    return stored


def put_back(blocks: Blocks, folder: Path, layer: int) -> dict[str, Module]:
    """Fill the live layer with what its file holds, as a reader of the finished model will see it."""
    import torch

    kept, told = arrays.Arrays(folder / layer_file(layer)), files.read_json(folder / told_file(layer))
    for key in told:
        target, info = view(blocks.live.model, blocks.live.anatomy, key), blocks.weights.tensors[key]
        assert target is not None
        flat = target.view(-1)
        for a in range(0, info.numel, PIECE):
            b = min(a + PIECE, info.numel)
            raw = kept.raw(key, a * info.itemsize, b * info.itemsize)
            flat[a:b].copy_(torch.from_numpy(to_f32(raw, info.dtype)))
    return {key: Module(key, **said) for key, said in told.items()}


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
        return self.where[key].raw(key, start, stop)

    @property
    def masks(self) -> Mapping[str, np.ndarray]:
        """Packed keep-masks by tensor: uint8, `packbits(mask.ravel(), bitorder="little")` in the file's orientation."""
        return Packed({key.removeprefix(MASK): a for key, a in self.where.items() if key.startswith(MASK)})


class Packed(Mapping[str, np.ndarray]):
    """Masks in the files of layers, each read when it is asked for."""

    def __init__(self, where: Mapping[str, arrays.Arrays]):
        self.where = where

    def __getitem__(self, key: str) -> np.ndarray:
        return self.where[key][MASK + key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)
