"""One cell of a study: a pruning, and all that is measured of the pruned model while it is in memory. Each leaves a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays
from polygraft.data import Corpus
from polygraft.errors import StepFailed
from polygraft.model import copy_weights
from polygraft.prune.calibration import Calibration, Drawn, Spoken, assembled, drawn, opened, quotas, shares_of
from polygraft.prune.config import Calibrating
from polygraft.prune.costs import Extent
from polygraft.prune.engine import Module, Overlay, prune
from polygraft.prune.protect import protection
from polygraft.prune.pruning import work
from polygraft.prune.study.around import Around, Evaluation
from polygraft.prune.study.config import Cell, Study, masking
from polygraft.prune.study.inputs import losses
from polygraft.prune.study.noise import noisy
from polygraft.prune.study.states import Dense
from polygraft.step import Context

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.checkpoint import Weights
    from polygraft.model import Live
    from polygraft.sources import Source

CELLS, WORK = "cells", "work"
DENSE = "dense"
Progress = Callable[..., None]


@dataclass
class Bed:
    """What all cells of a study share: the dense model in memory, what is read, and what it showed. `base`: digest of all that."""

    config: Study
    context: Context
    source: Source
    anatomy: Anatomy
    extent: Extent
    live: Live
    around: Around
    documents: Mapping[str, Sequence[str]]
    folder: Path
    base: str
    dense: Dense | None = None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)  # by purpose
    spoken: Spoken | None = None
    windows: dict[tuple[str, int, int], Drawn] = field(default_factory=dict)  # of a language, so many, by a seed

    def path(self, cell: Cell | None) -> Path:
        """Where a cell's measures lie; None: those of the dense model."""
        return self.folder / CELLS / f"{DENSE if cell is None else cell.key(self.base)}.safetensors"

    def masks(self, cell: Cell) -> Path:
        return self.folder / WORK / f"masks.{cell.key(self.base)}.safetensors"

    def text(self, config: Calibrating, noise: float = 0.0) -> Calibration:
        parts = quotas(shares_of(config), config.samples)
        found = {g: self.drawn(c, parts[g], config) for g, c in opened(config, self.context).items()}
        if noise:
            found = {g: noisy(d, noise, config.seed) for g, d in found.items()}
        return assembled(found, self.live.tokenizer, config.rows, config.seed, self.spoken)

    def drawn(self, corpus: Corpus, windows: int, config: Calibrating) -> Drawn:
        """The windows of one language; drawn once, since many cells read the same."""
        key = corpus.language, windows, config.seed
        if key not in self.windows:
            self.windows[key] = drawn(corpus, self.live.tokenizer, windows, config.seq_len, config.seed)
        return self.windows[key]


def measured(bed: Bed, cell: Cell, progress: Progress = lambda *_: None) -> None:
    """Prune and measure, unless the cell's file lies there. Raises StepFailed where something is not finite."""
    path, pruning = bed.path(cell), bed.folder / WORK / f"pruning.{cell.key(bed.base)}"
    if path.exists() and bed.masks(cell).exists():
        return
    text, modules = pruned(bed, cell, pruning, progress)
    overlay = Overlay(bed.source.weights, pruning, bed.anatomy.layers)
    found = dict[str, np.ndarray]()
    if bed.dense is not None:
        lost = losses(bed.source.weights, overlay, bed.anatomy, bed.extent, bed.folder / WORK, bed.config.languages)
        found |= {f"matrices.{g}": a for g, a in lost.items()}
    with filled(bed, overlay, list(modules)):
        found |= seen(bed, cell.told, cell.key(bed.base))
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise StepFailed("a pruned model gives numbers that are not finite", where=f"{cell.told}: {name}",
                             fix="compute in float32: --dtype float32")  # fmt: skip
    arrays.write(bed.masks(cell), dict(overlay.masks))
    zeros = {key: m.zeros for key, m in modules.items()}
    arrays.write(path, found, {"zeros": json.dumps(zeros), "calibration": json.dumps(text.provenance),
                               "notes": json.dumps([*text.notes, *sorted({m.note for m in modules.values() if m.note})])})
    shutil.rmtree(pruning)


def pruned(bed: Bed, cell: Cell, folder: Path, progress: Progress) -> tuple[Calibration, dict[str, Module]]:
    """The pruning itself, its layers in `folder`."""
    config = masking(bed.config, cell)
    text = bed.text(config, cell.noise)
    norms = bed.folder / WORK / f"norms.{cell.seed}.{cell.samples}"  # the same for every target language
    norms.mkdir(parents=True, exist_ok=True)
    stays = protection(config, bed.context, bed.source, bed.extent, bed.text, norms)
    job = work(config, bed.source, text, stays.sparsities(bed.extent, config.asked), stays.of)
    return text, prune(replace(job, judged=False), folder, progress)  # `losses` measures all cells on the same inputs


@contextmanager
def filled(bed: Bed, overlay: Weights, keys: list[str]) -> Iterator[None]:
    """The model in memory with the pruned matrices; the dense ones again afterwards."""
    import torch

    with torch.no_grad():
        copy_weights(bed.live, overlay, keys)
    try:
        yield
    finally:
        with torch.no_grad():
            copy_weights(bed.live, bed.source.weights, keys)


def seen(bed: Bed, label: str, identity: str) -> dict[str, np.ndarray]:
    """All that is read of the model as it is in memory: `bits.LANG` float64 [documents, 2] of nats and bytes; `task.COLUMN` [items,
    2] of sums and sizes, COLUMN led by its purpose; of a pruned one `states.LANG` [layers, 4] and `firing` float32 [layers,
    neurons, languages]."""
    found = {f"bits.{g}": np.array([(s.nats, s.bytes) for s in bed.around.judge.nats(bed.live, some)], np.float64)
             for g, some in bed.documents.items()}  # fmt: skip
    for purpose, evaluation in bed.evaluations.items():
        evaluation.identity = identity
        for name, (tops, bottoms, _unit, _higher) in evaluation.ask(bed.live, label).items():
            found[f"task.{purpose} {name}"] = np.stack([tops, bottoms], -1).astype(np.float64)
    if bed.dense is not None and label != DENSE:
        states, firing = bed.dense.compare(bed.live)
        found |= {f"states.{g}": a for g, a in states.items()} | {"firing": firing.astype(np.float32)}
    return found


def dense(bed: Bed) -> dict[str, tuple[str, bool]]:
    """Measure the dense model, unless its file lies there; -> of every task's column (unit, whether higher is better)."""
    path = bed.path(None)
    if path.exists():
        told: dict[str, Any] = json.loads(arrays.Arrays(path).metadata["columns"])
        return {name: (str(unit), bool(higher)) for name, (unit, higher) in told.items()}
    found, columns = seen(bed, DENSE, bed.source.identity), dict[str, tuple[str, bool]]()
    for purpose, evaluation in bed.evaluations.items():
        units = {f"{purpose} {name}": (unit, higher) for name, (_, _, unit, higher) in evaluation.ask(bed.live, DENSE).items()}
        columns |= units  # its answers were kept: asking again reads them
    arrays.write(path, found, {"columns": json.dumps(columns)})
    return columns
