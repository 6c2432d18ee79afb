"""Naive subspaces: the published pinv step, sums written out, every angle from a definition and not from a decomposition of ours."""

import numpy as np


def lsar(m, r):
    """The published steps: centre, best rank-r fit, the pseudo-inverse's direction, singular vectors of what is left."""
    w = m.mean(axis=1, keepdims=True)
    u, s, vt = np.linalg.svd(m - w)
    b = w + u[:, :r] @ np.diag(s[:r]) @ vt[:r]
    mu = np.linalg.pinv(b).T @ np.ones(m.shape[1])
    mu = mu / (mu @ mu)
    return mu, np.linalg.svd(b - mu[:, None])[0][:, :r]


def energies(fit, held, r):
    """(specific by language, language, content) of held-out groups [K][G][D] with as many tokens each, one loop per sum."""
    basis = lsar(np.stack([np.mean(x, axis=0) for x in fit], axis=1), r)[1]

    def inside(v):
        return sum(float(v @ b) ** 2 for b in basis.T)

    means = [np.mean(x, axis=0) for x in held]
    middle = sum(means) / len(means)
    language = sum(inside(m - middle) for m in means) / sum(float((m - middle) @ (m - middle)) for m in means)
    within = [g - m for x, m in zip(held, means) for g in x]
    return [inside(m) / float(m @ m) for m in means], language, sum(map(inside, within)) / sum(float(v @ v) for v in within)


def cosines(a, b):
    """Cosines of principal angles, from the eigenvalues of the product of the two projectors."""
    values = np.linalg.eigvals(a @ a.T @ b @ b.T).real
    return np.sqrt(np.clip(sorted(values, reverse=True)[: min(a.shape[1], b.shape[1])], 0, 1))


def ridge(train, label, k, test, part):
    """Primal ridge regression onto one column per class about the mean of the class means."""
    centre = sum(train[label == c].mean(axis=0) for c in range(k)) / k
    x, y = train - centre, np.eye(k)[label] - 1 / k
    lam = part * (x**2).sum() / len(x)
    return (test - centre) @ np.linalg.inv(x.T @ x + lam * np.eye(x.shape[1])) @ x.T @ y


def silhouette(distance, label):
    out = []
    for i, c in enumerate(label):
        to = {k: [distance[i][j] for j in range(len(label)) if label[j] == k and j != i] for k in set(label)}
        a, b = np.mean(to[c]) if to[c] else None, min(np.mean(v) for k, v in to.items() if k != c)
        out.append(0.0 if a is None or max(a, b) == 0 else (b - a) / max(a, b))
    return out
