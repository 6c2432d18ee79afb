"""DaruCopy on any texts: a model in memory is asked to write them back, by the words and scores of the shipped copy tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from polygraft.evals import metrics, tasks
from polygraft.evals.conditions import engine, written
from polygraft.evals.engines.base import Written
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.copying import METRICS
from polygraft.evals.tasks import building, rendering
from polygraft.evals.tasks.rows import Row

NAMES = tuple(m.name for m in METRICS)


@dataclass(frozen=True)
class Copied(Written):
    """A copy, its score by each metric (a share of 1; symbols per token: characters), and the tokens of the source."""

    scores: Mapping[str, float] = field(default_factory=dict)
    source_tokens: int = 0


def copies(live: Any, language: str, kind: Literal["sentence", "paragraph"], texts: Sequence[str], chat: bool) -> list[Copied]:
    """Ask for each text as `copy-sentence` and `copy-paragraph` ask; greedy. Raises InputError for a text that cannot be asked."""
    task, scorer = tasks.load(f"copy-{kind}"), engine(live)
    items = building.build(task, language, [(n, Row(f"text {n}", {"text": text, "line": n})) for n, text in enumerate(texts)])
    asked = [rendering.asked(task, item, scorer, chat=chat) for item in items]
    answers = written(scorer, [a.text for a in asked], rendering.decoding(task, language))
    return [_scored(item, answer, scorer.count(a.delimiter + item.golds[0]))
            for item, a, answer in zip(items, asked, answers, strict=True)]


def _scored(item: Item, answer: Written, source_tokens: int) -> Copied:
    response = Response(text=answer.text, tokens=answer.tokens, gold_tokens=source_tokens, finished=answer.finished)
    columns = {name: metrics.get(name).score(item, response) for name in NAMES}
    scores = {name: top / bottom if bottom else 0.0 for name, (top, bottom) in columns.items()}
    return Copied(answer.text, answer.tokens, answer.finished, answer.ids, scores, source_tokens)
