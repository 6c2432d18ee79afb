"""What a study measures, written from the formulas in float64, one case at a time."""

import numpy as np


def snr(x, y):
    return 10 * np.log10(np.mean(x.astype(np.float64) ** 2) / np.mean((x.astype(np.float64) - y) ** 2))


def iou(a, b):
    return np.logical_and(a, b).sum() / np.logical_or(a, b).sum()


def subspace_errors(h, pruned, basis):
    projection = basis @ basis.T
    e, rest = h - pruned, np.eye(len(basis)) - projection
    return tuple(np.sum((p @ e.T) ** 2) / np.sum((p @ h.T) ** 2) for p in (projection, rest))


def entropy(p):
    q = p / p.sum() if p.sum() else p
    return -sum(x * np.log(x) for x in q if x > 0)


def bits(tops, bottoms):
    """Mean over seeds of nats / (ln 2 bytes); tops [documents, seeds]."""
    return np.mean([tops[:, s].sum() / (np.log(2) * bottoms[:, s].sum()) for s in range(tops.shape[1])])
