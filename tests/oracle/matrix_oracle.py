"""The effect matrix from its definition, one cell and one resample at a time."""

from itertools import permutations


def rate(nats, sizes):
    return sum(float(x) for x in nats) / sum(float(s) for s in sizes)


def effect(plain, edited, sizes):
    """Change of nats per unit of one cell."""
    return rate(edited, sizes) - rate(plain, sizes)


def specific(plain, edited, controls, sizes):
    """The edit's effect minus the mean effect of its controls."""
    return effect(plain, edited, sizes) - sum(effect(plain, c, sizes) for c in controls) / len(controls)


def gap(square):
    """Mean of the diagonal minus mean of the rest."""
    k = range(len(square))
    rest = [square[i][j] for i in k for j in k if i != j]
    return sum(square[i][i] for i in k) / len(square) - sum(rest) / len(rest)


def order_p(square):
    """Share of the orders of the rows whose trace is at least the observed one."""
    k = range(len(square))
    traces = [sum(square[order[j]][j] for j in k) for order in permutations(k)]
    return sum(t >= sum(square[j][j] for j in k) - 1e-12 for t in traces) / len(traces)
