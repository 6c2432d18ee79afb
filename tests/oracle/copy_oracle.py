"""Naive copying and ranking: matching blocks by trying every pair of starts, precision by sorting, USE points by counting."""

import numpy as np


def matching(a, b):
    """Ratcliff and Obershelp 1988: the longest common block, the earliest of several, then the same left and right of it."""
    table = np.zeros((len(a) + 1, len(b) + 1))
    for i in range(len(a)):
        for j in range(len(b)):
            table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else 0
    size = int(table.max())
    if size == 0:
        return 0
    starts = [(int(i) - size, int(j) - size) for i, j in zip(*np.nonzero(table == size))]
    i, j = min(starts)
    return size + matching(a[:i], b[:j]) + matching(a[i + size:], b[j + size:])


def r_precision(nats, relevant):
    """How many of the relevant are among the first R, an irrelevant one first where two are equal."""
    order = sorted((-x, k in relevant) for k, x in enumerate(nats))
    return float(np.mean([is_relevant for _, is_relevant in order[:len(relevant)]]))


def subject_then_category(right, subjects, category_of):
    """Mean over the items of a subject, over the subjects of a category, over the categories."""
    by_subject = {s: np.mean([r for r, t in zip(right, subjects) if t == s]) for s in set(subjects)}
    categories = {category_of[s] for s in by_subject}
    return float(np.mean([np.mean([v for s, v in by_subject.items() if category_of[s] == c]) for c in sorted(categories)]))
