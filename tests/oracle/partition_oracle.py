"""Simultaneous partition SFT from its definition: two AdamW optimisers (Loshchilov & Hutter 2019, 1711.05101, algorithm 2), each with
its own weights, its own moments and its own count of steps, taking turns on one model."""

import numpy as np

BETAS, EPS = (0.9, 0.999), 1e-8


def trained(values, masks, gradient, rates, decay, clip, decayed):
    """values: name -> float64 array; masks: for each side name -> 0 or 1, its weights; gradient(values, step) -> name -> array."""
    values = {k: v.copy() for k, v in values.items()}
    moments = [{k: (np.zeros_like(values[k]), np.zeros_like(values[k])) for k in mine} for mine in masks]
    counts = [0 for _ in masks]
    for step, rate in enumerate(rates):
        side = step % len(masks)
        grads = {k: g * masks[side][k] for k, g in gradient(values, step).items() if k in masks[side]}
        norm = np.sqrt(sum((g * g).sum() for g in grads.values()))
        counts[side] += 1
        for k, g in grads.items():
            g = g * min(1.0, clip / (norm + 1e-6))
            m, v = moments[side][k]
            m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
            moments[side][k] = m, v
            m_hat, v_hat = m / (1 - BETAS[0] ** counts[side]), v / (1 - BETAS[1] ** counts[side])
            new = values[k] * (1 - rate * decay * (k in decayed)) - rate * m_hat / (np.sqrt(v_hat) + EPS)
            values[k] = np.where(masks[side][k], new, values[k])
    return values
