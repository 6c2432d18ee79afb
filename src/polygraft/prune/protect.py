"""Weights that stay, at the same sparsity in all: those of a selection, or those that some language needs most.

`auto` (ours) is a proposal for a protected set across languages. With X^g_j the root mean square of input j in language g's text, a
weight's share of what its row does in that language is I^g_ij = |W_ij| X^g_j / sqrt(sum_k (W_ik X^g_k)^2). Weights are ranked by
max_g I^g_ij within their row, and the first ones are protected: as many as make up half of what stays. The other half is left to
the method and its calibration text. So no language loses what it leans on most, also one that has no share in that text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError, RecipeError
from polygraft.prune.calibration import Calibration
from polygraft.prune.config import Masking
from polygraft.prune.costs import Extent
from polygraft.prune.languages import Every, Layer, Reading, read
from polygraft.prune.masks import Protected, nothing
from polygraft.prune.masks.allocation import spared
from polygraft.prune.masks.pattern import Pattern, chosen
from polygraft.prune.sites import oriented
from polygraft.selectionfile import Entry, on, pick
from polygraft.step import Context, SelectName

if TYPE_CHECKING:
    import torch

    from polygraft.sources import Source

HALF = 0.5  # of what stays: the part that `auto` protects
FILE = "norms.safetensors"


@dataclass(frozen=True)
class Protection:
    """`of(key)` -> bool [out, in] or None, True where a weight stays; `counts`: such weights by matrix; `words` for a report."""

    of: Protected = nothing
    counts: Mapping[str, int] = field(default_factory=dict)
    words: str = ""

    def on(self, device: str) -> Protection:
        """The same with masks on a device."""
        return replace(self, of=lambda key: None if (mask := self.of(key)) is None else mask.to(device))

    def sparsities(self, extent: Extent, pattern: Pattern) -> dict[str, float]:
        """The sparsity of every matrix at which all together have that of the pattern, free weights going at one rate.

        Nothing for N:M, which fixes that of every group. Raises RecipeError where too few weights are free.
        """
        return {} if pattern.m or not self.counts else spared(extent.sizes, self.counts, pattern.sparsity)


def protection(config: Masking, context: Context, source: Source, extent: Extent,
               text: Callable[[Masking], Calibration | None], folder: Path,
               progress: Callable[..., None] = lambda *_: None) -> Protection:  # fmt: skip
    """What a config asks to protect. `text(config)` reads calibration text; `auto` asks for an equal part of every corpus, also of
    those without a share. What the model's reading of it showed is kept in `folder`. Raises UserError where that cannot be done.
    """
    if config.protect is None:
        return Protection()
    from polygraft.model import device_for, dtype_for

    weights, device = source.weights, device_for(config.device)
    anatomy = Anatomy.of(weights.config, weights.tensors, where=source.spec)
    if isinstance(config.protect, SelectName):
        shapes = {key: t.shape for key, t in weights.tensors.items()}
        return selected(pick(config.protect, context.folder), anatomy, extent, shapes).on(device)
    every = text(config.model_copy(update={"calibrate": None}))
    if every is None:
        raise RecipeError("nothing to see what languages need", where="protect", found="auto, without a corpus",
                          fix="give a corpus for each language (--corpus sw=PATH)")  # fmt: skip
    halved(config.asked)
    reading = Reading.calibrated(source, every, dtype_for(device, config.dtype)[0], device)
    return auto(norms(reading, folder, progress), weights, anatomy, extent, config.asked).on(device)


def selected(entries: Iterable[Entry], anatomy: Anatomy, extent: Extent, shapes: Mapping[str, Any]) -> Protection:
    """The weights of a selection: whole matrices, output features, neurons (rows of gate and up, columns of down).

    Raises InputError where it holds no weight that pruning touches.
    """
    found = on(entries, anatomy, shapes)
    parts = {key: rows for key, rows in found.rows.items() if key in extent.matrices}
    if not parts:
        raise InputError("the selection holds no weight that pruning touches", where="protect",
                         found=", ".join(found.rows)[:200] or "nothing", expected="attention or feed-forward matrices, or neurons")

    def mask(key: str) -> torch.Tensor | None:
        import torch

        if key not in parts:
            return None
        stored = torch.zeros(tuple(shapes[key]), dtype=torch.bool)
        rows = parts[key]
        at = slice(None) if rows is None else torch.from_numpy(rows)
        stored[(slice(None),) * found.axis.get(key, 0) + (at,)] = True
        return oriented(stored, anatomy)

    def count(key: str) -> int:
        rows = parts[key]
        return extent.sizes[key] if rows is None else len(rows) * extent.sizes[key] // int(shapes[key][found.axis.get(key, 0)])

    counts = {key: count(key) for key in parts}
    return Protection(mask, counts, f"{sum(counts.values()):,} weights of a selection stay.")


# -------------------------------------------------------------------------------------------------------------------- auto


def auto(norms: Mapping[str, np.ndarray], weights: Weights, anatomy: Anatomy, extent: Extent, pattern: Pattern) -> Protection:
    """What some language needs most. `norms[key]` float64 [languages, in]: root mean squares of a matrix's inputs.

    Raises RecipeError for N:M with N = 1, where there is no half.
    """
    half = halved(pattern)

    def mask(key: str) -> torch.Tensor | None:
        import torch

        out, width = extent.matrices[key]
        stored = torch.from_numpy(weights.f32(key)).reshape(tuple(weights.tensors[key].shape))
        return chosen(needed(oriented(stored, anatomy), norms[key]).reshape(out, width), half)

    counts = {key: out * (width * half.n // half.m if half.m else width - int(width * half.sparsity))
              for key, (out, width) in extent.matrices.items()}  # fmt: skip
    share = sum(counts.values()) / sum(extent.sizes.values())
    return Protection(mask, counts, f"{share:.1%} of the weights stay because some language needs them most.")


def halved(pattern: Pattern) -> Pattern:
    """The pattern of which half as much stays."""
    if not pattern.m:
        return Pattern(1 - HALF * (1 - pattern.sparsity))
    if pattern.n < 2:
        raise RecipeError("nothing to protect where one of a group stays", where="protect", found=f"auto at {pattern}",
                          fix="another pattern, or no protection")  # fmt: skip
    return Pattern.of(None, f"{pattern.n // 2}:{pattern.m}")


def needed(w: torch.Tensor, norms: np.ndarray) -> torch.Tensor:
    """max_g I^g_ij, float32 [out, in], from w [out, in] and norms float64 [languages, in]; 0 for a row that does nothing."""
    import torch

    best = torch.zeros_like(w)
    for x in torch.from_numpy(norms.astype(np.float32)):
        score = w.abs() * x
        size = score.norm(dim=1, keepdim=True)
        best = torch.maximum(best, score / torch.where(size > 0, size, 1))
    return best


def norms(reading: Reading, folder: Path, progress: Callable[..., None] = lambda *_: None) -> dict[str, np.ndarray]:
    """Root mean squares of every matrix's inputs in the dense model, float64 [languages, in] by key; kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    if not path.exists():
        found, keys = dict[str, np.ndarray](), dict[str, str]()

        def visit(layer: Layer, moments: Every) -> None:
            for site, some in layer.sites.items():
                label = f"{site.layer} {site.point} {site.expert}"
                found[label] = np.stack([moments[g][site].norms for g in reading.languages])
                keys[label] = json.dumps(list(some))

        read(reading, visit, gram=False, spill=folder / "states", progress=progress)
        arrays.write(path, found, keys)
    kept = arrays.Arrays(path)
    return {key: kept[label] for label in kept for key in json.loads(kept.metadata[label])}
