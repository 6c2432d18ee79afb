"""The methods by name, on a reading of text: what each needs of it, what it finds, and how it is repeated on other documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.groups import Groups
from polygraft.analysis.neurons import lape, others
from polygraft.analysis.neurons.lape import Scores
from polygraft.analysis.neurons.owners import Found
from polygraft.analysis.neurons.stability import Refit
from polygraft.analysis.reading.config import several
from polygraft.errors import InputError

Method = Literal["lape", "align-lape", "mean-difference", "pooled-90p", "probability-90p"]
METHODS: tuple[Method, ...] = get_args(Method)
NEEDS: dict[Method, tuple[str, ...]] = {
    "lape": ("positive",), "align-lape": ("positive",), "mean-difference": ("sum", "square"), "pooled-90p": ("histogram",),
    "probability-90p": ("histogram", "window.percentile"),
}  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """`filter`, `top`, `bar` of LAPE; `weight` of AlignLAPE (None: searched); `each`: share of neurons that the others give each
    language."""

    filter: float = lape.FILTER
    top: float = lape.TOP
    bar: float = lape.BAR
    weight: float | None = None
    each: float = others.PER_LANGUAGE


def lacks(method: Method, activity: Activity) -> list[str]:
    """Names of arrays that the method needs and the reading did not gather."""
    return [name for name in NEEDS[method] if any(name not in activity.of(language) for language in activity.languages)]


def identify(method: Method, activity: Activity, rates: Rates) -> Found:
    """What a method finds. Raises InputError for fewer than two languages, and for what the reading did not gather."""
    languages = tuple(activity.languages)
    several(languages, activity.folder)
    if missing := lacks(method, activity):
        raise InputError(f"{method} needs what was not gathered when the text was read", where=activity.folder,
                         found="no " + ", ".join(missing), fix="read the text again and ask for it")  # fmt: skip
    return Found(method, languages, _RUN[method](activity, rates))


def _lape(a: Activity, r: Rates) -> Scores:
    return lape.lape(a.probability(), a.real, filter_rate=r.filter, top_rate=r.top, bar=r.bar)


def _align(a: Activity, r: Rates) -> Scores:
    return lape.align_lape(a.probability(), a.real, weight=r.weight, top_rate=r.top, bar=r.bar)


def _difference(a: Activity, r: Rates) -> Scores:
    return others.mean_difference(a.stacked("sum"), a.stacked("square"), _tokens(a), a.real, rate=r.each)


def _pooled(a: Activity, r: Rates) -> Scores:
    return others.pooled_90p(histograms(a), a.real, len(a.languages), rate=r.each)


def _published(a: Activity, r: Rates) -> Scores:
    threshold = a.stacked("window.percentile") / np.maximum(1, _tokens(a))
    return others.probability_90p(histograms(a), np.asarray(a.edges), threshold, a.real, rate=r.each)


_RUN: dict[Method, Callable[[Activity, Rates], Scores]] = {
    "lape": _lape, "align-lape": _align, "mean-difference": _difference, "pooled-90p": _pooled, "probability-90p": _published,
}  # fmt: skip


def _tokens(activity: Activity) -> np.ndarray:
    return np.array([activity.tokens(g) for g in activity.languages], np.float64)


def histograms(activity: Activity) -> others.Histograms:
    """One layer's histograms of all languages, [neurons, bins, languages]: all layers at once would fill the memory."""
    files = [arrays.Arrays(activity.path(language)) for language in activity.languages]
    return lambda layer: np.stack([f.row("histogram", layer) for f in files], -1)


def refit(method: Method, activity: Activity, rates: Rates) -> Refit | None:
    """The method on other groups of documents; None where the groups do not hold what it needs (there are no histograms)."""
    name = {"lape": "group.positive", "align-lape": "group.positive", "mean-difference": "group.sum"}.get(method)
    if name is None or any(name not in activity.of(language) for language in activity.languages):
        return None
    groups, real = Groups.of(activity, name), activity.real
    if min(groups.sizes) < 2:
        return None
    if method == "lape":
        return Refit(groups, lambda p, _: lape.lape(p, real, filter_rate=rates.filter, top_rate=rates.top, bar=rates.bar))
    if method == "align-lape":
        return Refit(groups, lambda p, _: lape.align_lape(p, real, weight=rates.weight, top_rate=rates.top, bar=rates.bar))
    second = activity.stacked("square") / np.maximum(1, _tokens(activity))  # groups hold no squares: the spread stays as it is

    def difference(means: np.ndarray, which: Sequence[int]) -> Scores:
        return others.mean_difference(means, second[..., list(which)], np.ones(len(which)), real, rate=rates.each)

    return Refit(groups, difference)
