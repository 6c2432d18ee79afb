"""Can the language be read off a state? A linear probe with held-out text, and the silhouette, at the mean states of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.analysis.groups import Groups
from polygraft.stats import wilson

RIDGE = 1e-2  # of the mean squared length of the centred states that the probe is fitted on
FOLDS = 5


@dataclass(frozen=True)
class Separation:
    """At one depth: held-out accuracy of the probe in total and by language [K], silhouette in [-1, 1], and their chance levels."""

    accuracy: float
    low: float
    high: float
    by_language: np.ndarray
    silhouette: float
    silhouette_draws: np.ndarray
    silhouette_chance: float


def separation(groups: Groups, draws: int, seed: int, shuffles: int = 20) -> Separation:
    """Probe and silhouette of the groups' mean states. Intervals: Wilson's for the accuracy, bootstrap over groups for the other.

    Where the text is parallel, the right answers of one group may stand and fall together: Wilson's n is the number of groups of
    one language, not of all. Chance of the silhouette: the mean of `shuffles` with the languages dealt anew within each group.
    """
    items = groups.items
    hits = held_out(items)
    rates = np.array([h.mean() for h in hits])
    accuracy, n = float(rates.mean()), min(len(h) for h in hits)
    x = np.concatenate(items)
    label = np.repeat(np.arange(len(items)), [len(i) for i in items])
    group = np.concatenate([np.arange(len(i)) for i in items])
    distance = distances(x)
    own = silhouettes(distance, label)
    parts = [own[label == k] for k in range(len(items))]
    spread = np.mean([(w @ p) / w.sum(1) for w, p in zip(groups.draws(draws, seed), parts)], axis=0)
    rng = np.random.default_rng(seed)
    chance = np.mean([silhouettes(distance, _dealt(label, group, rng)).mean() for _ in range(shuffles)])
    silhouette = float(np.mean([p.mean() for p in parts]))
    return Separation(accuracy, *wilson(round(accuracy * n), n), rates, silhouette, spread, float(chance))


def held_out(items: list[np.ndarray], folds: int = FOLDS) -> list[np.ndarray]:
    """bool [G_k] of each language: whether the probe, fitted on the other folds of groups, names the language of this group.

    Ridge regression onto one column per language, in its dual form (groups are fewer than dimensions); group g is in fold
    g mod `folds` in every language, so parallel text is held out together. Ties go against the probe.
    """
    folds = min(folds, *(len(i) for i in items))
    out = [np.zeros(len(i), bool) for i in items]
    for fold in range(folds):
        test = [np.arange(len(i)) % folds == fold for i in items]
        train = np.concatenate([i[~t] for i, t in zip(items, test)])
        label = np.repeat(np.arange(len(items)), [int((~t).sum()) for t in test])
        scores = probe(train, label, len(items), np.concatenate([i[t] for i, t in zip(items, test)]))
        at = 0
        for k, t in enumerate(test):
            n = int(t.sum())
            mine = scores[at : at + n]
            rest = np.delete(mine, k, axis=1).max(1)
            out[k][t] = mine[:, k] > rest
            at += n
    return out


def probe(train: np.ndarray, label: np.ndarray, count: int, test: np.ndarray) -> np.ndarray:
    """Scores [n_test, count] of a ridge classifier about the languages' common middle, fitted on train [n, D] with label [n]."""
    centre = np.mean([train[label == k].mean(0) for k in range(count)], axis=0)
    x, y = train - centre, (label[:, None] == np.arange(count)) - 1.0 / count
    kernel = x @ x.T
    ridge = RIDGE * float(np.trace(kernel)) / len(x)
    if not ridge:
        return np.zeros((len(test), count))  # nothing differs, nothing is told
    return (test - centre) @ x.T @ np.linalg.solve(kernel + ridge * np.eye(len(x)), y)


def distances(x: np.ndarray) -> np.ndarray:
    """Cosine distance [n, n] of rows about their common mean, in [0, 2]; 1 from a row without length."""
    centred = x - x.mean(0)
    length = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(length > 0, length, 1)[:, None]
    out = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(out, 0)
    return out


def silhouettes(distance: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(b - a) / max(a, b) of every item [n] (Rousseeuw 1987): a mean distance to its own language, b to the nearest other one.

    0 where the item is alone or both distances are 0.
    """
    names = np.unique(label)
    sums = np.stack([distance[:, label == k].sum(1) for k in names], axis=1)
    sizes = np.array([(label == k).sum() for k in names])
    mine = label[:, None] == names
    own = (sums * mine).sum(1) / np.maximum(sizes[np.argmax(mine, 1)] - 1, 1)
    other = np.where(mine, np.inf, sums / sizes).min(1)
    top = np.maximum(own, other)
    alone = sizes[np.argmax(mine, 1)] == 1
    return np.where(alone | (top <= 0), 0.0, (other - own) / np.where(top > 0, top, 1))


def _dealt(label: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels of each group's items dealt anew among them."""
    out = label.copy()
    for g in np.unique(group):
        at = np.flatnonzero(group == g)
        out[at] = rng.permutation(label[at])
    return out
