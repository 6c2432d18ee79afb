"""Mean states by language and by group of documents: the material of every figure here, and the bootstrap over groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraft.activity import Activity
from polygraft.errors import InputError
from polygraft.stats import counts

LEAST = 4  # groups: two to fit on and two to measure on, or no spread could be told


@dataclass(frozen=True)
class Groups:
    """States at one depth. `sums[k]` float64 [G_k, D] and `tokens[k]` float64 [G_k] of language k, every group with tokens.

    `paired`: group g is the same text in every language, so that groups are drawn and held out together.
    """

    sums: tuple[np.ndarray, ...]
    tokens: tuple[np.ndarray, ...]
    paired: bool = False

    @property
    def means(self) -> np.ndarray:
        """float64 [D, K]: mean state over the tokens of each language."""
        return np.stack([s.sum(0) / t.sum() for s, t in zip(self.sums, self.tokens)], axis=1)

    @property
    def items(self) -> list[np.ndarray]:
        """float64 [G_k, D] of each language: the mean state of every group."""
        return [s / t[:, None] for s, t in zip(self.sums, self.tokens)]

    def half(self, which: int) -> Groups:
        """The groups 0, 2, 4 ... (which = 0) or 1, 3, 5 ... (1): disjoint text."""
        return self.only([np.arange(which, len(t), 2) for t in self.tokens])

    def only(self, kept: list[np.ndarray]) -> Groups:
        return Groups(tuple(s[i] for s, i in zip(self.sums, kept)), tuple(t[i] for t, i in zip(self.tokens, kept)), self.paired)

    def draws(self, count: int, seed: int) -> list[np.ndarray]:
        """How often each group is taken in each of `count` bootstrap samples: float64 [count, G_k], the same where paired."""
        rng, out = np.random.default_rng(seed), list[np.ndarray]()
        for t in self.tokens:
            out.append(out[0] if self.paired and out else counts(rng, len(t), count))
        return out

    def drawn(self, weights: list[np.ndarray]) -> np.ndarray:
        """float64 [count, K, D]: the mean states of bootstrap samples."""
        return np.stack([(w @ s) / (w @ t)[:, None] for w, s, t in zip(weights, self.sums, self.tokens)], axis=1)


class Depths:
    """`Groups` of every depth of a reading: 0 is after the embedding, l after layer l."""

    def __init__(self, activity: Activity):
        self.languages = list(activity.languages)
        self.depths, self.hidden = activity.layers + 1, activity.hidden
        if len(self.languages) < 2:
            raise InputError("subspaces of languages need two languages", where=activity.folder, found=", ".join(self.languages),
                             fix="give a second --corpus LANGUAGE=PATH")
        tokens = [activity.array(g, "group.tokens").astype(np.float64) for g in self.languages]
        self.paired = activity.parallel and len({len(t) for t in tokens}) == 1
        common = np.all([t > 0 for t in tokens], axis=0) if self.paired else None
        self.kept = [np.flatnonzero(t > 0 if common is None else common) for t in tokens]
        self.tokens = [t[i] for t, i in zip(tokens, self.kept)]
        for language, i in zip(self.languages, self.kept):
            if len(i) < LEAST:
                raise InputError("too few groups of documents to fit on one half and measure on the other", where=language,
                                 found=f"{len(i)} with tokens", expected=f"at least {LEAST}",
                                 fix="give more documents, or more groups")
        self.sums = [activity.array(g, "group.residual")[i] for g, i in zip(self.languages, self.kept)]
        self._check(str(activity.folder))

    def _check(self, where: str) -> None:
        for language, s in zip(self.languages, self.sums):
            if not np.isfinite(s).all():
                at = int(np.flatnonzero(~np.isfinite(s).all(axis=(0, 2)))[0])
                raise InputError("states that are not finite", where=f"{where}: {language}", found=f"at depth {at}",
                                 fix="read the text in float32 or bfloat16")
        means = [s.sum(0, dtype=np.float64) / t.sum() for s, t in zip(self.sums, self.tokens)]
        for b in range(len(means)):
            for a in range(b):
                if np.linalg.norm(means[a] - means[b]) <= 1e-9 * np.linalg.norm(means[a]):
                    raise InputError("two languages have the same mean states at every depth", where=where,
                                     found=f"{self.languages[a]}, {self.languages[b]}", fix="is it the same text twice?")

    def at(self, depth: int) -> Groups:
        return Groups(tuple(s[:, depth].astype(np.float64) for s in self.sums), tuple(self.tokens), self.paired)


def interval(value: float, draws: np.ndarray, drawn: int, lowest: float = 0.0) -> tuple[float, float]:
    """95 % around `value` in [lowest, 1], as wide as the bootstrap draws [count] of `drawn` groups spread about their own middle.

    Means of resampled groups are noisier than the means they stand for, which pulls every draw of a share the same way: the draws
    tell the spread, not the middle. sqrt(n / (n - 1)) makes up for the bootstrap's variance of few groups.
    """
    low, high = np.quantile(draws - draws.mean(), (0.025, 0.975)) * np.sqrt(drawn / max(1, drawn - 1))
    return float(np.clip(value + low, lowest, value)), float(np.clip(value + high, value, 1.0))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in [0, 1]-like figures; 0 where there is nothing to take a part of."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0)
