"""What candidates are asked: the evaluation's own items as rows of tokens, and the answers as the evaluation's own records.

Texts become tokens in `evals.engines.coding.Coded`, items become texts in `evals.tasks.rendering`, answers become scores in
`evals.records`: nothing here is another way of doing so, and a score is what `polygraft eval` gives for the written merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polygraft.errors import InputError, RecipeError
from polygraft.evals import records
from polygraft.evals.bpb import Scored
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.coding import Coded, Done
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric
from polygraft.evals.run import Job
from polygraft.evals.tasks import rendering
from polygraft.evals.tasks.rendering import Asked
from polygraft.evals.timed import units
from polygraft.evals.verdicts.measures import Measure, from_records

KL = "kl"
Units = tuple[tuple[int, ...], ...]  # the places of items that count only together, in the order in which they are asked


def _measured(item: Item, response: Response) -> Sequence[float]:
    """(nats of divergence from the reference over a document, its tokens)."""
    return (-response.nats[0], float(item.extra["tokens"]))


DIVERGENCE = Metric(KL, "nats", "Kullback-Leibler divergence of the next token from the reference's, nats a token, lower is "
                    "nearer; bootstrap intervals over documents", _measured, higher_is_better=False)


@dataclass(frozen=True)
class Ask:
    """A job that is scored by likelihood, or (`reference`: task, language or base) a corpus on which to stay near a source."""

    job: Job
    reference: str | None = None

    @property
    def title(self) -> str:
        return KL if self.reference else self.job.title

    @property
    def label(self) -> str:
        return f"{self.title}:{self.job.language}"

    @property
    def n(self) -> int:
        return len(self.job.items) or len(self.job.documents)


@dataclass(frozen=True)
class Question:
    """One item or document: the numbers of its rows in the sheet (None: an empty continuation), and what its record needs."""

    rows: tuple[int | None, ...]
    asked: Asked | None = None
    scored: Scored | None = None
    tokens: int = 0
    gold_tokens: int = 0


class Ledger(Coded):
    """An engine that writes down what it is asked: `rows` of ids, of each of which the last `scored` are to be scored."""

    def __init__(self, tokenizer: Any, max_length: int):
        super().__init__(tokenizer, max_length)
        self.rows: list[list[int]] = []
        self.scored: list[int] = []

    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """Answers each row with its number, counted from 1, so that the caller learns which is whose."""
        first = len(self.rows) + 1
        self.rows += [list(row) for row in rows]
        self.scored += list(scored)
        done([(i, (float(first + i), True)) for i in range(len(rows))])

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Any) -> None:
        raise InputError("written answers are asked of the finalists only", where=self.name)


@dataclass(frozen=True)
class Sheet:
    """Everything that any candidate may be asked. `rows` are id sequences whose last `scored` tokens count; `questions[a][i]` is
    the i-th item of the a-th ask; `select` and `held` say which of them choose and which confirm."""

    asks: tuple[Ask, ...]
    questions: tuple[tuple[Question, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    scored: tuple[int, ...]
    select: tuple[Units, ...]
    held: tuple[Units, ...]

    def rows_of(self, ask: int, some: Units) -> list[int]:
        """The numbers of the rows of these units."""
        return [r for unit in some for i in unit for r in self.questions[ask][i].rows if r is not None]

    def record(self, ask: int, place: int, values: np.ndarray, greedy: np.ndarray) -> dict[str, Any]:
        """An item's record, as an evaluation writes it, from nats (of a divergence: itself) float64 [rows] and bool [rows]."""
        here, q = self.asks[ask], self.questions[ask][place]
        if q.asked is None:
            assert q.scored is not None
            found, n = sum(values[r] for r in q.rows if r is not None), (here.job.numbers or range(here.n))[place]
            if here.reference:
                return {"id": f"{here.job.language}-{n:04d}", "scores": {KL: [float(found), float(q.scored.tokens)]}}
            scored = Scored(-float(found), q.scored.bytes, q.scored.tokens)
            return records.document(here.job.language, n, here.job.documents[place], scored)
        assert here.job.task is not None
        answer = Response(tuple(0.0 if r is None else float(values[r]) for r in q.rows),
                          tuple(r is None or bool(greedy[r]) for r in q.rows), tokens=q.tokens, gold_tokens=q.gold_tokens)
        return records.record(here.job.task, here.job.items[place], q.asked, answer)

    def measures(self, ask: int, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Measure]:
        """Per-item columns of every metric of an ask, from the records of several candidates on the same items."""
        here = self.asks[ask]
        return from_records(here.title, here.job.language, found, {KL: DIVERGENCE})


def sheet(jobs: Sequence[Job], references: Mapping[str, str], tokenizer: Any, max_length: int, *, chat: bool = False,
          system: str = "", confirm: float = 0.5, seed: int = 0, least: tuple[int, int] = (1, 1)) -> Sheet:
    """Items as rows, split by the hash of their ids. A corpus in a language of `references` is one on which to stay near a source.

    Raises InputError for fewer than `least` items to choose and to confirm by.
    """
    ledger = Ledger(tokenizer, max_length)
    asks = tuple(Ask(j, references.get(j.language) if j.documents else None) for j in jobs)
    questions = tuple(tuple(_questions(a, ledger, chat, system)) for a in asks)
    parts = [split(a, confirm, seed, least) for a in asks]
    return Sheet(asks, questions, tuple(map(tuple, ledger.rows)), tuple(ledger.scored), tuple(p[0] for p in parts),
                 tuple(p[1] for p in parts))


def split(ask: Ask, confirm: float, seed: int, least: tuple[int, int]) -> tuple[Units, Units]:
    """The items to choose by and those to confirm by: picked by hash, evenly over strata, the same items in every language."""
    order = [tuple(unit) for unit in units(ask.job, seed)]
    held = round(confirm * len(order))
    if len(order) - held < least[0] or held < least[1]:
        raise InputError("too few items to choose by some and to confirm the choice by others", where=ask.label,
                         found=f"{len(order) - held} to choose by, {held} to confirm by",
                         expected=f"at least {least[0]} and {least[1]}", fix="ask more items (limit, max_bytes), or change confirm")
    return tuple(order[: len(order) - held]), tuple(order[len(order) - held :])


def _questions(ask: Ask, ledger: Ledger, chat: bool, system: str) -> list[Question]:
    if ask.job.task is None:
        return [_document(ledger, text) for text in ask.job.documents]
    return [_item(ask, item, ledger, chat, system) for item in ask.job.items]


def _document(ledger: Ledger, text: str) -> Question:
    first = len(ledger.rows)
    [scored] = ledger.documents([text])
    return Question(tuple(range(first, len(ledger.rows))), scored=scored)


def _item(ask: Ask, item: Item, ledger: Ledger, chat: bool, system: str) -> Question:
    assert ask.job.task is not None
    sent = rendering.asked(ask.job.task, item, ledger, chat=chat, system=system)
    numbers: dict[int, float] = {}
    ledger.pairs([(sent.text, c) for c in sent.continuations], lambda found: numbers.update((i, v) for i, (v, _) in found))
    rows = tuple(int(numbers[i]) - 1 if numbers[i] else None for i in range(len(sent.continuations)))
    gold = ledger.count(sent.delimiter + item.golds[0]) if item.golds else 0
    return Question(rows, sent, tokens=sum(map(ledger.count, sent.continuations)), gold_tokens=gold)


def scorable(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """(jobs that every candidate is asked, those whose answers are written, for the finalists). Raises RecipeError for others."""
    for job in jobs:
        if job.foreign is not None:
            raise foreign(job.name)
    scored = [j for j in jobs if j.task is None or not j.task.written]
    if not scored:
        raise RecipeError("nothing that candidates can be scored on", where="tasks", found="written answers only",
                          fix="add a task that is scored by likelihood, or a corpus")
    return scored, [j for j in jobs if j.task is not None and j.task.written]


def foreign(name: str) -> RecipeError:
    """What is said of lm-eval's own tasks: it asks them of whole models."""
    return RecipeError("lm-eval's own tasks cannot be asked of a model that is never made", where=name,
                       fix="evaluate the chosen merge on them: --write best, then eval")
