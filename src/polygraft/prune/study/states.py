"""States and firing neurons of a model in memory, and how far those of a pruned model are from the dense one's.

The dense model reads two parts of each language's text. On the first, languages' mean states say where languages differ; on the
second every pruned model is compared with what the dense one had there, token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays, edits
from polygraft.prune.study.measures import sums
from polygraft.taps import Passing, Taps
from polygraft.windows import Batch, Stream, batches

if TYPE_CHECKING:
    from polygraft.model import Live

See = Callable[[int, int, np.ndarray], None]  # (batch, layer, states float32 [tokens, hidden] of those that count)


def halves(stream: Stream, parallel: bool) -> tuple[Stream, Stream]:
    """Two parts of a text that share no token: documents of the first half and of the second; not parallel: tokens."""
    n = stream.documents // 2
    cut = int(stream.starts[n]) if parallel and n else stream.tokens // 2
    return stream.first(cut), Stream(stream.language, stream.ids[cut:], np.array([0, stream.tokens - cut]), np.array([0]),
                                     stream.bos, stream.path, stream.digest)  # fmt: skip


def cut(stream: Stream, window: int, rows: int) -> list[Batch]:
    return list(batches(stream, window, rows))


class Seeing:
    """What passes while one language is read: neurons that fire are counted, states are shown to `see`."""

    def __init__(self, live: Live, see: See):
        sizes = edits.sizes(live.anatomy)
        self.live, self.see, self.tokens = live, see, 0
        self.fired = np.zeros((live.anatomy.layers, max(sizes)), np.int64)
        self.index, self.counted = 0, np.zeros(0, bool)

    def begin(self, index: int, batch: Batch) -> None:
        self.index = index
        counted = np.zeros(batch.ids.shape, bool)
        counted[:, batch.skip :] = True
        self.counted = counted.reshape(-1)
        self.tokens += int(counted.sum())

    def __call__(self, p: Passing) -> None:
        import torch

        value = p.value.reshape(-1, p.value.shape[-1])
        at = torch.from_numpy(self.counted).to(value.device)
        if p.point == "residual":
            self.see(self.index, p.layer, value[at].float().cpu().numpy())
            return
        fired = (value[at if p.tokens is None else at[p.tokens]] > 0).sum(0).cpu().numpy()
        first = 0 if p.expert is None else p.expert * len(fired)
        self.fired[p.layer, first : first + len(fired)] += fired


def read(live: Live, texts: Mapping[str, Sequence[Batch]], see: Mapping[str, See]) -> dict[str, np.ndarray]:
    """Read every language's batches through the model's body; -> shares of tokens that fire, float64 [layers, neurons]."""
    import torch

    found = {}
    for language, some in texts.items():
        seeing = Seeing(live, see[language])
        with torch.inference_mode(), Taps(live.model, live.anatomy, seeing, points=("residual", "act")):
            for index, batch in enumerate(some):
                seeing.begin(index, batch)
                live.model.base_model(input_ids=torch.from_numpy(batch.ids).to(live.device), use_cache=False)
        found[language] = seeing.fired / max(1, seeing.tokens)
    return found


# ------------------------------------------------------------------------------------------------------------------- dense


@dataclass
class Dense:
    """The dense model on both parts: `bases` float64 [D, r] of every layer; firing shares [layers, neurons, languages] on the first
    part (`other`) and the second (`firing`); `real` bool: neurons that a layer has; states of the second part lie in files."""

    folder: Path
    texts: Mapping[str, Sequence[Batch]]
    bases: list[np.ndarray]
    firing: np.ndarray
    other: np.ndarray
    real: np.ndarray

    @classmethod
    def of(cls, live: Live, first: Mapping[str, Sequence[Batch]], second: Mapping[str, Sequence[Batch]],
           lsar: Callable[[np.ndarray], Any], folder: Path) -> Dense:  # fmt: skip
        """Read the model as it is. One language has no subspace: its bases are empty."""
        mean, store = {g: Means(live) for g in first}, {g: Stored(folder, g) for g in second}
        other = read(live, first, mean)
        firing = read(live, second, store)
        for kept in store.values():
            kept.flush()
        means = np.stack([m.value for m in mean.values()], -1)  # [layers, D, languages]
        width = means.shape[1]
        bases = [lsar(m).basis if m.shape[1] > 1 else np.zeros((width, 0)) for m in means]
        real = np.arange(max(edits.sizes(live.anatomy))) < np.array(edits.sizes(live.anatomy))[:, None]
        return cls(folder, second, bases, _together(firing), _together(other), real)

    def compare(self, live: Live) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(sums float64 [layers, 4] by language (see `measures.sums`), firing shares) of the model as it is now."""
        against = {g: Against(self.folder, g, self.bases) for g in self.texts}
        firing = read(live, self.texts, against)
        return {g: a.found for g, a in against.items()}, _together(firing)


def _together(firing: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(firing.values()), -1)


class Means:
    """Mean states of one language."""

    def __init__(self, live: Live):
        self.total = np.zeros((live.anatomy.layers, live.anatomy.sizes.hidden))
        self.count = np.zeros(live.anatomy.layers, np.int64)

    def __call__(self, _index: int, layer: int, states: np.ndarray) -> None:
        self.total[layer] += states.sum(0, dtype=np.float64)
        self.count[layer] += len(states)

    @property
    def value(self) -> np.ndarray:
        return self.total / np.maximum(1, self.count)[:, None]


def _file(folder: Path, language: str, index: int) -> Path:
    return folder / f"states.{language}.{index}.safetensors"


class Stored:
    """States of one language, a file for each batch."""

    def __init__(self, folder: Path, language: str):
        self.folder, self.language, self.index = folder, language, 0
        self.held: dict[str, np.ndarray] = {}

    def __call__(self, index: int, layer: int, states: np.ndarray) -> None:
        if index != self.index:
            self.flush()
            self.index = index
        self.held[str(layer)] = states

    def flush(self) -> None:
        if self.held:
            arrays.write(_file(self.folder, self.language, self.index), self.held)
        self.held = {}


class Against:
    """Sums of what states of one language differ by from the dense model's, `found` float64 [layers, 4]."""

    def __init__(self, folder: Path, language: str, bases: Sequence[np.ndarray]):
        self.folder, self.language, self.bases = folder, language, bases
        self.found = np.zeros((len(bases), 4))
        self.index = -1
        self.dense: arrays.Arrays | None = None

    def __call__(self, index: int, layer: int, states: np.ndarray) -> None:
        if index != self.index:
            self.index, self.dense = index, arrays.Arrays(_file(self.folder, self.language, index))
        assert self.dense is not None
        self.found[layer] += sums(self.dense[str(layer)], states, self.bases[layer])
