"""Rows of new tokens, written down from the formulas, in float64 and one token at a time."""

from __future__ import annotations

import itertools

import numpy as np


def piece_mean(rows, pieces, weights):
    """sum_i w_i row_i / sum_i w_i."""
    return sum(w * rows[p].astype(np.float64) for w, p in zip(weights, pieces)) / sum(weights)


def characters(pieces):
    """Characters of each piece of a text: what each of its bytes is of its character."""
    at = [1 / len(c.encode()) for c in b"".join(pieces).decode() for _ in c.encode()]
    ends = list(itertools.accumulate(len(p) for p in pieces))
    return [sum(at[e - len(p) : e]) for p, e in zip(pieces, ends)]


def omp(target, atoms, k):
    """Choose the atom with the largest |cos| to what is left, fit all chosen by least squares, again; -> (chosen, coefficients)."""
    chosen, fit = [], np.zeros(0)
    for _ in range(k):
        rest = target - (atoms[chosen].T @ fit if chosen else 0)
        if np.linalg.norm(rest) <= 1e-6 * np.linalg.norm(target):
            break
        scores = np.abs(atoms @ rest) / np.linalg.norm(atoms, axis=1)
        scores[chosen] = -1
        chosen.append(int(scores.argmax()))
        fit = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
    return chosen, fit


def sparsemax(z):
    """Martins & Astudillo 2016, algorithm 1: sort, find how many have weight, shift, cut."""
    ordered = np.sort(z)[::-1]
    sums = np.cumsum(ordered)
    k = max(j for j in range(1, len(z) + 1) if 1 + j * ordered[j - 1] > sums[j - 1])
    return np.maximum(z - (sums[k - 1] - 1) / k, 0)


def together(documents, size, contexts, window):
    """Counts of pairs of tokens at most `window` apart, both ways."""
    out = np.zeros((size, len(contexts)))
    for ids in documents:
        for i, j in itertools.permutations(range(len(ids)), 2):
            if abs(i - j) <= window and ids[j] in contexts:
                out[ids[i], contexts.index(ids[j])] += 1
    return out


def ppmi(counts, smooth):
    """max(0, ln p(t, c) / (p(t) p_smooth(c)))."""
    p, context = counts / counts.sum(), counts.sum(0) ** smooth
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(0, np.nan_to_num(np.log(p / (p.sum(1)[:, None] * context / context.sum())), neginf=0, nan=0))
