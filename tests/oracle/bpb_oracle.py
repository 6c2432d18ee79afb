"""Naive likelihoods: one sequence at a time, all logits, a float64 softmax."""

import numpy as np


def log_softmax(logits):
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(model, ids):
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(ids)])).logits[0].float().numpy()


def continuation(model, prefix, answer):
    """(nats of `answer` after `prefix`, whether greedy decoding would give it)."""
    rows = log_softmax(logits(model, prefix + answer))[len(prefix) - 1 : -1]
    return sum(row[t] for row, t in zip(rows, answer)), all(row.argmax() == t for row, t in zip(rows, answer))


def windowed(model, ids, context, window, stride):
    """Total nats of ids[context:], each token predicted once, from the last window that was opened for it."""
    total, done = 0.0, context
    stop = min(len(ids), window)
    while done < len(ids):
        start = max(0, stop - window)
        rows = log_softmax(logits(model, ids[start:stop]))
        total -= sum(rows[t - start - 1][ids[t]] for t in range(done, stop))
        done, stop = stop, min(len(ids), stop + stride)
    return total
