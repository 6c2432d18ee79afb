"""How much of a deviation other documents would give as well: its noise, its interval, and which layers would have been chosen.

The text of each language lies in groups of documents. A squared deviation of estimated shares is too large by their sampling
variance, in every layer and even for one language beside itself; the bootstrap over groups adds the same variance once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft import stats
from polygraft.activity import Activity
from polygraft.analysis.layers.deviation import msd_count, msd_neuron

DRAWS, BLOCK = 200, 25


@dataclass(frozen=True)
class Groups:
    """`positive[k]` int [groups, layers, neurons] and `tokens` float64 [groups, languages]; `parallel`: group g is one text."""

    positive: tuple[np.ndarray, ...]
    tokens: np.ndarray
    real: np.ndarray
    parallel: bool

    @classmethod
    def of(cls, activity: Activity, languages: Sequence[str]) -> Groups | None:
        """The groups that hold text in every language; None where fewer than two do, which tell nothing of their spread."""
        tokens = [activity.array(g, "group.tokens") for g in languages]
        n = min(map(len, tokens))
        table = np.stack([t[:n] for t in tokens], -1).astype(np.float64)
        kept = (table > 0).all(-1)
        if kept.sum() < 2:
            return None
        positive = tuple(activity.array(g, "group.positive")[:n][kept] for g in languages)
        return cls(positive, table[kept], activity.real, activity.parallel)

    def layer(self, layer: int) -> np.ndarray:
        """float64 [languages, groups, neurons] of one layer, its own neurons only."""
        own = self.real[layer]
        return np.stack([p[:, layer, own] for p in self.positive]).astype(np.float64)


def noise(groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """What `msd_neuron` and `msd_count` of languages that do not differ are expected to be: two float64 [layers].

    With e[g,j,k] = (positive - p tokens) / tokens_k, the linearised share of group g in the error of p[j,k]:
    mean_jk G/(G-1) sum_g (e[g,j,k] - mean_k' e[g,j,k'])^2. Centring over languages takes out what parallel texts have in common
    and costs nothing where texts are independent (Cochran 1977, 6.4 for one ratio; the deviation's is ours).
    """
    g, k = groups.tokens.shape
    total = groups.tokens.sum(0)
    neuron, count = np.zeros(len(groups.real)), np.zeros(len(groups.real))
    for layer in range(len(groups.real)):
        x = groups.layer(layer)
        p = x.sum(1) / total[:, None]
        e = (x - p[:, None] * groups.tokens.T[..., None]) / total[:, None, None]
        e -= e.mean(0)
        width = max(1, x.shape[-1])
        neuron[layer] = (e**2).sum() / (k * width)
        count[layer] = ((e.sum(-1) / width) ** 2).sum() / k
    return neuron * g / (g - 1), count * g / (g - 1)


def resampled(groups: Groups, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`msd_neuron` and `msd_count` of resampled groups of documents, two float64 [draws, layers].

    Parallel texts are drawn together, others each language by itself.
    """
    g, k = groups.tokens.shape
    rng = np.random.default_rng([seed, g])
    shared = stats.counts(rng, g, draws)
    drawn = [shared if groups.parallel or i == 0 else stats.counts(rng, g, draws) for i in range(k)]
    neuron, count = np.zeros((draws, len(groups.real))), np.zeros((draws, len(groups.real)))
    for layer in range(len(groups.real)):
        x = groups.layer(layer)
        real = np.ones((1, x.shape[-1]), bool)
        for start in range(0, draws, BLOCK):
            rows = slice(start, start + BLOCK)
            w = [d[rows] for d in drawn]
            p = np.stack([w[i] @ x[i] / (w[i] @ groups.tokens[:, i])[:, None] for i in range(k)], -1)
            neuron[rows, layer], count[rows, layer] = msd_neuron(p, real), msd_count(p, real)
    return neuron, count


def interval(value: np.ndarray, draws: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Basic bootstrap interval [layers] of a deviation free of noise: 2 value - quantiles of the draws (Davison & Hinkley 1997).

    A draw is too large by the noise that the value has as well, and by its own: the difference holds neither.
    """
    low, high = np.quantile(draws, [(1 + level) / 2, (1 - level) / 2], axis=0)
    return 2 * value - low, 2 * value - high


