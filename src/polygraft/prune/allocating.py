"""How sparse each layer becomes: even, or by what a reading of the dense model shows (see `masks.allocation`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays
from polygraft.blocks import Blocks
from polygraft.prune.calibration import Calibration
from polygraft.prune.config import Masking
from polygraft.prune.costs import Extent
from polygraft.prune.engine import matrix
from polygraft.prune.gather import Weighing, gather
from polygraft.prune.masks.allocation import across, outliers, owl
from polygraft.result import Curve

if TYPE_CHECKING:
    from polygraft.sources import Source

FILE = "outliers.safetensors"
ALL = ""  # the whole mixture as one text


@dataclass(frozen=True)
class Allocated:
    """Sparsity by matrix, where it is not the same in all; `layers`: of each layer; curves of both."""

    by_key: dict[str, float] = field(default_factory=dict)
    layers: list[float] | None = None
    curves: tuple[Curve, ...] = ()


def allocated(config: Masking, source: Source, extent: Extent, text: Calibration | None, folder: Path,
              progress: Callable[..., None] = lambda *_: None) -> Allocated:  # fmt: skip
    """Read the dense model where the config asks for it; what was read stays in `folder` for a run that goes on."""
    if config.allocate == "even" or text is None:
        return Allocated()
    path = folder / FILE
    if not path.exists():
        arrays.write(path, dict(read(config, source, extent, text, progress)))
    ratios = dict(arrays.Arrays(path))
    sizes = np.array([sum(extent.sizes[k] for keys in layer.values() for k in keys) for layer in extent.layers])
    target = config.asked.sparsity
    if config.allocate == "owl":
        found = owl(next(iter(ratios.values())), sizes, target)
    else:
        found = across(ratios, sizes, target, worst=config.allocate == "worst")
    by_key = {k: float(s) for s, layer in zip(found, extent.layers, strict=True) for keys in layer.values() for k in keys}
    return Allocated(by_key, found.tolist(), curves(ratios, found))


def read(config: Masking, source: Source, extent: Extent, text: Calibration,
         progress: Callable[..., None]) -> Iterator[tuple[str, np.ndarray]]:  # fmt: skip
    """(name, outlier ratio float64 [layers]) of the whole text, or of every language, which goes through the model by itself."""
    groups = [ALL] if config.allocate == "owl" else list(text.languages)
    for group in groups:
        at = [i for i, language in enumerate(text.of) if group in (ALL, language)]
        parts = [text.batches[i] for i in at], [text.weighing[i] for i in at]
        yield f"outliers.{group or 'all'}", np.array(list(ratios(config, source, extent, *parts, progress)))


def ratios(config: Masking, source: Source, extent: Extent, batches: list[Any], weighing: Weighing,
           progress: Callable[..., None]) -> Iterator[float]:  # fmt: skip
    """The outlier ratio of every layer of the dense model on this text."""
    from polygraft.model import device_for, dtype_for

    device = device_for(config.device)
    with Blocks.open(source, dtype=dtype_for(device, config.dtype)[0], device=device) as blocks:
        blocks.feed([dict(b) for b in batches])
        for block, found in zip(blocks, extent.layers, strict=True):
            widths = {site: extent.matrices[keys[0]][1] for site, keys in found.items()}
            moments = gather(block, blocks.live, found, widths, weighing, False)
            keys = {key: site for site, some in found.items() for key in some}
            yield outliers({key: matrix(blocks.live, key).float() for key in keys}, {key: moments[s] for key, s in keys.items()})
            progress(block.layer + 1, len(extent.layers), f"layer {block.layer}: outliers")


def curves(ratios: dict[str, np.ndarray], found: np.ndarray) -> tuple[Curve, ...]:
    x = tuple(map(float, range(len(found))))
    outlying = {name.removeprefix("outliers."): _floats(values) for name, values in ratios.items()}
    return (Curve("How sparse each layer became", x, {"sparsity": _floats(found)}, "layer", "share that went"),
            Curve("Outliers among each layer's scores", x, outlying, "layer", "per cent above 5 times the mean"))  # fmt: skip


def _floats(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(map(float, values))
