"""Where the stream turns back into a language: a criterion for the last layers, in the manner of LinguaMap (arXiv 2601.20009).

LinguaMap finds that the final layers decide the language of the output and tunes only those. The measure here is ours: it needs one
mean vector a language and layer, and says where languages part, not that editing there would change what is written.
"""

from __future__ import annotations

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.layers.deviation import centred


def language_share(means: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """float64 [layers + 1]: the part of the stream's variance over tokens that lies between languages, 0 to 1 (eta squared).

    `means` [layers + 1, width, languages] and `squares` [layers + 1, languages] are mean vectors and mean squared norms; all
    languages count alike: mean_k |m_k - m|^2 / (mean_k E|h|^2 - |m|^2). 0 where the stream does not vary.
    """
    between = (centred(means) ** 2).sum(1).mean(-1)
    within = np.maximum(squares - (means**2).sum(1), 0.0).mean(-1)  # rounding of a constant stream may fall below 0
    total = between + within
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def of(activity: Activity) -> np.ndarray:
    """`language_share` of a reading, from its arrays `residual` and `square.residual`."""
    tokens = np.array([max(1, activity.tokens(g)) for g in activity.languages])
    return language_share(activity.stacked("residual") / tokens, activity.stacked("square.residual") / tokens)


def last_block(share: np.ndarray) -> tuple[int, ...]:
    """The layers at the top after which `share` has risen at least half-way from its minimum to its end; empty if it does not rise.

    `share[l + 1]` is the stream after layer l. Ours.
    """
    after = share[1:]
    if not len(after):
        return ()
    bottom = len(after) - 1 - int(np.argmin(after[::-1]))  # the last of equal minima
    half = (after[bottom] + after[-1]) / 2
    below = np.flatnonzero(after < half)
    return tuple(range(int(below[-1]) + 1, len(after))) if bottom < len(after) - 1 and len(below) else ()
