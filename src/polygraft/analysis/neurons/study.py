"""Everything that is asked of a found set: controls, overlap, stability, agreement, firing together, language against topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.groups import percentile
from polygraft.analysis.neurons import coactive, overlap, stability, topic
from polygraft.analysis.neurons.methods import METHODS, Method, Rates, identify, lacks, refit
from polygraft.analysis.neurons.owners import Found
from polygraft.errors import InputError
from polygraft.result import Estimate
from polygraft.selectionfile import matched

RANDOM = 20  # matched random sets behind every interval of a control
TOGETHER = 1000  # neurons of a set whose correlations are taken; more are thinned evenly


@dataclass(frozen=True)
class Firing:
    """Mean correlation of a language's neurons over groups of documents, beside matched random sets; None: cannot be told.

    `own` over the groups of the language itself, `all` over the groups of all languages; each (found, random).
    """

    own: tuple[float | None, Estimate | None]
    all: tuple[float | None, Estimate | None]


@dataclass(frozen=True)
class Study:
    """`random[L]` is the control of language L, bool [layers, neurons]; `probability` float64 [layers, neurons, languages].

    `overlap` and `chance` float64 [languages, languages]; `draws` float64 [draws, languages + 1] (see `stability`) or None;
    `agreement[m]` is (neurons, Jaccard index, chance level) of another method;
    `topic` by language (found, float64 [random sets, 3]), or None; it rests on means of groups of `per_group` documents.
    """

    found: Found
    real: np.ndarray
    tokens: tuple[int, ...]
    random: dict[str, np.ndarray]
    probability: np.ndarray
    overlap: np.ndarray
    chance: np.ndarray
    draws: np.ndarray | None
    floor: stability.Floor | None
    agreement: dict[Method, tuple[int, float, float]]
    firing: dict[str, Firing]
    topic: dict[str, tuple[topic.Shares, np.ndarray]] | None
    nothing: np.ndarray
    per_group: float

    @property
    def sizes(self) -> np.ndarray:
        """int64 [layers]: neurons of each layer."""
        return np.asarray(self.real.sum(1))


def study(method: Method, activity: Activity, rates: Rates, *, draws: int, seed: int,
          tell: Callable[[str], None] = lambda _: None) -> Study:  # fmt: skip
    """Find the neurons and measure what is told about them. Raises InputError as `identify` does, and for equal languages."""
    tell(method)
    found, real, probability = identify(method, activity, rates), activity.real, activity.probability()
    refuse_equal(probability, found.languages, activity.folder)
    random = {g: matched(m, real, [seed, k], found.any) for k, (g, m) in enumerate(found.masks.items())}
    tell("overlap and agreement")
    shared, chance = overlap.between(found.scores.owned, real)
    agreed = {m: _agreement(found, identify(m, activity, rates), real) for m in METHODS if m != method and not lacks(m, activity)}
    tell("stability")
    again = refit(method, activity, rates)
    repeated = stability.stability(found.scores.owned, again, draws, seed) if again and draws else None
    weight = found.scores.thresholds.get("lambda", rates.weight)  # of AlignLAPE: under another one scores would not compare
    again = refit(method, activity, replace(rates, weight=weight))
    floor = stability.floor(found.scores, again) if again else None
    tell("co-activation")
    fire = _firing(found, activity, seed)
    tell("language and topic")
    shares, nothing = _topic(found, activity, seed)
    tokens = tuple(activity.tokens(g) for g in found.languages)
    return Study(found, real, tokens, random, probability, shared, chance, repeated, floor, agreed, fire, shares, nothing,
                 _per_group(activity))  # fmt: skip


def refuse_equal(p: np.ndarray, languages: Sequence[str], where: object) -> None:
    """Raise InputError where two languages have the same `p` [layers, neurons, languages] in every neuron."""
    for b in range(len(languages)):
        for a in range(b):
            if (p[..., a] == p[..., b]).all():
                raise InputError("two languages do not differ in any neuron", where=where, found=f"{languages[a]}, {languages[b]}",
                                 expected="texts in different languages", fix="is it the same text twice?")  # fmt: skip


def _per_group(activity: Activity) -> float:
    """Mean number of documents in a group that holds text, of the language that has fewest; 0 without groups."""
    if not _has(activity, "group.tokens"):
        return 0.0
    full = {g: int((activity.array(g, "group.tokens") > 0).sum()) for g in activity.languages}
    return min(activity.languages[g]["documents"] / max(1, n) for g, n in full.items())


def _agreement(a: Found, b: Found, real: np.ndarray) -> tuple[int, float, float]:
    return int(b.any.sum()), overlap.jaccard(a.any, b.any), overlap.chance(a.any, b.any, real)


def sets(found: Found, language: str, real: np.ndarray, seed: int, n: int = RANDOM) -> list[np.ndarray]:
    """The language's mask, thinned to TOGETHER neurons, and `n` matched random masks that avoid all found neurons."""
    mask = found.masks[language].copy()
    flat = np.flatnonzero(mask)
    if len(flat) > TOGETHER:
        mask.reshape(-1)[np.delete(flat, np.linspace(0, len(flat) - 1, TOGETHER).astype(int))] = False
    own = found.languages.index(language)
    return [mask, *(matched(mask, real, [seed, own, 1 + i], found.any) for i in range(n))]


def _has(activity: Activity, name: str) -> bool:
    return all(name in activity.of(g) for g in activity.languages)


def _firing(found: Found, activity: Activity, seed: int) -> dict[str, Firing]:
    if not _has(activity, "group.positive"):
        return {}
    chosen = {g: sets(found, g, activity.real, seed) for g in found.languages}
    rates: dict[str, list[list[np.ndarray]]] = {g: [[] for _ in chosen[g]] for g in found.languages}
    for spoken in found.languages:  # one language's groups in memory at a time
        positive, tokens = activity.array(spoken, "group.positive"), activity.array(spoken, "group.tokens")
        for g in found.languages:
            for i, mask in enumerate(chosen[g]):
                rates[g][i].append(coactive.rates(positive, tokens, mask))
    out = {}
    for k, g in enumerate(found.languages):
        own = [coactive.together(r[k]) for r in rates[g]]
        every = [coactive.together(np.concatenate(r)) for r in rates[g]]
        out[g] = Firing((own[0], spread(own[1:])), (every[0], spread(every[1:])))
    return out


def spread(values: list[float | None]) -> Estimate | None:
    """Mean of what random sets gave, and the range that 95 % of them lie in; None where none gave anything."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    low, high = percentile(np.array(known))
    return Estimate(float(np.mean(known)), float(low), float(high), n=len(known))


def _topic(found: Found, activity: Activity, seed: int) -> tuple[dict[str, tuple[topic.Shares, np.ndarray]] | None, np.ndarray]:
    known = activity.parallel and _has(activity, "group.sum")
    tokens = [activity.array(g, "group.tokens") for g in found.languages] if known else []
    full = np.all([t > 0 for t in tokens], axis=0) if tokens else np.zeros(0, bool)
    if full.sum() < 2:
        return None, np.zeros(3)
    chosen = {g: sets(found, g, activity.real, seed) for g in found.languages}
    needed = np.any([m for masks in chosen.values() for m in masks], axis=0)
    at = np.cumsum(needed.reshape(-1)).reshape(needed.shape) - 1  # where a neuron stands among the needed ones
    table = np.stack([activity.array(g, "group.sum")[full][:, needed].astype(np.float64) / t[full][:, None]
                      for g, t in zip(found.languages, tokens)], 1)  # fmt: skip
    shares = topic.decompose(table)
    out = {}
    for g, (mask, *random) in chosen.items():
        drawn = [topic.mean_of(shares[at[m]]) for m in random]
        kept = [d.shares for d in drawn if d.n]  # a set of neurons that never change varies by nothing, not by zero shares
        out[g] = topic.mean_of(shares[at[mask]]), np.array(kept).reshape(-1, 3)
    return out, topic.nothing(int(full.sum()), len(found.languages))
