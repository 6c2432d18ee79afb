"""What a method found: for each language a set of neurons; one neuron may belong to several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.analysis.neurons.lape import Scores


@dataclass(frozen=True)
class Found:
    """The sets of `method`: `scores.owned[..., k]` belongs to `languages[k]`."""

    method: str
    languages: tuple[str, ...]
    scores: Scores

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """bool [layers, neurons] by language."""
        return {language: self.scores.owned[..., k] for k, language in enumerate(self.languages)}

    @property
    def any(self) -> np.ndarray:
        """bool [layers, neurons]: owned by at least one language."""
        return np.asarray(self.scores.owned.any(-1))

    @property
    def shared(self) -> np.ndarray:
        """int64 [languages + 1]: how many neurons belong to that many languages; at 0 those that belong to none."""
        return np.bincount(self.scores.owned.sum(-1).reshape(-1), minlength=len(self.languages) + 1)

    @property
    def by_layer(self) -> np.ndarray:
        """int64 [languages, layers]: how many neurons of each layer a language owns."""
        return self.scores.owned.sum(1).T


def listed(mask: np.ndarray) -> np.ndarray:
    """int64 [n, 2]: (layer, neuron) of every neuron of a mask, in order."""
    return np.argwhere(mask).astype(np.int64)
