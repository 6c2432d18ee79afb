"""How much of the stream is about the language: LSAR is fitted on one half of the document groups and measured on the other.

All definitions are ours. A share in one subspace means something only beside the share that any subspace of that rank has: r / D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.analysis.subspace.angles import overlap
from polygraft.analysis.subspace.groups import Groups, ratio
from polygraft.analysis.subspace.lsar import Subspace, lsar


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
    """Fit on each half of `groups`, measure on the other, and bootstrap the measured half's groups with the basis fixed."""
    halves = (groups.half(0), groups.half(1))
    spaces = [lsar(h.means, rank) for h in halves]
    once = [_measured(spaces[1 - i], halves[i], [np.ones((1, len(t))) for t in halves[i].tokens]) for i in (0, 1)]
    many = [_measured(spaces[1 - i], halves[i], halves[i].draws(draws, seed + i)) for i in (0, 1)]
    (specific, language, content), spread = ([(a + b) / 2 for a, b in zip(*pair)] for pair in (once, many))
    return Energy(specific[0], spread[0], float(language[0]), spread[1], float(content[0]), spread[2],
                  overlap(spaces[0].basis, spaces[1].basis), max(s.rank for s in spaces) / len(spaces[0].mu))


def _measured(space: Subspace, held: Groups, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(specific [N, K], language [N], content [N]) of bootstrap samples of the held-out groups, `weights[k]` [N, G_k]."""
    means = held.drawn(weights)
    specific = ratio(_inside(means, space), (means**2).sum(-1))
    between = means - means.mean(1, keepdims=True)
    language = ratio(_inside(between, space).sum(1), (between**2).sum((1, 2)))
    inside = total = np.zeros(len(means))
    for k, (items, w) in enumerate(zip(held.items, weights)):
        centre = items.mean(0)  # large common parts would eat the digits of the small differences
        x, m = items - centre, means[:, k] - centre
        inside = inside + _spread(x @ space.basis, m @ space.basis, w)
        total = total + _spread(x, m, w)
    return specific, language, ratio(inside, total)


def _spread(x: np.ndarray, m: np.ndarray, w: np.ndarray) -> np.ndarray:
    """sum_g w[n, g] ||x_g - m_n||^2 for x [G, d], m [N, d]: [N]."""
    return np.maximum(w @ (x**2).sum(1) - 2 * ((w @ x) * m).sum(1) + w.sum(1) * (m**2).sum(1), 0)


def _inside(x: np.ndarray, space: Subspace) -> np.ndarray:
    return ((x @ space.basis) ** 2).sum(-1)
