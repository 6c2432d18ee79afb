"""A suite's results: the score of every dataset, the mean of each group, and the average of all datasets.

Micro-Avg is the plain mean of the datasets' scores, as Darumeru has it: a dataset counts once, however many items it has. Its
interval and the differences between models come from one bootstrap that draws the items of every dataset anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polygraft.config import Strict
from polygraft.errors import InputError
from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric
from polygraft.evals.tasks.suites import Expanded
from polygraft.evals.verdicts import tables as verdict_tables
from polygraft.evals.verdicts.compare import Comparison, Figure
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Cell, Estimate, Table

SUITE, MICRO = "suite", "Micro-Avg"
SCORE = Metric("suite score", "%", "plain mean of the datasets' scores, each in percent of its highest possible value",
               lambda *_: (), averages=False)


class Member(Strict):
    """One dataset of a suite as it was asked: the metric that is its score, and the worked examples before each item."""

    group: str
    task: str
    language: str
    metric: str
    average: bool
    shots: int | None


class Composition(Strict):
    """What a suite was made of, as `data["suites"]` of a result holds it: its average can be made again from the records."""

    name: str
    members: tuple[Member, ...]


def composition(suite: Expanded) -> Composition:
    """What a suite is made of, as it is asked."""
    return Composition(name=suite.name, members=tuple(
        Member(group=part.group, task=e.task.task, language=e.language, metric=metrics.get(part.score).name, average=part.average,
               shots=e.shots) for part, e in suite.asked))


def from_data(rows: Any, where: object) -> tuple[Composition, ...]:
    """The suites of a finished evaluation. Raises InputError where they cannot be read."""
    try:
        return tuple(Composition.model_validate_json(json.dumps(r)) for r in rows)
    except (TypeError, ValueError) as e:
        raise InputError("the suites of this evaluation cannot be read", where=where,
                         fix="it was made by another version of polygraft: evaluate again") from e


def united(found: Iterable[Composition]) -> tuple[Composition, ...]:
    """Every suite once, with the datasets of all evaluations that asked it."""
    out: dict[str, dict[tuple[str, str, str], Member]] = {}
    for suite in found:
        members = out.setdefault(suite.name, {})
        for m in suite.members:
            members.setdefault((m.task, m.language, m.metric), m)
    return tuple(Composition(name=name, members=tuple(members.values())) for name, members in out.items())


def parts(suite: Composition, measures: Sequence[Measure]) -> list[tuple[Member, Measure]]:
    """Each dataset with the measure that is its score; datasets that were not asked are left out."""
    found = {(m.task, m.language, m.metric.name): m for m in measures}
    keys = ((member, (member.task, member.language, member.metric)) for member in suite.members)
    return [(member, found[key]) for member, key in keys if key in found]


def share(measure: Measure) -> Measure:
    """The measure as a share of 1, where its metric counts points out of 100 (chrF)."""
    metric = measure.metric
    return measure if metric.unit == "%" else replace(measure, metric=replace(metric, value=lambda sums: metric.value(sums) / 100))


def figures(suite: Composition, measures: Sequence[Measure]) -> list[Figure]:
    """Micro-Avg over all datasets that count, then the mean of each group."""
    counted = [(part.group, share(m)) for part, m in parts(suite, measures) if part.average]
    groups = list(dict.fromkeys(g for g, _ in counted))
    if not counted:
        return []
    out = [Figure(suite.name, f"{MICRO} of {len(counted)}", SCORE, tuple(m for _, m in counted), SUITE)]
    return out + [Figure(suite.name, g, SCORE, tuple(m for of, m in counted if of == g), SUITE) for g in groups]


def datasets(suite: Composition, measures: Sequence[Measure], c: Comparison) -> list[Table]:
    """Datasets down, models across: scores, differences from the reference, and what else was measured of each."""
    found = parts(suite, measures)
    models = list(dict.fromkeys(s.model for s in c.scores))
    scores = {(s.task, s.language, s.metric, s.model): s.estimate for s in c.scores if not s.average}
    differences = {(d.task, d.language, d.metric, d.model): Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict)
                   for d in c.differences if not d.average}
    shots = {(m.task, m.language): m.shots for m in suite.members}

    def row(m: Measure, cells: Mapping[tuple[str, str, str, str], Estimate], columns: Sequence[str]) -> tuple[Cell, ...]:
        found = (cells.get((m.task, m.language, m.metric.name, model)) for model in columns)
        return f"{m.task} {m.language}", m.metric.name, *found

    main = [m for _, m in sorted(found, key=lambda pair: not pair[0].average)]
    examples = {n: ", ".join(dict.fromkeys(m.task for m in main if shots[m.task, m.language] == n)) for n in shots.values() if n}
    said = "; ".join(f"{n} before {names}" for n, names in examples.items() if names)
    out = [Table(f"{suite.name}: datasets", ("dataset", "score", *models), tuple(row(m, scores, models) for m in main),
                 f"95 % intervals over items; worked examples: {said or 'none'}")]
    if others := [m for m in models if m != c.reference]:
        out.append(Table(f"{suite.name}: datasets, difference from {c.reference}", ("dataset", "score", *others),
                         tuple(row(m, differences, others) for m in main),
                         "paired over the same items; verdicts hold over all comparisons of one metric (Holm, 5 %)"))
    beside = [m for m in measures if (m.task, m.language) in shots and m not in main]
    if beside:
        out.append(Table(f"{suite.name}: beside the scores", ("dataset", "measure", *models),
                         tuple(row(m, scores, models) for m in beside), "; ".join(dict.fromkeys(
                             f"{m.metric.name}: {m.metric.meaning}" for m in beside))))
    return out


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


def tables(groups: Sequence[Composition], measures: Sequence[Measure], c: Comparison, named: Collection[str] = ()) -> list[Table]:
    """Of every suite its averages and datasets, then nats per parallel sentence, then what was asked besides the suites.

    `named` are the tasks that were asked for by their own names: theirs are the usual tables, too.
    """
    out = []
    for g in groups:
        scores, *differences = datasets(g, measures, c)
        averages = verdict_tables.tables(replace(c, figures=tuple(f for f in c.figures if f.task == g.name)))
        out += [scores, *averages, *differences]
    nats = nats_table(measures)
    return [*out, *([nats] if nats is not None else []), *verdict_tables.tables(besides(groups, c, named))]


def besides(groups: Sequence[Composition], c: Comparison, named: Collection[str] = ()) -> Comparison:
    """The comparison without the figures of the suites and their datasets."""
    hidden = {m.task for g in groups for m in g.members if m.task not in named} | {g.name for g in groups}
    return replace(c, figures=tuple(f for f in c.figures if f.task not in hidden))


def told(groups: Sequence[Composition], c: Comparison, named: Collection[str] = ()) -> Comparison:
    """The comparison with the differences that are told in words: the suites' averages, and what was asked besides."""
    kept = {f.task for f in besides(groups, c, named).figures} | {g.name for g in groups}
    return replace(c, differences=tuple(sorted((d for d in c.differences if d.task in kept),
                                               key=lambda d: d.metric != SCORE.name)))


def notes(groups: Sequence[Composition], measures: Sequence[Measure], why: str = "not in the data folder") -> tuple[str, ...]:
    """Which datasets of a suite are left out, so that its average is not that of another data folder, and for which models."""
    out = []
    for suite in groups:
        there = parts(suite, measures)
        if left := [f"{m.task} {m.language}" for m in suite.members if m not in [member for member, _ in there]]:
            out.append(f"{suite.name}: {why} and left out: {', '.join(left)}.")
        counted = [m for member, m in there if member.average]
        for model in dict.fromkeys(name for m in counted for name in m.models):
            if lacks := [f"{m.task} {m.language}" for m in counted if model not in m.models]:
                out.append(f"{suite.name}: no average of {model}, which lacks {', '.join(lacks)}.")
    return tuple(out)
