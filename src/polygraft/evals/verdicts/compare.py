"""From per-item values to tables: scores with intervals, differences on the same items with adjusted p values and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.evals.verdicts import stats
from polygraft.result import Cell, Estimate, Table

ACCURACY, NATS, BITS = "accuracy", "nats", "bits per byte"
UNITS = {ACCURACY: "%", NATS: "nats", BITS: "bits/byte"}
MEANING = {
    ACCURACY: "right answers of all items, in percent, with Wilson intervals",
    NATS: "what the gold solution costs, in nats an item: the finer score, lower is better; bootstrap intervals over items",
    BITS: "nats / (ln 2 x UTF-8 bytes), lower is better; compare within a language only; bootstrap intervals over documents",
}


@dataclass(frozen=True)
class Measure:
    """One metric of one task in one language: for every model a value per item, on the same items in the same order.

    `weights[model]` divides the sum of values: documents' bytes for bits per byte, nothing (None) for means.
    """

    task: str
    language: str
    metric: str
    values: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] | None = None

    @property
    def scale(self) -> float:
        return {ACCURACY: 100.0, BITS: 1 / math.log(2)}.get(self.metric, 1.0)

    @property
    def higher_is_better(self) -> bool:
        return self.metric == ACCURACY

    def weight(self, model: str) -> np.ndarray | None:
        return None if self.weights is None else self.weights[model]

    def estimate(self, model: str, seed: int = 0) -> Estimate:
        """The model's score with its 95 % interval."""
        v = self.values[model]
        unit, n = UNITS[self.metric], len(v)
        if self.metric == ACCURACY:
            low, high = stats.wilson(int(v.sum()), n)
            return Estimate(100 * float(v.mean()), 100 * low, 100 * high, n, unit)
        b = stats.bootstrap(v, self.weight(model), seed=seed)
        return Estimate(b.value * self.scale, b.low * self.scale, b.high * self.scale, n, unit)


@dataclass(frozen=True)
class Difference:
    """model - reference on the same items, in the metric's unit. `holm` is p adjusted over the metric's family of comparisons.

    `detectable` is the true difference that so many items of this spread would show with a power of 80 % (before adjusting).
    """

    task: str
    language: str
    metric: str
    model: str
    reference: str
    value: float
    low: float
    high: float
    n: int
    p: float
    detectable: float
    holm: float = 1.0
    verdict: str = ""

    @property
    def unit(self) -> str:
        return "points" if self.metric == ACCURACY else UNITS[self.metric]


def difference(m: Measure, model: str, reference: str, seed: int = 0) -> Difference:
    """McNemar's exact p and Newcombe's interval for right and wrong; the paired bootstrap for everything else."""
    a, b = m.values[reference], m.values[model]
    n = len(a)
    if m.metric == ACCURACY:
        value, (low, high), p = float(b.mean() - a.mean()), stats.newcombe(a > 0, b > 0), stats.mcnemar(a > 0, b > 0)
        spread = float(np.std(b - a))
    else:
        wa, wb = m.weight(reference), m.weight(model)
        boot = stats.paired_bootstrap(a, b, wa, wb, seed=seed)
        # the bootstrap is too sure of itself on few items: no exact two-sided test of n pairs can go below 2 / 2^n
        value, low, high, p = boot.value, boot.low, boot.high, max(boot.p, min(1.0, 2.0 ** (1 - n)))
        spread = float(np.std(b - a if wa is None or wb is None else _influence(b, wb) - _influence(a, wa)))
    k = m.scale
    return Difference(m.task, m.language, m.metric, model, reference, value * k, low * k, high * k, n, p,
                      stats.detectable(spread, n) * k)


def _influence(v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What each document adds to the ratio's error (the delta method): its deviation from the ratio, over the mean weight."""
    return (v - v.sum() / w.sum() * w) / w.mean()


def differences(measures: Sequence[Measure], reference: str, seed: int = 0) -> list[Difference]:
    """Every model against the reference in every measure; Holm over all comparisons of one metric (models, tasks, languages)."""
    from dataclasses import replace

    found = [difference(m, model, reference, seed) for m in measures for model in m.values if model != reference]
    out: list[Difference] = []
    for metric in dict.fromkeys(d.metric for d in found):
        family = [d for d in found if d.metric == metric]
        for d, p in zip(family, stats.holm([d.p for d in family])):
            out.append(replace(d, holm=p, verdict=stats.verdict(d.value, p, higher_is_better=metric == ACCURACY)))
    return out


# --------------------------------------------------------------------------------------------------------------- tables


def tables(measures: Sequence[Measure], found: Sequence[Difference], reference: str, seed: int = 0) -> tuple[Table, ...]:
    """For each task and metric: the scores (models down, languages across), then the differences from the reference."""
    out = []
    for task, metric in dict.fromkeys((m.task, m.metric) for m in measures):
        here = [m for m in measures if (m.task, m.metric) == (task, metric)]
        languages, models = tuple(m.language for m in here), list(here[0].values)
        title = metric if metric == BITS else f"{task}: {metric}"
        rows: tuple[tuple[Cell, ...], ...] = tuple((model, *(m.estimate(model, seed) for m in here)) for model in models)
        out.append(Table(title, ("model", *languages), rows, MEANING[metric]))
        if len(models) > 1:
            paired = [d for d in found if (d.task, d.metric) == (task, metric)]
            family = sum(d.metric == metric for d in found)
            out.append(_difference_table(title, paired, family, languages, reference))
    return tuple(out)


def _difference_table(title: str, here: Sequence[Difference], family: int, languages: tuple[str, ...], reference: str) -> Table:
    cells = {(d.model, d.language): Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict) for d in here}
    models = dict.fromkeys(d.model for d in here)
    rows: tuple[tuple[Cell, ...], ...] = tuple((model, *(cells[model, language] for language in languages)) for model in models)
    test = "exact McNemar tests, Newcombe intervals" if here[0].metric == ACCURACY else "paired bootstrap over the same items"
    return Table(f"{title}, difference from {reference}", ("model", *languages), rows,
                 f"{test}; intervals are 95 % each; verdicts hold over all {family} comparisons of this metric (Holm, 5 %)")


def summary(found: Sequence[Difference], reference: str) -> tuple[str, ...]:
    """One sentence a metric: which models are better and worse than the reference, in which languages, and how many are neither."""
    out = []
    for metric in dict.fromkeys(d.metric for d in found):
        family = [d for d in found if d.metric == metric]
        named = {v: _named(family, v) for v in (stats.BETTER, stats.WORSE)}
        unclear = sum(d.verdict == stats.UNCLEAR for d in family)
        if unclear == len(family):
            out.append(f"{metric}: no model could be distinguished from {reference} in {len(family)} comparisons.")
            continue
        out.append(f"{metric}: better than {reference}: {named[stats.BETTER]}. Worse: {named[stats.WORSE]}. "
                   f"Not distinguishable: {unclear} of {len(family)} comparisons.")
    return tuple(out)


def _named(family: Sequence[Difference], verdict: str) -> str:
    """`swapped (es), soup (en, es)`, or none."""
    here = [d for d in family if d.verdict == verdict]
    models = dict.fromkeys(d.model for d in here)
    said = [f"{m} ({', '.join(dict.fromkeys(d.language for d in here if d.model == m))})" for m in models]
    return ", ".join(said) or "none"


def caveats(found: Sequence[Difference]) -> tuple[str, ...]:
    """What the numbers cannot tell: the smallest differences that these items would have shown."""
    out = []
    for metric in dict.fromkeys(d.metric for d in found):
        unclear = [d for d in found if d.metric == metric and d.verdict == stats.UNCLEAR]
        if unclear:
            worst = max(unclear, key=lambda d: d.detectable)
            out.append(f"{metric}: at n = {worst.n}, true differences below about {worst.detectable:.2g} {worst.unit} would mostly "
                       "go unnoticed, even without the correction for many comparisons; \"not distinguishable\" is not \"equal\".")
    return tuple(out)
