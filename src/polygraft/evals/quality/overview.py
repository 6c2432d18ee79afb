"""Two tables that every evaluation gets: how what was written looks, and how sure the model was of what it chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.quality import DEFAULT
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.measures import Measure, from_records
from polygraft.result import Cell, Table

Records = Mapping[str, Sequence[Mapping[str, Any]]]
Answered = tuple[str, str, Records]  # task, language, every model's records of the same items
CERTAINTY = ("accuracy", "calibration error", "brier")


def tables(answered: Iterable[Answered], seed: int = 0) -> tuple[Table, ...]:
    """One row a task, language and model, one column a metric; each table only where there is something to put into it."""
    written, chosen = judged(answered)
    return (*_table("Quality of what was written", DEFAULT, written, seed,
                    "percent, without looking at right answers; empty where no answer could be judged; refusals are found by their "
                    "usual phrases; a verdict on these needs them among a task's `metrics`"),
            *_table("How sure and how right", CERTAINTY, chosen, seed,
                    "calibration error: how far the probability of the chosen answer is from how often it is right (10 bins; too "
                    "large on few items); brier: 0 is sure and right, 2 is sure and wrong"))


def judged(answered: Iterable[Answered]) -> tuple[list[Measure], list[Measure]]:
    """(quality of everything written, certainty of everything chosen), whatever metrics the tasks themselves name."""
    written: list[Measure] = []
    chosen: list[Measure] = []
    for task, language, records in answered:
        rows = [row for found in records.values() for row in found]
        if all("finished" in row for row in rows):  # not so what lm-eval scored by its own rules
            written += measured(task, language, records, DEFAULT)
        elif all("accuracy" in row["scores"] and len(row.get("choices", ())) > 1 for row in rows):
            chosen += measured(task, language, records, CERTAINTY)
    return written, chosen


def measured(task: str, language: str, records: Records, names: Sequence[str]) -> list[Measure]:
    """These metrics, from what the records hold of every model's answers."""
    used = {name: metrics.get(name) for name in names}

    def scored(row: Mapping[str, Any]) -> dict[str, Any]:
        item = asked(language, row)
        response = Response(nats=tuple(-x for x in row.get("choice_nats", ())), text=row.get("output", ""),
                            tokens=row.get("tokens", 0), finished=row.get("finished", True))
        return {"id": row["id"], "scores": {name: list(m.score(item, response)) for name, m in used.items()}}

    return from_records(task, language, {model: [scored(row) for row in found] for model, found in records.items()})


def asked(language: str, row: Mapping[str, Any]) -> Item:
    """The item of a record, as far as the metrics here look at it."""
    choices = tuple(row.get("choices", ()))
    return Item(row["id"], language, row.get("prompt", ""), choices, target=row["gold"] if choices else 0,
                extra={"answer_language": row.get("answer_language", language)})


def _alone(measures: Sequence[Measure]) -> Iterator[Measure]:
    """Every model's part of every measure, on the items for which it is defined."""
    for m in measures:
        for model in m.models:
            if m.defined[model].any():
                yield replace(m, columns={model: m.columns[model]}).rows([int(i) for i in m.defined[model].nonzero()[0]])


def _table(title: str, names: Sequence[str], measures: Sequence[Measure], seed: int, note: str) -> tuple[Table, ...]:
    if not measures:
        return ()
    # no reference: scores only; each model by itself on the items that count for it, since few may
    found = [compare.compared([m], "", seed, draws=2000).scores[0] for m in _alone(measures)]
    scores = {(s.task, s.language, s.model, s.metric): s.estimate for s in found}
    keys = dict.fromkeys(key[:3] for key in scores)
    rows: tuple[tuple[Cell, ...], ...] = tuple((*key, *(scores.get((*key, name)) for name in names)) for key in keys)
    return (Table(title, ("task", "language", "model", *names), rows, note),)
