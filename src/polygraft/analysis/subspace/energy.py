"""How much of the stream is about the language: LSAR is fitted on one half of the document groups and measured on the other.

All definitions are ours. A share in one subspace means something only beside the share that any subspace of that rank has: r / D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.analysis.groups import Groups
from polygraft.analysis.subspace.angles import overlap
from polygraft.analysis.subspace.depths import ratio
from polygraft.analysis.subspace.lsar import TINY, lsar

BLOCK = 25  # bootstrap samples at a time: their mean states stand in memory


@dataclass(frozen=True)
class Energy:
    """At one depth. Numbers are the mean of both ways round (fit on A, measure on B, and B, A); draws are bootstrap samples [N].

    `specific[k]` is ||P m||^2 / ||m||^2 of the held-out mean state m of language k, P the projector on the subspace: the rest is
    language-agnostic. `language` is the part of the variance between the held-out means of the languages that lies in the
    subspace, `content` the part of the variance between groups of one language that does. `stability`: overlap of the two bases.
    """

    specific: np.ndarray
    specific_draws: np.ndarray
    language: float
    language_draws: np.ndarray
    content: float
    content_draws: np.ndarray
    stability: float
    chance: float


def energy(groups: Groups, rank: int | None, draws: int, seed: int) -> Energy:
    """Fit on each half of `groups`, measure on the other; bootstrap samples draw the groups of both halves and fit again."""
    halves = (groups.half(0), groups.half(1))
    spaces = [lsar(h.means, rank) for h in halves]
    even = [[np.ones((1, len(t))) for t in h.tokens] for h in halves]
    weights = [h.draws(draws, 2 * seed + i) for i, h in enumerate(halves)]
    once = [_measured(spaces[1 - i].basis.T[None], halves[i], even[i]) for i in (0, 1)]
    many = [_resampled(halves[1 - i], weights[1 - i], halves[i], weights[i], spaces[1 - i].rank) for i in (0, 1)]
    (specific, language, content), spread = ([(a + b) / 2 for a, b in zip(*pair)] for pair in (once, many))
    return Energy(specific[0], spread[0], float(language[0]), spread[1], float(content[0]), spread[2],
                  overlap(spaces[0].basis, spaces[1].basis), max(s.rank for s in spaces) / len(spaces[0].mu))


def _resampled(fit: Groups, drawn: list[np.ndarray], held: Groups, weights: list[np.ndarray], rank: int) -> list[np.ndarray]:
    """`_measured` of every bootstrap sample: the basis from the samples of one half, the figures from those of the other."""
    parts = []
    for at in range(0, len(weights[0]), BLOCK):
        some = slice(at, at + BLOCK)
        parts.append(_measured(bases(fit.drawn([w[some] for w in drawn]), rank), held, [w[some] for w in weights]))
    return [np.concatenate(columns) for columns in zip(*parts)]


def bases(means: np.ndarray, rank: int) -> np.ndarray:
    """Rows [N, rank, D] that span the LSAR subspace of each of N sets of mean states [N, K, D]; zero rows where they span less.

    From the Gram matrix of the K centred means: the span is all that a projection needs, and K is small beside D.
    """
    centred = means - means.mean(1, keepdims=True)
    value, vector = np.linalg.eigh(centred @ centred.transpose(0, 2, 1))
    value, vector = value[:, ::-1][:, :rank], vector[:, :, ::-1][:, :, :rank]
    good = value > TINY * (means**2).sum((1, 2))[:, None] * np.sqrt(TINY)
    scale = np.divide(1, np.sqrt(np.where(good, value, 1)), out=np.zeros(value.shape), where=good)
    return (vector * scale[:, None]).transpose(0, 2, 1) @ centred


def _measured(basis: np.ndarray, held: Groups, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(specific [N, K], language [N], content [N]) of samples of held-out groups, `weights[k]` [N, G_k], in `basis` [N, r, D]."""
    means = held.drawn(weights)
    specific = ratio(_inside(means, basis), (means**2).sum(-1))
    between = means - means.mean(1, keepdims=True)
    language = ratio(_inside(between, basis).sum(1), (between**2).sum((1, 2)))
    inside = total = np.zeros(len(means))
    for k, (items, w) in enumerate(zip(held.items, weights)):
        centre = items.mean(0)  # large common parts would eat the digits of the small differences
        x, m = items - centre, means[:, k] - centre
        apart = x @ basis.transpose(0, 2, 1) - (basis @ m[:, :, None]).transpose(0, 2, 1)
        inside = inside + (w * (apart**2).sum(-1)).sum(-1)
        total = total + np.maximum(w @ (x**2).sum(1) - 2 * ((w @ x) * m).sum(1) + w.sum(1) * (m**2).sum(1), 0)
    return specific, language, ratio(inside, total)


def _inside(x: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Squared length [N, K] within the span of orthonormal rows [N, r, D] of x [N, K, D]."""
    return ((x @ basis.transpose(0, 2, 1)) ** 2).sum(-1)
