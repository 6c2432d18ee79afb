"""Losses of examples and the distance of two models' next-token distributions, from the formulas, in float64 with loops."""

import numpy as np


def log_softmax(logits):
    top = max(float(x) for x in logits)
    total = sum(np.exp(float(x) - top) for x in logits)
    return np.array([float(x) - top - np.log(total) for x in logits])


def nats(logits, labels):
    """What one example costs: logits [t, v], labels [t]; position i predicts token i + 1. -> (nats, tokens)"""
    scored = [i for i in range(len(labels) - 1) if labels[i + 1] != -100]
    return -sum(log_softmax(logits[i])[labels[i + 1]] for i in scored), len(scored)


def kl(start, now, mask):
    """Mean over the real tokens of sum_v p_start (log p_start - log p_now); start, now [b, t, v], mask [b, t]."""
    found = []
    for b in range(len(mask)):
        for t in range(len(mask[b])):
            if mask[b][t]:
                one, two = log_softmax(start[b][t]), log_softmax(now[b][t])
                found.append(sum(np.exp(x) * (x - y) for x, y in zip(one, two)))
    return sum(found) / len(found)
