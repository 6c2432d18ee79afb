"""AdamW in float64, one element after the other's formula: Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2."""

import numpy as np


def adamw(weights, gradients, masks, *, lr, decay, clip=None, betas=(0.9, 0.999), eps=1e-8):
    """Update only what the boolean `masks` select, over the steps of `gradients(weights) -> arrays` called len(lr) times."""
    w = [np.array(x, np.float64) for x in weights]
    m, v = [np.zeros_like(x) for x in w], [np.zeros_like(x) for x in w]
    for t, rate in enumerate(lr, 1):
        g = [np.where(mask, np.asarray(x, np.float64), 0.0) for x, mask in zip(gradients(w), masks)]
        norm = np.sqrt(sum((x**2).sum() for x in g))
        scale = min(1.0, clip / (norm + 1e-6)) if clip is not None else 1.0
        for i, mask in enumerate(masks):
            m[i] = betas[0] * m[i] + (1 - betas[0]) * scale * g[i]
            v[i] = betas[1] * v[i] + (1 - betas[1]) * (scale * g[i]) ** 2
            step = m[i] / (1 - betas[0] ** t) / (np.sqrt(v[i] / (1 - betas[1] ** t)) + eps)
            w[i] = np.where(mask, w[i] - rate * decay * w[i] - rate * step, w[i])
    return w
