"""Other ways to rank neurons by language: percentile thresholds, as published and repaired, and differences of means.

Shapes as in `lape`. Histograms come one layer at a time, [neurons, bins, languages] of counts; within a bin the tokens are taken to
lie evenly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from polygraft.analysis.neurons.lape import DIGITS, Scores, lowest

QUANTILE = 0.9
PER_LANGUAGE = 0.00125  # of all neurons for each language, as published (573 of Llama 3.1 8B)

Histograms = Callable[[int], np.ndarray]


def top_each(value: np.ndarray, real: np.ndarray, n: int, floor: float) -> np.ndarray:
    """bool [layers, neurons, languages]: for each language the n neurons of highest `value` above `floor`."""
    kept = real[..., None] & (np.round(value - floor, DIGITS) > 0)
    return np.stack([lowest(np.where(kept[..., k], -value[..., k], np.inf), n) for k in range(value.shape[-1])], -1)


def _ranked(value: np.ndarray, real: np.ndarray, rate: float, floor: float, thresholds: dict[str, float]) -> Scores:
    owned = top_each(value, real, round(rate * int(real.sum())), floor)
    return Scores(np.where(real[..., None], value, -np.inf), owned, thresholds)


def pooled_share(counts: np.ndarray, quantile: float = QUANTILE) -> np.ndarray:
    """float64 [neurons, languages]: share of each language's tokens above the quantile of all languages together.

    Every language weighs the same, so that the mean over languages is exactly 1 - quantile.
    """
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))  # [neurons, bins, languages]
    pooled = shares.mean(-1)
    above = pooled[:, ::-1].cumsum(1)[:, ::-1]  # in this bin or higher
    at = np.maximum(0, (above >= (1 - quantile) - 1e-12).sum(1) - 1)  # the bin that holds the quantile
    rows = np.arange(len(counts))
    beyond = above[rows, at] - pooled[rows, at]
    inside = pooled[rows, at]
    part = np.divide(1 - quantile - beyond, inside, out=np.zeros(len(rows)), where=inside > 0)
    higher = shares[:, ::-1].cumsum(1)[:, ::-1][rows, at] - shares[rows, at]
    return higher + part[:, None] * shares[rows, at]


def share_above(counts: np.ndarray, edges: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """float64 [neurons, languages]: share of the tokens above `threshold` [neurons, languages].

    `edges` are the bins + 1 borders, rising; the outermost may be infinite, and such a bin counts as above if it begins there.
    """
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    low, high = edges[:-1, None], edges[1:, None]
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    t = threshold[:, None, :]  # [neurons, 1, languages] against [bins, 1]
    with np.errstate(invalid="ignore"):
        part = np.where(np.isfinite(high - low), np.clip((high - t) / width, 0, 1), t <= low)
    return (shares * part).sum(1)


def pooled_90p(histograms: Histograms, real: np.ndarray, languages: int, *, rate: float = PER_LANGUAGE,
               quantile: float = QUANTILE) -> Scores:  # fmt: skip
    """How often a neuron exceeds the 90th percentile of all languages together. Ours: the repair of `probability_90p`."""
    value = np.zeros((*real.shape, languages))
    for layer in range(len(real)):
        value[layer] = pooled_share(histograms(layer), quantile)
    return _ranked(value, real, rate, 1 - quantile, {"quantile": quantile})


def probability_90p(histograms: Histograms, edges: np.ndarray, threshold: np.ndarray, real: np.ndarray, *,
                    rate: float = PER_LANGUAGE) -> Scores:  # fmt: skip
    """How often a neuron exceeds its own language's 90th percentile, AS PUBLISHED (arXiv 2503.17456, released code).

    `threshold` float64 [layers, neurons, languages] is the mean over batches of the batch's own 90th percentile. A neuron whose
    activity does not change from batch to batch scores 0.10 in any language: this ranks burstiness, not language.

    Not the released code to the letter: a is taken behind the activation function, a batch is one window, and the percentile and
    the share are read off a histogram of half-octave bins, within which tokens are taken to lie evenly.
    """
    value = np.zeros(threshold.shape)
    for layer in range(len(real)):
        value[layer] = share_above(histograms(layer), edges, threshold[layer])
    return _ranked(value, real, rate, 0.0, {"quantile": QUANTILE})


def mean_difference(total: np.ndarray, square: np.ndarray, tokens: np.ndarray, real: np.ndarray, *,
                    rate: float = PER_LANGUAGE) -> Scores:  # fmt: skip
    """The mean activation in a language less that in the others, over the neuron's standard deviation. Ours.

    `total`, `square` float64 [layers, neurons, languages] are sums of a and a^2 over `tokens` [languages]. The deviation is that of
    all languages together, every language weighing the same, so the value is bounded; a neuron that never changes has 0.
    """
    value = standardised(total, square, tokens)
    return _ranked(value, real, rate, 0.0, {})


def standardised(total: np.ndarray, square: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """float64 [layers, neurons, languages]: (m_k - mean of the other m) / sd; see `mean_difference`."""
    k = len(tokens)
    n = np.maximum(1, tokens)
    means = total / n
    middle = means.mean(-1, keepdims=True)
    second = (square / n).mean(-1, keepdims=True)
    spread = second - middle**2
    sd = np.sqrt(np.where(spread > 1e-12 * second, spread, 0.0))
    apart = (means - middle) * (k / max(1, k - 1))
    return np.divide(apart, sd, out=np.zeros_like(means), where=np.broadcast_to(sd > 0, means.shape))
