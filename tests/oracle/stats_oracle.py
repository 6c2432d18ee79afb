"""Naive statistics: every formula summed or enumerated in float64, nothing vectorised."""

from itertools import product
from math import comb, log, sqrt

Z = 1.959963984540054


def wilson(k, n):
    """The roots of (p - k/n)^2 = z^2 p (1 - p) / n."""
    p = k / n
    a, b, c = 1 + Z * Z / n, -(2 * p + Z * Z / n), p * p
    root = sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def mcnemar(a, b):
    """Probability of a split of the discordant pairs that is no likelier than the one seen."""
    x, y = sum(p and not q for p, q in zip(a, b)), sum(q and not p for p, q in zip(a, b))
    n = x + y
    return min(1.0, sum(comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(x - n / 2)) / 2**n)


def bootstrap_draws(rows):
    """sum(first column) / sum(second) of every one of the n^n resamples of a tiny sample."""
    return [sum(rows[i][0] for i in pick) / sum(rows[i][1] for i in pick) for pick in product(range(len(rows)), repeat=len(rows))]


def holm(p):
    """Smallest level at which the step-down procedure rejects hypothesis i: a maximum over all that come before it."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    return [max(min(1.0, (len(p) - r) * p[j]) for r, j in enumerate(order[: order.index(i) + 1])) for i in range(len(p))]


def bits_per_byte(token_nats, text):
    return sum(token_nats) / (log(2) * len(text.encode()))


def mcc(cells):
    tp, fp, fn, tn = cells
    return (tp * tn - fp * fn) / sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def variance(x):
    m = sum(x) / len(x)
    return sum((v - m) ** 2 for v in x) / (len(x) - 1)


def two_level_se(a, b):
    """Crossed random effects of two tables [seeds][items]: items of the mean difference, plus each table's seeds without noise."""
    s, n = len(a), len(a[0])
    items = [sum(b[k][i] - a[k][i] for k in range(s)) / s for i in range(n)]
    total = variance(items) / n
    for table in (a, b):
        means = [sum(row) / n for row in table]
        column = [sum(row[i] for row in table) / s for i in range(n)]
        rest = [table[k][i] - means[k] - column[i] + sum(means) / s for k in range(s) for i in range(n)]
        noise = sum(r * r for r in rest) / ((s - 1) * (n - 1)) / n
        total += max(variance(means) - noise, 0.0) / s
    return sqrt(total)


def put_together(parts, worst, least):
    """MOVER for a mean of (value, low, high); for the smallest, the widest of the parts; nothing beyond `least` and 1."""
    values, n = [v for v, _, _ in parts], len(parts)
    below, above = [v - low for v, low, _ in parts], [high - v for v, _, high in parts]
    if worst:
        value, down, up = min(values), max(below), max(above)
    else:
        value, down, up = sum(values) / n, sqrt(sum(x * x for x in below)) / n, sqrt(sum(x * x for x in above)) / n
    return (least if value - down < least else value - down), (1.0 if value + up > 1.0 else value + up)
