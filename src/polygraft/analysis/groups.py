"""Groups of documents: what is resampled to tell how much of a figure other documents would have changed, and its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.activity import Activity
from polygraft.stats import counts

Seed = int | Sequence[int]


def draws(sizes: Sequence[int], count: int, seed: Seed, together: bool = False) -> list[np.ndarray]:
    """How often each of `sizes[k]` groups is taken in each of `count` bootstrap samples: float64 [count, sizes[k]] for each k.

    `together`: the same samples for all, whose sizes are then equal.
    """
    rng, out = np.random.default_rng(seed), list[np.ndarray]()
    for n in sizes:
        out.append(out[0] if together and out else counts(rng, n, count))
    return out


@dataclass(frozen=True)
class Groups:
    """Sums over the tokens of groups: `sums[k]` [G_k, ...] and `tokens[k]` float64 [G_k] of language k, every group with tokens.

    `paired`: group g is the same text in every language, so that groups are drawn and held out together.
    """

    sums: tuple[np.ndarray, ...]
    tokens: tuple[np.ndarray, ...]
    paired: bool = False

    @classmethod
    def of(cls, activity: Activity, name: str, *, level: bool = False) -> Groups:
        """The array `name` (such as group.positive) of a reading, without groups that hold no tokens.

        Of parallel text, and with `level`, a group is kept where it has tokens in every language: all G_k are then equal.
        """
        tokens = [activity.array(g, "group.tokens").astype(np.float64) for g in activity.languages]
        paired = activity.parallel and len({len(t) for t in tokens}) == 1
        kept = [np.flatnonzero(t > 0) for t in tokens]
        if paired or level:
            least = min(map(len, tokens))
            kept = [np.flatnonzero(np.all([t[:least] > 0 for t in tokens], axis=0))] * len(tokens)
        sums = tuple(activity.array(g, name)[i] for g, i in zip(activity.languages, kept))
        return cls(sums, tuple(t[i] for t, i in zip(tokens, kept)), paired)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many groups each language has."""
        return tuple(map(len, self.tokens))

    @property
    def means(self) -> np.ndarray:
        """float64 [..., K]: mean over the tokens of each language."""
        return np.stack([s.sum(0, dtype=np.float64) / t.sum() for s, t in zip(self.sums, self.tokens)], axis=-1)

    @property
    def items(self) -> list[np.ndarray]:
        """float64 [G_k, ...] of each language: the mean over the tokens of every group."""
        return [s / t.reshape(-1, *[1] * (s.ndim - 1)) for s, t in zip(self.sums, self.tokens)]

    def at(self, index: int) -> Groups:
        """One entry (a layer, a depth) of the axis behind the groups, in float64."""
        return Groups(tuple(s[:, index].astype(np.float64) for s in self.sums), self.tokens, self.paired)

    def half(self, which: int) -> Groups:
        """The groups 0, 2, 4 ... (which = 0) or 1, 3, 5 ... (1): disjoint text."""
        return self.only([np.arange(which, n, 2) for n in self.sizes])

    def only(self, kept: Sequence[np.ndarray]) -> Groups:
        """The groups `kept[k]` of each language."""
        return Groups(tuple(s[i] for s, i in zip(self.sums, kept)), tuple(t[i] for t, i in zip(self.tokens, kept)), self.paired)

    def draws(self, count: int, seed: Seed) -> list[np.ndarray]:
        """How often each group is taken in each of `count` bootstrap samples: float64 [count, G_k], the same where paired."""
        return draws(self.sizes, count, seed, self.paired)

    def drawn(self, weights: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [count, K, ...]: the means of bootstrap samples, `weights[k]` [count, G_k]. Exact for counts."""
        return np.stack([np.tensordot(w, s, 1) / (w @ t).reshape(-1, *[1] * (s.ndim - 1))
                         for w, s, t in zip(weights, self.sums, self.tokens)], axis=1)  # fmt: skip


def percentile(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The range of the middle `level` of samples [count, ...]: what other documents, or other random sets, give."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def basic(value: np.ndarray, samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Basic bootstrap interval of a squared deviation free of noise: 2 value - quantiles of the samples (Davison & Hinkley 1997).

    A sample is too large by the noise that the value has as well, and by its own: the difference holds neither.
    """
    low, high = percentile(samples, level)
    return 2 * value - high, 2 * value - low


def centred(value: float, samples: np.ndarray, drawn: int, lowest: float = 0.0) -> tuple[float, float]:
    """95 % around `value` in [lowest, 1], as wide as the bootstrap samples [count] of `drawn` groups spread about their own middle.

    Means of resampled groups are noisier than the means they stand for, which pulls every sample of a share the same way: the
    samples tell the spread, not the middle. sqrt(n / (n - 1)) makes up for the bootstrap's variance of few groups.
    """
    low, high = np.asarray(percentile(samples - samples.mean())) * np.sqrt(drawn / max(1, drawn - 1))
    return float(np.clip(value + low, lowest, value)), float(np.clip(value + high, value, 1.0))
