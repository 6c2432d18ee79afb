"""A comparison as a reader sees it: tables, one sentence a metric, and what the numbers cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

from polygraft import stats
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.compare import Comparison, Difference, Figure
from polygraft.result import Cell, Estimate, Table

HOW = {compare.MEAN: "mean of languages: every language counts the same",
       compare.POOL: "all items: every item counts the same",
       compare.WORST: "worst language: each model's own least good one",
       compare.STRATA: "mean of strata: every stratum counts the same"}


def tables(c: Comparison) -> tuple[Table, ...]:
    """For each task and metric: the scores (models down; languages and averages across), then the differences."""
    out = []
    scores = {(s.task, s.metric, s.language, s.model): s.estimate for s in c.scores}
    for task, name in dict.fromkeys((f.task, f.metric.name) for f in c.figures):
        here = [f for f in c.figures if (f.task, f.metric.name) == (task, name)]
        models = [m for m in c.names if any((task, name, f.language, m) in scores for f in here)]
        if not models:  # defined for no item of any
            continue
        title = name if task == "bpb" else f"{task}: {name}"
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (model, *(scores.get((task, name, f.language, model)) for f in here)) for model in models)
        out.append(Table(title, (label(c), *(f.language for f in here)), rows, note(here, c)))
        if paired := [d for d in c.differences if (d.task, d.metric) == (task, name)]:
            family = sum(d.metric == name for d in c.differences)
            out.append(_differences(title, here, paired, family, c))
    return tuple(out)


def label(c: Comparison) -> str:
    return "method" if c.methods else "model"


def note(here: Sequence[Figure], c: Comparison) -> str:
    """What the metric is and what the averages are, with the languages that were the worst."""
    said = [here[0].metric.meaning]
    if c.methods:
        said.append("here: means over training seeds, with intervals over seeds and items")
    for f in here:
        words = HOW.get(f.kind, "")
        if f.kind == compare.WORST and not c.methods:
            words += " (" + ", ".join(f"{m}: {worst(f, m)}" for m in f.models) + ")"
        said += [words] if words and words not in said else []
    return "; ".join(said)


def worst(f: Figure, model: str) -> str:
    """The language in which the model is least good."""
    values = {p.language: float(p.metric.value(p.columns[model].sum(axis=0))) for p in f.parts}
    return (min if f.metric.higher_is_better else max)(values, key=lambda language: values[language])


def _differences(title: str, here: Sequence[Figure], found: Sequence[Difference], family: int, c: Comparison) -> Table:
    cells = {(d.model, d.language): Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict) for d in found}
    models, names = dict.fromkeys(d.model for d in found), [f.language for f in here]
    rows: tuple[tuple[Cell, ...], ...] = tuple((model, *(cells.get((model, name)) for name in names)) for model in models)
    test = "paired bootstrap over the same items"
    if c.methods:
        test = "two-level bootstrap over training seeds and the same items, Student's t"
    elif here[0].metric.binary:
        test = "exact McNemar tests, Newcombe intervals" + (f"; averages: {test}" if any(not f.exact for f in here) else "")
    return Table(f"{title}, difference from {c.reference}", (label(c), *names), rows,
                 f"{test}; intervals are 95 % each; verdicts hold over all {family} comparisons of this metric (Holm, 5 %)")


def summary(c: Comparison) -> tuple[str, ...]:
    """One sentence a metric: which models are better and worse than the reference, in which languages, and how many are neither."""
    out = []
    for metric in dict.fromkeys(d.metric for d in c.differences):
        family = [d for d in c.differences if d.metric == metric]
        unclear = sum(d.verdict == stats.UNCLEAR for d in family)
        if unclear == len(family):
            comparisons = f"{unclear} comparisons" if unclear > 1 else "1 comparison"
            out.append(f"{metric}: no model could be distinguished from {c.reference} in {comparisons}.")
            continue
        out.append(f"{metric}: better than {c.reference}: {_named(family, stats.BETTER)}. Worse: {_named(family, stats.WORSE)}. "
                   f"Not distinguishable: {unclear} of {len(family)} comparisons.")
    return tuple(out)


def _named(family: Sequence[Difference], verdict: str) -> str:
    """`swapped (es), soup (en, es)`, or none."""
    here = [d for d in family if d.verdict == verdict]
    models = dict.fromkeys(d.model for d in here)
    said = [f"{m} ({', '.join(dict.fromkeys(d.language for d in here if d.model == m))})" for m in models]
    return ", ".join(said) or "none"


def caveats(c: Comparison) -> tuple[str, ...]:
    """What the numbers cannot tell: what these items could not have shown, and that one training is not a method."""
    out = []
    for metric in dict.fromkeys(d.metric for d in c.differences):
        unclear = [d for d in c.differences if d.metric == metric and d.verdict == stats.UNCLEAR and d.detectable > 0]
        if unclear:  # of a model and itself nothing is to be said
            worst_of = max(unclear, key=lambda d: d.detectable)
            least = f"about {worst_of.detectable:.2g} {worst_of.unit}"
            out.append(f"{metric}: at n = {worst_of.n}, true differences below {least} would mostly go unnoticed, even "
                       "without the correction for many comparisons; \"not distinguishable\" is not \"equal\".")
    if c.methods:
        said = ", ".join(f"{name} ({len(m)} training seeds)" if len(m) > 1 else f"{name} (one checkpoint, taken as it is)"
                         for name, m in c.methods.items())
        out.append(f"The verdicts are about methods, as far as they were trained more than once: {said}.")
    elif c.differences:
        out.append("The verdicts are about these checkpoints. A claim about a method needs at least 3 training seeds of it "
                   "(`polygraft compare BASE method=A,B,C`).")
    return tuple(out)
