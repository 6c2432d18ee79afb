"""Would other documents have given the same neurons? The method is repeated on resampled groups of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from polygraft import stats
from polygraft.analysis.neurons.lape import Scores
from polygraft.analysis.neurons.overlap import jaccard

DRAWS = 20  # a draw repeats the whole method; the mean of 20 Jaccard indices is known well enough

Refit = Callable[[Sequence[np.ndarray]], Scores]  # from the weights [groups] of each language's groups


def weights(tokens: Sequence[np.ndarray], parallel: bool, draws: int, seed: int) -> list[list[np.ndarray]]:
    """`draws` times, for each language int64 [groups]: how often each group is drawn. Empty groups are never drawn.

    Parallel texts are drawn together: group g is the same documents in every language.
    """
    rng = np.random.default_rng([seed, draws])
    out = []
    for _ in range(draws):
        shared: np.ndarray | None = None
        drawn = []
        for t in tokens:
            full = np.flatnonzero(t > 0)
            if shared is None or not parallel or len(shared) != len(full):
                shared = stats.counts(rng, max(1, len(full)), 1)[0].astype(np.int64)
            w = np.zeros(len(t), np.int64)
            w[full] = shared[: len(full)]
            drawn.append(w)
        out.append(drawn)
    return out


def resummed(groups: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[layers, neurons]: sum over groups of weight times value of [groups, layers, neurons], exact for counts."""
    out = np.zeros(groups.shape[1:], np.int64 if groups.dtype.kind in "iu" else np.float64)
    for g in np.flatnonzero(w):
        out += groups[g] * out.dtype.type(w[g])
    return out


def stability(full: np.ndarray, refit: Refit, draws: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float64 [draws, languages + 1]: Jaccard index of the sets of each draw with `full` (bool [layers, neurons, languages]).

    The last column is that of all languages' neurons together.
    """
    out = np.ones((len(draws), full.shape[-1] + 1))
    for i, drawn in enumerate(draws):
        owned = refit(drawn).owned
        out[i, :-1] = [jaccard(full[..., k], owned[..., k]) for k in range(full.shape[-1])]
        out[i, -1] = jaccard(np.asarray(full.any(-1)), np.asarray(owned.any(-1)))
    return out
