"""Naive oracles of what makes models smaller: block influence, REAP, low bits. float64, loops, from the formulas."""

import numpy as np


def block_influence(before, behind):
    """1 - mean over tokens of cos(before, behind): [tokens, hidden] each (ShortGPT, eq. 1)."""
    total = 0.0
    for x, y in zip(before, behind, strict=True):
        total += 1 - float(x @ y) / float(np.sqrt(x @ x) * np.sqrt(y @ y))
    return total / len(before)


def turned(before, behind):
    """mean over tokens of arccos(cos) / pi (Gromov et al.)."""
    angles = [np.arccos(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1)) for x, y in zip(before, behind, strict=True)]
    return float(np.mean(angles)) / np.pi


def reap(x, gates, chosen, gate, up, down, act):
    """Per expert: mean over its tokens of g |f(x)|; x [tokens, hidden], gates and chosen [tokens, k], matrices per expert."""
    out = np.zeros(len(gate))
    for j in range(len(gate)):
        found = []
        for t in range(len(x)):
            for k in range(chosen.shape[1]):
                if chosen[t, k] == j:
                    f = down[j] @ (act(gate[j] @ x[t]) * (up[j] @ x[t]))
                    found.append(gates[t, k] * np.sqrt(f @ f))
        out[j] = np.mean(found) if found else 0.0
    return out


def nearest(w, bits, group):
    """Every group of a row [out, in] rounded to the nearest of 2^bits even steps between its least and its largest weight."""
    out = w.copy()
    for i in range(len(w)):
        for first in range(0, w.shape[1], group):
            some = w[i, first : first + group]
            step = (some.max() - some.min()) / (2**bits - 1)
            out[i, first : first + group] = some if step == 0 else some.min() + np.round((some - some.min()) / step) * step
    return out
