"""One reading of text in several languages by the dense model: every layer's moments, each language's by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.blocks import Blocks
from polygraft.prune.engine import check_finite, matrix
from polygraft.prune.gather import ByLanguage, Weighing
from polygraft.prune.sites import Site, sites
from polygraft.prune.statistics import Moments
from polygraft.taps import Taps

if TYPE_CHECKING:
    from polygraft.blocks import Block
    from polygraft.model import Live
    from polygraft.prune.calibration import Calibration
    from polygraft.sources import Source

Every = dict[str, dict[Site, Moments]]  # language -> site -> moments


@dataclass(frozen=True)
class Reading:
    """A model and what it reads: batches of one language each, `of[i]`, and of every token its weight."""

    source: Source
    batches: Sequence[Mapping[str, Any]]
    weighing: Weighing
    of: Sequence[str]
    dtype: str = "auto"
    device: str = "cpu"

    @classmethod
    def calibrated(cls, source: Source, text: Calibration, dtype: str = "auto", device: str = "cpu") -> Reading:
        return cls(source, text.batches, text.weighing, text.of, dtype, device)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.of))


@dataclass(frozen=True)
class Layer:
    """One layer while it is in memory: its matrices by site, and the model to take them from."""

    number: int
    sites: Mapping[Site, Sequence[str]]
    live: Live

    def matrices(self, site: Site) -> dict[str, Any]:
        """float32 [out, in] by key."""
        return {key: matrix(self.live, key).float() for key in self.sites[site]}


def read(reading: Reading, visit: Callable[[Layer, Every], None], *, gram: bool, spill: Path | None = None,
         done: Callable[[int], bool] = lambda _layer: False, progress: Callable[..., None] = lambda *_: None) -> None:  # fmt: skip
    """Call `visit(layer, moments)` for every layer while it is in memory; those that are `done` are only passed through.

    Hidden states beyond what memory may take lie in `spill`. Raises StepFailed where what a layer reads is not finite.
    """
    with Blocks.open(reading.source, dtype=reading.dtype, device=reading.device, spill=spill) as blocks:
        blocks.feed([dict(b) for b in reading.batches])
        shapes = {key: t.shape for key, t in blocks.weights.tensors.items()}
        for block in blocks:
            if not done(block.layer):
                layer = Layer(block.layer, sites(blocks.live.anatomy, shapes, block.layer), blocks.live)
                visit(layer, _gathered(block, layer, reading, gram))
            if not block.propagated:
                block.run()
            progress(block.layer + 1, blocks.live.anatomy.layers, f"layer {block.layer}")


def _gathered(block: Block, layer: Layer, reading: Reading, gram: bool) -> Every:
    """Moments of one layer, which is run once: what it observes feeds the next layer too."""
    widths = {site: matrix(layer.live, keys[0]).shape[1] for site, keys in layer.sites.items()}
    gathering = ByLanguage(layer.live, layer.sites, widths, reading.weighing, gram, reading.of)
    with Taps(layer.live.model, layer.live.anatomy, gathering.seen, points=gathering.points, layers=[layer.number]):
        block.run(gathering.begin)
    for moments in gathering.every.values():
        for site, keys in layer.sites.items():
            check_finite(moments[site], keys)
    return gathering.every
