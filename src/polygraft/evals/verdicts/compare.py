"""From measures to scores with intervals and differences with verdicts: single languages, strata, averages, the worst language.

Everything random is one bootstrap: the items of every measure are drawn once per resample, and whatever is asked (a language, a
mean of languages, the worst one) is a function of the sums of what was drawn. So averages cost little and models stay paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from polygraft import stats
from polygraft.errors import InputError
from polygraft.evals.metrics.base import Metric
from polygraft.evals.verdicts import planning
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Estimate

ONE, MEAN, POOL, WORST, STRATA = "", "mean", "pool", "worst", "strata"
AVERAGES = {MEAN: "mean of languages", POOL: "all items", WORST: "worst language"}


@dataclass(frozen=True)
class Figure:
    """One column of a table: a measure by itself, or several put together.

    kind: "" one measure; "mean" and "strata" the mean of the parts' values (macro average); "pool" the value of all parts' items
    together (micro average); "worst" the least good of the parts. Parts of a mean may be of different tasks and metrics that have
    one unit and direction: that is how a suite's average is made.
    """

    task: str
    language: str
    metric: Metric
    parts: tuple[Measure, ...]
    kind: str = ONE

    @cached_property
    def models(self) -> list[str]:
        """The models for which every part is defined by at least one item."""
        return [m for m in self.parts[0].models if all(m in p.columns and p.defined[m].any() for p in self.parts)]

    def count(self, *models: str) -> int:
        """How many items count for all of these models."""
        return sum(int(np.logical_and.reduce([p.defined[m] for m in models]).sum()) for p in self.parts)

    def value(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """The score [...] from each part's sums [..., k], in the metric's own scale (a share, not percent)."""
        if self.kind == POOL:
            return self.metric.value(np.sum(sums, axis=0))
        values = np.stack([p.metric.value(s) for p, s in zip(self.parts, sums)])
        if self.kind == WORST:
            return values.min(axis=0) if self.metric.higher_is_better else values.max(axis=0)
        return values.mean(axis=0)

    def observed(self, model: str) -> float:
        return float(self.value([p.columns[model].sum(axis=0) for p in self.parts]))

    @property
    def exact(self) -> bool:
        """True where closed forms apply: right or wrong items of one measure."""
        return self.metric.binary and len(self.parts) == 1


@dataclass(frozen=True)
class Score:
    """A model's score; `average` is "" for a single language, else how languages or strata were put together."""

    task: str
    language: str
    metric: str
    average: str
    model: str
    estimate: Estimate


@dataclass(frozen=True)
class Difference:
    """model - reference on the same items, in the metric's unit. `holm` is p adjusted over the metric's family of comparisons.

    `detectable` is the true difference that so many items of this spread would show with a power of 80 % (before adjusting).
    """

    task: str
    language: str
    metric: str
    average: str
    model: str
    reference: str
    value: float
    low: float
    high: float
    n: int
    p: float
    detectable: float
    unit: str
    holm: float = 1.0
    verdict: str = ""


@dataclass(frozen=True)
class Comparison:
    """All scores, and all differences from the reference.

    `methods` is empty where the verdicts are about checkpoints; else the models (training seeds) of each method, and the verdicts
    are about methods.
    """

    figures: tuple[Figure, ...]
    reference: str
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Who is compared: models or methods, in the order given."""
        return list(self.methods or dict.fromkeys(m for f in self.figures for p in f.parts for m in p.models))

    def data(self) -> dict[str, Any]:
        """Plain values for `Result.data`: scores and differences of languages, and the same of averages."""
        scores = [{k: v for k, v in asdict(s).items() if k != "estimate"} | asdict(s.estimate) for s in self.scores]
        differences = [asdict(d) for d in self.differences]
        return {"claim": "methods" if self.methods else "checkpoints", "reference": self.reference,
                "scores": [s for s in scores if not s["average"]],
                "differences": [d for d in differences if not d["average"]],
                "averages": {"scores": [s for s in scores if s["average"]],
                             "differences": [d for d in differences if d["average"]]}}


# -------------------------------------------------------------------------------------------------------------- figures


def figures(measures: Sequence[Measure]) -> list[Figure]:
    """The columns of the tables: every language, the mean of its strata where it has some, then the averages over languages."""
    out = []
    for task, name in dict.fromkeys((m.task, m.metric.name) for m in measures):
        here = [m for m in measures if (m.task, m.metric.name) == (task, name)]
        metric = here[0].metric
        for m in here:
            out.append(Figure(task, m.language, metric, (m,)))
            if strata := tuple(m.by_stratum().values()):
                out.append(Figure(task, f"{m.language}, mean of {len(strata)} strata", metric, strata, STRATA))
        if len(here) > 1 and metric.averages:
            kinds = [MEAN, *([POOL] if len({m.n for m in here}) > 1 else []), WORST]
            out += [Figure(task, AVERAGES[kind], metric, tuple(here), kind) for kind in kinds]
    return out


def compared(measures: Sequence[Measure], reference: str, seed: int = 0, extra: Iterable[Figure] = (),
             draws: int = stats.DRAWS) -> Comparison:
    """Scores of every figure, and every model against the reference; Holm over all comparisons of one metric.

    `extra` are further figures, such as a suite's average. Raises InputError where a score is not finite.
    """
    wanted = (*figures(measures), *extra)
    samples = draw([f for f in wanted if not f.exact], seed, draws)
    scores, found = [], []
    for f in wanted:
        for model in f.models:
            scores.append(Score(f.task, f.language, f.metric.name, f.kind, model, estimate(f, model, samples)))
            if model != reference and reference in f.models and f.count(model, reference):
                found.append(difference(f, model, reference, samples))
    return Comparison(wanted, reference, tuple(scores), tuple(judged(found, wanted)))


Samples = dict[int, dict[str, np.ndarray]]  # id of a figure -> model -> bootstrap values [draws]


def draw(wanted: Sequence[Figure], seed: int, draws: int = stats.DRAWS) -> Samples:
    """Bootstrap values of every figure for each of its models, all from the same draws of the items."""
    parts = list({id(p): p for f in wanted for p in f.parts}.values())
    place = {id(p): i for i, p in enumerate(parts)}
    out = {id(f): np.empty((draws, len(f.models))) for f in wanted}
    observed = {id(f): np.array([f.observed(m) for m in f.models]) for f in wanted}
    columns = {id(f): [[list(p.models).index(m) for m in f.models] for p in f.parts] for f in wanted}
    start = 0
    for block in stats.resampled([np.hstack(list(p.columns.values())) for p in parts], seed=seed, draws=draws) if parts else ():
        sums = [s.reshape(len(s), len(p.models), -1) for p, s in zip(parts, block)]
        for f in wanted:
            of = [sums[place[id(p)]][:, models] for p, models in zip(f.parts, columns[id(f)])]
            values = f.value(of)
            for part in of:  # a draw of undefined items only says nothing new
                values = np.where(np.any(part != 0, axis=-1), values, observed[id(f)])
            out[id(f)][start:start + len(block[0])] = values
        start += len(block[0])
    for f in wanted:
        if not np.isfinite(out[id(f)]).all():
            raise InputError("a resampled score is not a number", where=f"{f.task} {f.language}: {f.metric.name}",
                             fix="the metric must give a number for any sums of its columns")
    return {id(f): {m: out[id(f)][:, i] for i, m in enumerate(f.models)} for f in wanted}


# ------------------------------------------------------------------------------------------------- one score, one difference


def estimate(f: Figure, model: str, samples: Samples) -> Estimate:
    """The model's score with its 95 % interval, in the metric's unit: Wilson for right and wrong, else bootstrap percentiles."""
    n, k, value = f.count(model), f.metric.scale, f.observed(model)
    if f.exact:
        low, high = stats.wilson(round(float(f.parts[0].columns[model][:, 0].sum())), n)
    else:
        boot = stats.summarise(value, samples[id(f)][model], n)
        low, high = boot.low, boot.high
        if low == high and f.metric.binary:
            low, high = closed(f, value, [_wilson(p, model) for p in f.parts], 0.0)
    return Estimate(value * k, low * k, high * k, n, f.metric.unit)


def difference(f: Figure, model: str, reference: str, samples: Samples) -> Difference:
    """McNemar's exact p and Newcombe's interval for right and wrong; the paired bootstrap for everything else."""
    n, k = f.count(model, reference), f.metric.scale
    if f.exact:
        part = f.parts[0]
        both = part.defined[model] & part.defined[reference]
        a, b = part.columns[reference][both, 0], part.columns[model][both, 0]
        value, (low, high), p = float(b.mean() - a.mean()) if n else 0.0, stats.newcombe(a, b), stats.mcnemar(a, b)
        detectable = planning.detectable(planning.spread(a, b), n)
    else:
        value = float(stats.paired(f.observed(reference), f.observed(model)))
        boot = stats.summarise(value, stats.paired(samples[id(f)][reference], samples[id(f)][model]), n)
        low, high, p, detectable = boot.low, boot.high, boot.p, planning.DETECTABLE * boot.se
        if low == high and f.metric.binary:
            low, high = closed(f, value, [_newcombe(p, model, reference) for p in f.parts], -1.0)
    return Difference(f.task, f.language, f.metric.name, f.kind, model, reference, value * k, low * k, high * k, n, p,
                      detectable * k, unit_of_difference(f.metric))


Part = tuple[float, float, float]  # value, low, high of one part


def closed(f: Figure, value: float, parts: Sequence[Part], least: float) -> tuple[float, float]:
    """An interval where every resample gave the same, as when no item differs: that nothing was seen is no proof of equality.

    The mean of the parts' closed intervals (MOVER: Zou & Donner 2008, eq. 2), or for the worst of them, the widest; cut off at
    what a share can be, `least` to 1 (0 for a score, -1 for a difference).
    """
    below, above = np.array([v - low for v, low, _ in parts]), np.array([high - v for v, _, high in parts])
    if f.kind == WORST:
        down, up = below.max(), above.max()
    else:
        weights = np.array([p.n for p in f.parts], float) if f.kind == POOL else np.ones(len(parts))
        weights /= weights.sum()
        down, up = (np.sqrt(((weights * side) ** 2).sum()) for side in (below, above))
    return max(least, value - float(down)), min(1.0, value + float(up))


def _wilson(part: Measure, model: str) -> Part:
    right = part.columns[model][part.defined[model], 0]
    return (float(right.mean()), *stats.wilson(round(float(right.sum())), len(right)))


def _newcombe(part: Measure, model: str, reference: str) -> Part:
    both = part.defined[model] & part.defined[reference]
    a, b = part.columns[reference][both, 0], part.columns[model][both, 0]
    return (float(b.mean() - a.mean()), *stats.newcombe(a, b)) if len(a) else (0.0, -1.0, 1.0)


def unit_of_difference(metric: Metric) -> str:
    return "points" if metric.unit == "%" else metric.unit


def judged(found: Sequence[Difference], wanted: Sequence[Figure]) -> list[Difference]:
    """The differences with p adjusted over all of one metric (models, tasks, languages, averages), and their verdicts."""
    higher = {f.metric.name: f.metric.higher_is_better for f in wanted}
    out: dict[int, Difference] = {}
    for metric in higher:
        family = [i for i, d in enumerate(found) if d.metric == metric]
        for i, p in zip(family, stats.holm([found[i].p for i in family])):
            said = stats.verdict(found[i].value, p, higher_is_better=higher[metric])
            out[i] = replace(found[i], holm=p, verdict=said)
    return [out[i] for i in range(len(found))]
