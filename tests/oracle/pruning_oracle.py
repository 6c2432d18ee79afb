"""Pruning naively: numpy float64, one weight or one pair at a time, straight from the formulas. Masks are True where a weight goes."""

import numpy as np


def rows(score, sparsity):
    """Wanda's comparison group: the int(in * sparsity) smallest of every row, by a stable sort."""
    gone = np.zeros(score.shape, bool)
    for i, row in enumerate(score):
        gone[i, np.argsort(row, kind="stable")[: int(len(row) * sparsity)]] = True
    return gone


def whole(score, sparsity):
    return rows(score.reshape(1, -1), sparsity).reshape(score.shape)


def groups(score, n, m):
    """N of M neighbours are kept."""
    return np.concatenate([rows(score[:, a : a + m], (m - n) / m + 1e-12) for a in range(0, score.shape[1], m)], 1)


def wanda(w, squares, tokens=1.0):
    return np.abs(w) * np.sqrt(squares / tokens)


def ria(w, squares, tokens=1.0, power=0.5):
    a = np.abs(w)
    return (a / a.sum(0) + a / a.sum(1, keepdims=True)) * np.sqrt(squares / tokens) ** power


def variant(score, alpha):
    """`use_variant` at one alpha: in each row what, summed from the smallest, is at most alpha of the row's sum."""
    gone = np.zeros(score.shape, bool)
    for i, row in enumerate(score):
        order = np.argsort(row, kind="stable")
        gone[i, order[np.cumsum(row[order]) <= alpha * row.sum()]] = True
    return gone


def sparsegpt(w, h, choose, damping=0.01, block=128):
    """Published column by column: `choose(score of the block's columns, first column)` says what goes, None at columns that it
    settles later. Returns (gone, new weights)."""
    w, n = w.astype(np.float64).copy(), w.shape[1]
    h = h + damping * np.diag(h).mean() * np.eye(n)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    gone = np.zeros(w.shape, bool)
    for start in range(0, n, block):
        stop = min(start + block, n)
        for i in range(start, stop):
            found = choose(w[:, i:stop] ** 2 / np.diag(u)[i:stop] ** 2, i, start)
            if found is not None:
                gone[:, i : i + found.shape[1]] = found
            q = np.where(gone[:, i], 0, w[:, i])
            w[:, i:] -= np.outer((w[:, i] - q) / u[i, i], u[i, i:])
            w[:, i] = q
    return gone, w


def error(w, gone, gram):
    d = w * gone
    return np.einsum("ij,jk,ik->i", d, gram, d)


def one_swap(w, gone, gram, m=0):
    """The best exchange in one row by trying all of them: (new gone, gain); gone itself where none gains."""
    best, least = gone, 0.0
    before = error(w[None], gone[None], gram)[0]
    for p in np.flatnonzero(~gone):
        for u in np.flatnonzero(gone):
            if m and p // m != u // m:
                continue
            new = gone.copy()
            new[p], new[u] = True, False
            gain = before - error(w[None], new[None], gram)[0]
            if gain > least:
                best, least = new, gain
    return best, least


def owl(ratios, sparsity, spread):
    """The authors' code: equal layers, nothing clipped."""
    d = (ratios - ratios.min()) / (ratios.max() - ratios.min()) * 2 * spread
    return 1 - (d - d.mean() + (1 - sparsity))


def worst_swaps(w, gone, grams, stages, rate, m=0):
    """Swaps in stages on sum_g share_g G_g / (what W gives in g); shares follow losses; (best mask, the largest loss behind each)."""
    gs = [g / error(w, np.ones_like(gone), g).sum() for g in grams]
    shares, gone = np.full(len(gs), 1 / len(gs)), gone.copy()
    tried = [(gone.copy(), max(error(w, gone, g).sum() for g in gs))]
    for n in stages:
        mixed = sum(s * g for s, g in zip(shares, gs))
        for i, row in enumerate(w):
            for _ in range(n):
                new, gain = one_swap(row, gone[i], mixed, m)
                if gain <= 1e-6 * error(row[None], gone[i][None], mixed)[0]:
                    break
                gone[i] = new
        e = np.array([error(w, gone, g).sum() for g in gs])
        tried.append((gone.copy(), e.max()))
        shares = shares * np.exp(rate * (e / e.mean() - 1))
        shares /= shares.sum()
    return min(tried, key=lambda t: t[1])[0], [x for _, x in tried]
