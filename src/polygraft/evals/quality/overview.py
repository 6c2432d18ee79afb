"""The table that every evaluation with written answers gets: are they in the right language, whole, and not said twice?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.quality import DEFAULT
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.measures import Measure, from_records
from polygraft.result import Cell, Table


def measured(task: str, language: str, items: Sequence[Item], records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Measure]:
    """The default metrics of quality of written answers, from the records that every model has of these items."""
    used = {name: metrics.get(name) for name in DEFAULT}

    def scored(item: Item, row: Mapping[str, Any]) -> dict[str, Any]:
        response = Response(text=row["output"], tokens=row["tokens"], finished=row["finished"])
        return {"id": row["id"], "scores": {name: list(m.score(item, response)) for name, m in used.items()}}

    rows = {model: [scored(i, r) for i, r in zip(items, found, strict=True)] for model, found in records.items()}
    return from_records(task, language, rows)


def table(measures: Sequence[Measure], seed: int = 0) -> tuple[Table, ...]:
    """One row a task, language and model, one column a metric; nothing where nothing was written."""
    if not measures:
        return ()
    scores = {(s.task, s.language, s.model, s.metric): s.estimate for s in compare.compared(measures, "", seed, draws=2000).scores
              if not s.average}
    keys = dict.fromkeys(key[:3] for key in scores)
    rows: tuple[tuple[Cell, ...], ...] = tuple((*key, *(scores.get((*key, name)) for name in DEFAULT)) for key in keys)
    return (Table("Quality of what was written", ("task", "language", "model", *DEFAULT), rows,
                  "percent, without looking at right answers; empty where no answer could be judged; refusals are found by their "
                  "usual phrases; a verdict on these needs them among a task's `metrics`"),)
