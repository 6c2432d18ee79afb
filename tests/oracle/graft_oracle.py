"""Naive divergence of next-token distributions, in float64, one position at a time."""

import numpy as np

from oracle.bpb_oracle import log_softmax, logits


def divergence(reference, model, row, scored):
    """sum over the last `scored` tokens of KL(reference || model), each before the token, in nats."""
    p, q = (log_softmax(logits(m, row[:-1]))[-scored:] for m in (reference, model))
    return float((np.exp(p) * (p - q)).sum())
