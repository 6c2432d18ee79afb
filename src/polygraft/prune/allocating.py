"""How sparse each layer becomes: even, or by what a reading of the dense model shows (see `masks.allocation`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polygraft import arrays
from polygraft.prune.calibration import Calibration
from polygraft.prune.config import Masking
from polygraft.prune.costs import Extent
from polygraft.prune.languages import Every, Layer, Reading
from polygraft.prune.languages import read as read_layers
from polygraft.prune.masks.allocation import across, outliers, owl
from polygraft.prune.sites import Site
from polygraft.prune.statistics import Moments
from polygraft.result import Curve

if TYPE_CHECKING:
    from polygraft.sources import Source

FILE = "outliers.safetensors"
ALL = "all"  # the whole mixture as one text


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
        arrays.write(path, read(config, source, extent, text, folder / "states", progress))
    ratios = dict(arrays.Arrays(path))
    sizes = np.array([sum(extent.sizes[k] for keys in layer.values() for k in keys) for layer in extent.layers])
    target = config.asked.sparsity
    if config.allocate == "owl":
        found = owl(next(iter(ratios.values())), sizes, target)
    else:
        found = across(ratios, sizes, target, worst=config.allocate == "worst")
    by_key = {k: float(s) for s, layer in zip(found, extent.layers, strict=True) for keys in layer.values() for k in keys}
    return Allocated(by_key, found.tolist(), curves(ratios, found))


def read(config: Masking, source: Source, extent: Extent, text: Calibration, spill: Path,
         progress: Callable[..., None]) -> dict[str, np.ndarray]:  # fmt: skip
    """Outlier ratios float64 [layers] of the dense model: of the whole text for owl, else of every language. Hidden states that
    memory has no room for lie in `spill`."""
    from polygraft.model import device_for, dtype_for

    device = device_for(config.device)
    groups = [ALL] if config.allocate == "owl" else text.languages
    found = {g: np.zeros(len(extent.layers)) for g in groups}

    def visit(layer: Layer, moments: Every) -> None:
        ws = {key: w for site in layer.sites for key, w in layer.matrices(site).items()}
        for group in found:
            own = {site: of(moments, site, group) for site in layer.sites}
            found[group][layer.number] = outliers(ws, {key: own[site] for site, keys in layer.sites.items() for key in keys})

    reading = Reading.calibrated(source, text, dtype_for(device, config.dtype)[0], device)
    read_layers(reading, visit, gram=False, spill=spill, progress=progress)
    return found


def of(moments: Every, site: Site, group: str) -> Moments:
    """One language's moments of a site, or those of all together."""
    every = [by_site[site] for language, by_site in moments.items() if group in (ALL, language)]
    return reduce(add, every[1:], every[0])


def curves(ratios: dict[str, np.ndarray], found: np.ndarray) -> tuple[Curve, ...]:
    x = tuple(map(float, range(len(found))))
    outlying = {name: _floats(values) for name, values in ratios.items()}
    return (Curve("How sparse each layer became", x, {"sparsity": _floats(found)}, "layer", "share that went"),
            Curve("Outliers among each layer's scores", x, outlying, "layer", "per cent above 5 times the mean"))  # fmt: skip


def _floats(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(map(float, values))
