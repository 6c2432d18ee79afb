"""Which of its new tokens a model writes: a vocabulary that is not used costs memory and gains nothing. The measures are ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics.counting import Reader


def new_tokens(model: Vocabulary, start: Vocabulary) -> np.ndarray:
    """Ids of `model` that stand for text of which `start` has no token of equal bytes, int64 ascending."""
    return np.array([i for i, content in enumerate(model.contents) if content and content not in start.by_bytes], np.int64)


@dataclass(frozen=True)
class Adoption:
    """Tokens that were written, new ones among them, different new ones, all new ones there are; and of the tokens that the
    tokenizer itself makes of the same texts, all and new ones."""

    written: int
    new: int
    different: int
    there: int
    cut: int
    cut_new: int

    @property
    def share(self) -> float:
        """Of the written tokens, those that are new."""
        return self.new / self.written if self.written else 0.0

    @property
    def own(self) -> float:
        """The same share if the model cut its text as its tokenizer does: what it would be if it wrote no old, small pieces."""
        return self.cut_new / self.cut if self.cut else 0.0

    @property
    def used(self) -> float:
        """Of all new tokens, those that were ever written."""
        return self.different / self.there if self.there else 0.0


def adoption(vocabulary: Vocabulary, new: np.ndarray, ids: Sequence[Sequence[int]], texts: Sequence[str]) -> Adoption:
    """What was written (`ids` of each answer) beside how the tokenizer cuts the same texts."""
    written = np.array([i for some in ids for i in some], np.int64)
    cut = np.array([i for some in Reader(vocabulary).encode(texts) for i in some], np.int64)
    hits = np.intersect1d(written, new)
    return Adoption(len(written), int(np.isin(written, new).sum()), len(hits), len(new), len(cut), int(np.isin(cut, new).sum()))
