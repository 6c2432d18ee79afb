"""Tables that read scores another way: what an untidy question costs, which way likelihoods lean, how sure and how right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from polygraft.evals.metrics.base import mean
from polygraft.evals.metrics.calibration import reliability
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Cell, Estimate, Table

AS_WRITTEN, CHANGED = "as written", "changed"


def tables(measures: Sequence[Measure], seed: int = 0) -> tuple[Table, ...]:
    """Those that these measures give."""
    return (*drops(measures, seed), *leans(measures, seed), *reliabilities(measures))


def drops(measures: Sequence[Measure], seed: int = 0) -> tuple[Table, ...]:
    """For every task that was asked both as written and changed (`mgsm`, `mgsm+typos`): both scores on the items that both have,
    and the paired difference with its verdict, for each model. Nothing where no task was."""
    pairs = list(_pairs(measures))
    if not pairs:
        return ()
    found = compare.compared([m for *_, m in pairs], AS_WRITTEN, seed)
    score = {(s.task, s.language, s.metric, s.model): s.estimate for s in found.scores if not s.average}
    diff = {(d.task, d.language, d.metric): Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict)
            for d in found.differences if not d.average}
    rows: list[tuple[Cell, ...]] = []
    for task, language, model, m in pairs:
        key = (m.task, m.language, m.metric.name)
        rows.append((task, language, model, m.metric.name, score.get((*key, AS_WRITTEN)), score.get((*key, CHANGED)),
                     diff.get(key)))
    columns = ("task", "language", "model", "metric", AS_WRITTEN, CHANGED, "difference")
    return (Table("What untidy questions cost", columns, tuple(rows), "the same items, paired; verdicts hold over all "
                  f"{len(diff)} comparisons of the table (Holm within a metric, 5 %)"),)


def _pairs(measures: Sequence[Measure]) -> Iterator[tuple[str, str, str, Measure]]:
    """(task, language, model, a measure whose two "models" are the two ways of asking)."""
    plain = {(m.task, m.language, m.metric.name): m for m in measures}
    for m in measures:
        base = plain.get((m.task.rpartition("+")[0], m.language, m.metric.name))
        if base is None:
            continue
        place = {id: i for i, id in enumerate(base.ids)}
        both = [i for i, id in enumerate(m.ids) if id in place]
        for model in m.models if both else ():
            columns = {AS_WRITTEN: base.columns[model][[place[m.ids[i]] for i in both]], CHANGED: m.columns[model][both]}
            yield m.task, m.language, model, Measure(f"{m.task}/{model}", m.language, m.metric, columns)


def leans(measures: Sequence[Measure], seed: int = 0) -> tuple[Table, ...]:
    """The signed mean of the likelihood gaps, with its interval, for each task, language and model; nothing without such a task."""
    signed = [replace(m, metric=replace(m.metric, value=mean), strata=()) for m in measures if m.metric.name == "likelihood lean"]
    if not signed:
        return ()
    scores = [s for s in compare.compared(signed, "", seed).scores if not s.average]
    return (Table("Which way the likelihoods lean", ("task", "language", "model", "mean signed gap"),
                  tuple((s.task, s.language, s.model, s.estimate) for s in scores),
                  "nats; above 0: the first group goes with the first attribute, as the task's file lists them; an interval that "
                  "holds 0 shows no direction"),)


def reliabilities(measures: Sequence[Measure]) -> tuple[Table, ...]:
    """For every task with a calibration error, and every model: how sure and how right it is, bin by bin, over all languages."""
    found = [m for m in measures if m.metric.name == "calibration error"]
    out = []
    for task in dict.fromkeys(m.task for m in found):
        here = [m for m in found if m.task == task]
        for model in here[0].models:
            sums = np.sum([m.columns[model].sum(axis=0) for m in here], axis=0)
            out.append(reliability(sums, f"{task}: how sure and how right, {model}"))
    return tuple(out)
