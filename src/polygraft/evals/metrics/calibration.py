"""Does a model know what it knows: is it right as often as its probabilities say?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric
from polygraft.evals.metrics.choice import right
from polygraft.result import Table

BINS = 10  # of equal width over confidence 0 to 1; a confidence on an edge is in the bin below it


def probabilities(response: Response) -> np.ndarray:
    """Softmax over the log-likelihoods of the choices, float64 [choices]."""
    nats = np.array(response.nats, np.float64)
    weights = np.exp(nats - nats.max())
    return weights / weights.sum()


def binned(item: Item, response: Response) -> Sequence[float]:
    """Per bin (confidence, right, 1) of the likeliest choice, in its bin; the others are 0. One choice only says nothing."""
    out = np.zeros((BINS, 3))
    if len(response.nats) > 1:
        confidence = float(probabilities(response).max())
        out[min(BINS, max(1, int(np.ceil(confidence * BINS)))) - 1] = confidence, right(item, response)[0], 1.0
    return tuple(float(x) for x in out.ravel())


def ece(sums: np.ndarray) -> np.ndarray:
    """Sums per bin [..., 30] -> expected calibration error [...] (Guo et al. 2017): mean over items of |accuracy - confidence|
    of their bin."""
    bins = sums.reshape(*sums.shape[:-1], BINS, 3)
    n = bins[..., 2].sum(-1)
    gaps = np.abs(bins[..., 1] - bins[..., 0]).sum(-1)
    return np.divide(gaps, n, out=np.zeros(n.shape), where=n > 0)


def brier(item: Item, response: Response) -> Sequence[float]:
    """(squared distance of the probabilities from the right answer, 1): 0 is certain and right, 2 is certain and wrong."""
    if len(response.nats) < 2:
        return 0.0, 0.0
    p = probabilities(response)
    p[item.target] -= 1.0
    return float(p @ p), 1.0


def reliability(sums: np.ndarray, title: str) -> Table:
    """How sure and how right, bin by bin, from a model's summed columns [30]; empty bins are left out."""
    bins = sums.reshape(BINS, 3)
    rows = tuple((f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}", int(n), 100 * c / n, 100 * r / n, 100 * (r - c) / n)
                 for i, (c, r, n) in enumerate(bins.tolist()) if n)
    return Table(title, ("confidence", "items", "mean confidence, %", "right, %", "gap, points"), rows,
                 "a gap below 0: the model is surer than it is right")


METRICS: tuple[Metric, ...] = (
    Metric("calibration error", "%", f"expected calibration error over {BINS} bins of equal width: how far confidence is from "
           "being right; on few items it looks larger than it is", binned, ece, higher_is_better=False),
    Metric("brier", "", "squared distance of the choices' probabilities from the right answer, 0 to 2, mean over items", brier,
           higher_is_better=False),
)
