"""What the dense model's matrices read in each language, some of it: the yardstick for every pruned matrix, W x against W' x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays
from polygraft.blocks import Blocks
from polygraft.checkpoint import Weights
from polygraft.prune.costs import Extent
from polygraft.prune.engine import matrix
from polygraft.prune.gather import Gathering, Samples, Weighing
from polygraft.prune.sites import Site, oriented
from polygraft.taps import Taps

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.model import Live
    from polygraft.sources import Source

INPUTS = 256  # of each matrix in every language


class Sampling(Gathering):
    """A gathering that keeps inputs of every language by themselves."""

    def __init__(self, live: Live, found: Mapping[Site, Sequence[str]], widths: Mapping[Site, int], weighing: Weighing,
                 of: Sequence[str]):  # fmt: skip
        super().__init__(live, found, widths, weighing, gram=False)
        self.of = of
        self.by_language = {g: _samples([w for w, own in zip(weighing, of, strict=True) if own == g]) for g in dict.fromkeys(of)}

    def begin(self, index: int, batch: Any) -> None:
        self.samples = self.by_language[self.of[index]]
        super().begin(index, batch)


def _samples(weighing: Weighing) -> Samples:
    found = Samples(weighing)
    found.every = max(1, -(-sum(int((w > 0).sum()) for w in weighing) // INPUTS))
    return found


def layer_file(folder: Path, layer: int) -> Path:
    return folder / f"inputs.{layer}.safetensors"


def gather(source: Source, extent: Extent, batches: Sequence[Mapping[str, Any]], weighing: Weighing, of: Sequence[str],
           folder: Path, dtype: str, device: str) -> None:  # fmt: skip
    """One file a layer, by language: inputs float32 [samples, in] of every site, and of every matrix |W X|^2. All are kept that
    lie there: the caller empties the folder when the model or the text is another."""
    if all(layer_file(folder, i).exists() for i in range(len(extent.layers))):
        return
    with Blocks.open(source, dtype=dtype, device=device, spill=folder / "states") as blocks:
        blocks.feed([dict(b) for b in batches])
        for block, found in zip(blocks, extent.layers, strict=True):
            widths = {site: extent.matrices[keys[0]][1] for site, keys in found.items()}
            seen = Sampling(blocks.live, found, widths, weighing, of)
            with Taps(blocks.live.model, blocks.live.anatomy, seen.seen, points=seen.points, layers=[block.layer]):
                block.run(seen.begin)
            arrays.write(layer_file(folder, block.layer), dict(_told(seen, found, blocks.live)))


def _told(seen: Sampling, found: Mapping[Site, Sequence[str]], live: Live) -> Iterator[tuple[str, np.ndarray]]:
    for language, samples in seen.by_language.items():
        for site, keys in found.items():
            if (x := samples.of(site)) is None:  # an expert that this language did not choose
                continue
            yield f"{language}.{name(site)}", x.cpu().numpy()
            for key in keys:
                yield f"{language}.{key}", np.array([energy(matrix(live, key).float(), x)])


def name(site: Site) -> str:
    return f"{site.point}.{site.expert}"


def energy(w: torch.Tensor, x: torch.Tensor) -> float:
    """|W X|^2 of w [out, in] and inputs x [samples, in]."""
    import torch

    return float((w @ x.T).square().sum(dtype=torch.float64))


def losses(before: Weights, after: Weights, anatomy: Anatomy, extent: Extent, folder: Path,
           languages: Sequence[str]) -> dict[str, np.ndarray]:  # fmt: skip
    """Of every matrix, in the order of `extent.matrices`: `weight` float64 [matrices, 2] of |W|^2 and |W - W'|^2, and by language
    float64 [matrices, 2] of |W X|^2 and |(W - W') X|^2, zeros where the language did not come there."""
    import torch

    out = {g: np.zeros((len(extent.matrices), 2)) for g in ("weight", *languages)}
    places = {key: i for i, key in enumerate(extent.matrices)}
    for layer, found in enumerate(extent.layers):
        inputs = arrays.Arrays(layer_file(folder, layer))
        for site, keys in found.items():
            xs = {g: torch.from_numpy(inputs[f"{g}.{name(site)}"]) for g in languages if f"{g}.{name(site)}" in inputs}
            for key in keys:
                w, new = (oriented(torch.from_numpy(x.f32(key)).reshape(before.info(key).shape), anatomy) for x in (before, after))
                lost = w - new
                out["weight"][places[key]] = float(w.double().square().sum()), float(lost.double().square().sum())
                for g, x in xs.items():
                    out[g][places[key]] = inputs[f"{g}.{key}"][0], energy(lost, x)
    return out
