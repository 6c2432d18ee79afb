"""How much the firing of neurons differs between languages, layer by layer: mean squared deviation (MSD) and overlap.

Our reconstruction of the layer choice of SLAM (arXiv 2501.03681), whose code releases the chosen layers and no formula. Throughout
`p` is float64 [layers, neurons, languages], the share of a language's tokens at which a neuron's activation is > 0; `real` is bool
[layers, neurons] and False where a layer has fewer neurons than the widest. Entries of the attention's output are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Figure = Callable[[np.ndarray, np.ndarray], np.ndarray]


def centred(p: np.ndarray) -> np.ndarray:
    """`p` less its mean over languages (the last axis). Exactly 0 where all languages are equal, which p - mean(p) is not."""
    d = p - p[..., :1]
    return d - d.mean(-1, keepdims=True)


def by_language(p: np.ndarray, real: np.ndarray) -> np.ndarray:
    """float64 [layers, languages]: mean_j (p[l,j,k] - mean_k' p[l,j,k'])^2, whose mean over languages is `msd_neuron`."""
    total = np.where(real[..., None], centred(p) ** 2, 0.0).sum(1)
    return total / np.maximum(1, real.sum(1))[:, None]


def msd_neuron(p: np.ndarray, real: np.ndarray) -> np.ndarray:
    """float64 [layers]: mean_j mean_k (p[l,j,k] - mean_k' p[l,j,k'])^2. Ours; the default."""
    return by_language(p, real).mean(-1)


def active(p: np.ndarray, real: np.ndarray) -> np.ndarray:
    """float64 [layers, languages]: N[l,k] / I, the mean share of a layer's neurons that a token switches on."""
    return np.where(real[..., None], p, 0.0).sum(1) / np.maximum(1, real.sum(1))[:, None]


def msd_count(p: np.ndarray, real: np.ndarray) -> np.ndarray:
    """float64 [layers]: mean_k (N[l,k]/I - mean_k' N[l,k']/I)^2. Ours; blind to neurons that change places."""
    d = active(centred(p), real)  # sums of what differs only, so that equal languages give exactly 0
    return ((d - d.mean(-1, keepdims=True)) ** 2).mean(-1)


def overlap(p: np.ndarray, real: np.ndarray, tau: float, reference: int) -> np.ndarray:
    """float64 [layers, languages]: Jaccard index of A[l,k] = {j: p[l,j,k] > tau} with that of the reference language.

    1 where neither language has such a neuron: nothing differs there.
    """
    a = (p > tau) & real[..., None]
    other = a[..., reference, None]
    both, either = (a & other).sum(1), (a | other).sum(1)
    return np.where(either == 0, 1.0, both / np.maximum(1, either))


def shift(means: np.ndarray) -> np.ndarray:
    """float64 [layers]: mean_k |m_k - mean m|^2 / mean_k |m_k|^2 of mean vectors [layers, width, languages], 0 to 1."""
    apart, size = (centred(means) ** 2).sum(1).mean(-1), (means**2).sum(1).mean(-1)
    return np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)


def without_each(p: np.ndarray, real: np.ndarray, figure: Figure = msd_neuron) -> np.ndarray:
    """float64 [languages, layers]: the figure with language k left out; needs three languages or more."""
    return np.stack([figure(np.delete(p, k, axis=-1), real) for k in range(p.shape[-1])])


def of_pairs(p: np.ndarray, real: np.ndarray, figure: Figure = msd_neuron) -> dict[tuple[int, int], np.ndarray]:
    """The figure of every pair of languages: a quarter of their mean squared difference."""
    k = p.shape[-1]
    return {(a, b): figure(p[..., [a, b]], real) for a in range(k) for b in range(a + 1, k)}
