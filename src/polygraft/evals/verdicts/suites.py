"""A suite's results: the score of every dataset, the mean of each group, and the average of all datasets.

Micro-Avg is the plain mean of the datasets' scores, as Darumeru has it: a dataset counts once, however many items it has. Its
interval and the differences between models come from one bootstrap that draws the items of every dataset anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric
from polygraft.evals.tasks.suites import Expanded, Part
from polygraft.evals.verdicts.compare import Comparison, Figure
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Cell, Table

SUITE, MICRO = "suite", "Micro-Avg"
SCORE = Metric("suite score", "%", "plain mean of the datasets' scores, each in percent of its highest possible value",
               lambda *_: (), averages=False)


def parts(suite: Expanded, measures: Sequence[Measure]) -> list[tuple[Part, Measure]]:
    """Each dataset with the measure that is its score; datasets that were not asked are left out."""
    found = {(m.task, m.language, m.metric.name): m for m in measures}
    keys = ((part, (e.task.task, e.language, metrics.get(part.score).name)) for part, e in suite.asked)
    return [(part, found[key]) for part, key in keys if key in found]


def share(measure: Measure) -> Measure:
    """The measure as a share of 1, where its metric counts points out of 100 (chrF)."""
    metric = measure.metric
    return measure if metric.unit == "%" else replace(measure, metric=replace(metric, value=lambda sums: metric.value(sums) / 100))


def figures(suite: Expanded, measures: Sequence[Measure]) -> list[Figure]:
    """Micro-Avg over all datasets that count, then the mean of each group."""
    counted = [(part.group, share(m)) for part, m in parts(suite, measures) if part.average]
    groups = list(dict.fromkeys(g for g, _ in counted))
    if not counted:
        return []
    out = [Figure(suite.name, f"{MICRO} ({len(counted)} datasets)", SCORE, tuple(m for _, m in counted), SUITE)]
    return out + [Figure(suite.name, g, SCORE, tuple(m for of, m in counted if of == g), SUITE) for g in groups]


def table(suite: Expanded, measures: Sequence[Measure], c: Comparison) -> Table:
    """Datasets down, models across; the datasets that count in the average first."""
    models = list(dict.fromkeys(s.model for s in c.scores))
    scores = {(s.task, s.language, s.metric, s.model): s.estimate for s in c.scores if not s.average}
    rows: list[tuple[Cell, ...]] = []
    for part, m in sorted(parts(suite, measures), key=lambda found: not found[0].average):
        shots = next(e.shots for p, e in suite.asked if p is part)
        cells = [scores.get((m.task, m.language, m.metric.name, model)) for model in models]
        rows.append((part.group, f"{m.task} {m.language}", m.metric.name, shots, *cells))
    note = "95 % intervals over items; " + SCORE.meaning
    if any(not part.average for part, _ in parts(suite, measures)):
        note += "; nats per sentence are beside the average"
    return Table(f"{suite.name}: datasets", ("group", "dataset", "score", "shots", *models), tuple(rows), note)


def nats_table(measures: Sequence[Measure]) -> Table | None:
    """Nats per parallel sentence by language, and against English; None where no other language than English was asked."""
    here = [m for m in measures if m.metric.name == "nats per sentence"]
    english = next((m for m in here if m.language == "en"), None)
    if english is None or len(here) < 2:
        return None
    rows: list[tuple[Cell, ...]] = []
    for m in here:
        value = {model: float(m.metric.value(c.sum(axis=0))) for model, c in m.columns.items()}
        base = {model: float(english.metric.value(c.sum(axis=0))) for model, c in english.columns.items()}
        rows += [(m.language, model, value[model], value[model] / base[model] if base[model] else None) for model in m.models]
    return Table("Nats per parallel sentence", ("language", "model", "nats a sentence", "times English"), tuple(rows),
                 "the same sentences in every language: 1 time English would be a language known as well as English")


def tables(groups: Sequence[Expanded], measures: Sequence[Measure], c: Comparison) -> list[Table]:
    """The datasets of every suite, and nats per parallel sentence."""
    nats = nats_table(measures)
    return [table(g, measures, c) for g in groups] + ([nats] if nats is not None else [])


def notes(groups: Sequence[Expanded], measures: Sequence[Measure]) -> tuple[str, ...]:
    """Which datasets of a suite were not asked, so that its average is not that of another data folder."""
    out = []
    for suite in groups:
        there = [part for part, _ in parts(suite, measures)]
        if left := [f"{e.task.task} {e.language}" for part, e in suite.asked if part not in there]:
            out.append(f"{suite.name}: not in the data folder and left out: {', '.join(left)}.")
    return tuple(out)
