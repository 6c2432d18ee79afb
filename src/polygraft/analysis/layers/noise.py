"""How much of a deviation other documents would give as well: its noise, and the same figures of resampled documents.

The text of each language lies in groups of documents. A squared deviation of estimated shares is too large by their sampling
variance, in every layer and even for one language beside itself; the bootstrap over groups adds the same variance once more.
Groups are those that hold text in every language (`Groups.of(..., level=True)`).
"""

from __future__ import annotations

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.groups import Groups
from polygraft.analysis.layers.deviation import centred, msd_count, msd_neuron

DRAWS, BLOCK = 200, 25


def groups_of(activity: Activity, name: str) -> Groups | None:
    """The groups of an array that hold text in every language; None where fewer than two do, which tell nothing of their spread."""
    if any(name not in activity.of(g) for g in activity.languages):
        return None
    found = Groups.of(activity, name, level=True)
    return found if found.sizes[0] > 1 else None


def errors(groups: Groups) -> np.ndarray:
    """float64 [languages, groups, width] of sums [groups, width]: e[k,g,j] = (sum - p tokens) / tokens_k less its mean over k.

    The linearised share of group g in the error of the mean p[j,k] (Cochran 1977, 6.4). Centring over languages takes out what
    parallel texts have in common and costs nothing where texts are independent (ours).
    """
    e = np.stack([(s - s.sum(0) / t.sum() * t[:, None]) / t.sum() for s, t in zip(groups.sums, groups.tokens)])
    return e - e.mean(0)


def noise(groups: Groups, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `msd_neuron` and `msd_count` of languages that do not differ are expected to be: two float64 [layers].

    mean_jk G/(G-1) sum_g e[k,g,j]^2, and the same of the mean of e over the neurons of a layer.
    """
    g = groups.sizes[0]
    neuron, count = np.zeros(len(real)), np.zeros(len(real))
    for layer, own in enumerate(real):
        e = errors(groups.at(layer))[..., own]
        width = max(1, e.shape[-1])
        neuron[layer] = (e**2).sum() / (len(e) * width)
        count[layer] = ((e.sum(-1) / width) ** 2).sum() / len(e)
    return neuron * g / (g - 1), count * g / (g - 1)


def resampled(groups: Groups, real: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`msd_neuron` and `msd_count` of resampled groups of documents, two float64 [draws, layers].

    Parallel texts are drawn together, others each language by itself.
    """
    weights = groups.draws(draws, [seed, groups.sizes[0]])
    neuron, count = np.zeros((draws, len(real))), np.zeros((draws, len(real)))
    for layer, own in enumerate(real):
        at = groups.at(layer)
        for start in range(0, draws, BLOCK):
            rows = slice(start, start + BLOCK)
            p = np.moveaxis(at.drawn([w[rows] for w in weights])[..., own], 1, -1)
            inside = np.ones((1, p.shape[1]), bool)
            neuron[rows, layer], count[rows, layer] = msd_neuron(p, inside), msd_count(p, inside)
    return neuron, count


def apart(means: np.ndarray) -> np.ndarray:
    """mean_k |m_k - m|^2 of mean vectors [..., width, languages]: what the shift and the stream's share rest on."""
    return np.asarray((centred(means) ** 2).sum(-2).mean(-1))


def vectors(groups: Groups, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of mean vectors at every depth: `apart` [depths], its noise, and of resamples [draws, depths] `apart` and mean_k |m_k|^2."""
    weights, g = groups.draws(draws, [seed, groups.sizes[0]]), groups.sizes[0]
    depths = groups.sums[0].shape[1]
    value, extra = np.zeros(depths), np.zeros(depths)
    drawn, size = np.zeros((draws, depths)), np.zeros((draws, depths))
    for depth in range(depths):
        at = groups.at(depth)
        value[depth] = apart(at.means)
        extra[depth] = (errors(at) ** 2).sum() / len(weights) * g / (g - 1)
        for start in range(0, draws, BLOCK):
            rows = slice(start, start + BLOCK)
            means = np.moveaxis(at.drawn([w[rows] for w in weights]), 1, -1)
            drawn[rows, depth], size[rows, depth] = apart(means), (means**2).sum(-2).mean(-1)
    return value, extra, drawn, size
