"""Would other documents have given the same neurons, and would documents alone? The method on resampled and on dealt groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.analysis.groups import Groups
from polygraft.analysis.neurons.lape import Scores
from polygraft.analysis.neurons.overlap import jaccard

DRAWS = 20  # a draw repeats the whole method; the mean of 20 Jaccard indices is known well enough


@dataclass(frozen=True)
class Refit:
    """A method on means of other groups: `fit(means [layers, neurons, K], which)`, column k being text of language `which[k]`."""

    groups: Groups
    fit: Callable[[np.ndarray, Sequence[int]], Scores]

    def of(self, weights: Sequence[np.ndarray], which: Sequence[int]) -> Scores:
        """What the method finds in text of the languages `which`, their groups taken `weights[k]` [G] times."""
        taken = Groups(tuple(self.groups.sums[k] for k in which), tuple(self.groups.tokens[k] for k in which))
        return self.fit(np.moveaxis(taken.drawn([w[None] for w in weights])[0], 0, -1), which)


def stability(full: np.ndarray, again: Refit, draws: int, seed: int) -> np.ndarray:
    """float64 [draws, languages + 1]: Jaccard index of the sets of each draw with `full` (bool [layers, neurons, languages]).

    The last column is that of all languages' neurons together.
    """
    out, languages = np.ones((draws, full.shape[-1] + 1)), range(full.shape[-1])
    for i, weights in enumerate(zip(*again.groups.draws(draws, [seed, draws]))):
        owned = again.of(weights, languages).owned
        out[i, :-1] = [jaccard(full[..., k], owned[..., k]) for k in languages]
        out[i, -1] = jaccard(np.asarray(full.any(-1)), np.asarray(owned.any(-1)))
    return out


@dataclass(frozen=True)
class Floor:
    """What documents alone give: each language's own text dealt to as many parts as there are languages.

    `found` is the least specific score that the method took, `best[k]` that of what it takes of language k's parts (None where it
    takes nothing), and `under[k]` how many neurons score at least as specifically as `found` there.
    """

    found: float
    best: tuple[float | None, ...]
    under: tuple[int, ...]


def weakest(s: Scores) -> float | None:
    """The least specific score of what was taken: a score [layers, neurons] is low where specific, one by language high."""
    taken = s.score[s.owned if s.score.ndim == 3 else s.owned.any(-1)]
    return None if not taken.size else float(taken.min() if s.score.ndim == 3 else taken.max())


def floor(full: Scores, again: Refit) -> Floor | None:
    """The method on one language at a time, its groups 0, K, 2K ..., 1, K + 1 ... taken for K languages. Ours.

    K parts and not two, so that scores mean the same as in the found set; each part has a K-th of the text, so that the floor is
    rather too high than too low. None where nothing was found, or a language has fewer groups than there are languages.
    """
    n, least = full.owned.shape[-1], weakest(full)
    if least is None or min(again.groups.sizes) < n:
        return None
    best, under = list[float | None](), list[int]()
    for k, size in enumerate(again.groups.sizes):
        dealt = again.of([np.asarray(np.arange(size) % n == part, float) for part in range(n)], [k] * n)
        best.append(weakest(dealt))
        under.append(int((dealt.score <= least).sum() if full.score.ndim == 2 else (dealt.score >= least).any(-1).sum()))
    return Floor(least, tuple(best), tuple(under))
