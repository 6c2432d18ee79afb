"""Calibration error by walking over the bins (Guo et al. 2017), probabilities by the sum of exponentials."""

import math


def softmax(nats):
    top = max(nats)
    total = sum(math.exp(x - top) for x in nats)
    return [math.exp(x - top) / total for x in nats]


def ece(items, bins=10):
    """items: (log-likelihoods, place of the right choice). A tie for the likeliest is wrong."""
    found = []
    for nats, target in items:
        others = [x for i, x in enumerate(nats) if i != target]
        found.append((max(softmax(nats)), float(nats[target] > max(others))))
    total = 0.0
    for b in range(bins):
        inside = [(c, r) for c, r in found if b / bins < c <= (b + 1) / bins]
        if inside:
            total += abs(sum(r for _, r in inside) - sum(c for c, _ in inside))
    return total / len(found)


def brier(items):
    return sum(sum((p - (i == t)) ** 2 for i, p in enumerate(softmax(n))) for n, t in items) / len(items)
