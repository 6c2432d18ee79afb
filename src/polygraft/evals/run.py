"""Evaluate one model at a time: load it, ask every task and corpus in every language, keep a record of each item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polygraft.evals import records
from polygraft.evals.asking import Asker
from polygraft.evals.engines.base import Engine
from polygraft.evals.items import Item, Response
from polygraft.evals.lm import lm_class
from polygraft.evals.records import write_samples
from polygraft.evals.responses import About, Store
from polygraft.evals.tasks import Task, rendering
from polygraft.evals.tasks import foreign as lm_eval_tasks
from polygraft.evals.tasks.foreign import Foreign
from polygraft.evals.tasks.packing import lm_eval_config
from polygraft.evals.tasks.rendering import Asked
from polygraft.result import InputRef

BPB = "bpb"


@dataclass(frozen=True)
class Job:
    """One task in one language, with its items; or one of lm-eval's tasks; or one corpus, with its documents."""

    language: str
    task: Task | None = None
    items: tuple[Item, ...] = ()
    documents: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()  # which of a corpus's documents these are, when they are not all
    foreign: Foreign | None = None
    hub: tuple[InputRef, ...] = ()  # the hub data sets that its items are from, at their commits
    reading: bool = False  # generated only to be read: its scores enter no table

    @property
    def name(self) -> str:
        if self.foreign is not None:
            return f"{self.foreign.name}@{self.foreign.version}"
        return BPB if self.task is None else self.task.name

    @property
    def title(self) -> str:
        """What tables call it: the name without its version."""
        return self.name.partition("@")[0]

    @property
    def key(self) -> str:
        """What lm-eval and the sample files call it: `problems.es`."""
        return f"{self.title}.{self.language}" + (".reading" if self.reading else "")

    @property
    def shots(self) -> int:
        """Worked examples before each item, as asked for; a record says how many were sent."""
        return self.foreign.shots if self.foreign else max((len(i.examples) for i in self.items), default=0)

    @property
    def size(self) -> int:
        """Requests that the job makes: what progress counts."""
        return sum(max(1, len(i.choices)) for i in self.items) + len(self.documents) + (self.foreign.size if self.foreign else 0)


Progress = Callable[[int], None]


def run_jobs(engine: Engine, jobs: Sequence[Job], *, folder: Path | None, model: str, store: Store, computed: dict[str, Any],
             seed: int = 0, chat: bool = False, system: str = "", trusted: bool = False,
             progress: Progress | None = None) -> list[list[dict[str, Any]]]:
    """The records of every job (one list a job, one record an item), also written to `folder/samples/` where there is a folder.

    Responses go to the store batch by batch and are found there again after an interruption, or by a later evaluation.
    """
    asker = Asker(engine, store, computed=computed, progress=progress)
    asked = iter(task_records(asker, [j for j in jobs if j.task is not None], seed, chat, system))
    found = [next(asked) if j.task is not None else corpus_records(asker, j, seed) if j.foreign is None
             else foreign_records(asker, j.foreign, seed, chat, system, trusted) for j in jobs]
    for job, rows in zip(jobs, found):
        if folder is not None:
            write_samples(folder, sample_name(job, model), rows)
    return found


def sample_name(job: Job, model: str) -> str:
    """`problems.es.base`; where a file name cannot hold the model's, with a hash of it, as `a/b` and `a_b` are two models."""
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in model)
    return f"{job.key}.{plain}" + (f"-{hashlib.sha256(model.encode()).hexdigest()[:8]}" if plain != model else "")


# ---------------------------------------------------------------------------------------------------------------- tasks


def task_records(asker: Asker, jobs: Sequence[Job], seed: int, chat: bool, system: str) -> list[list[dict[str, Any]]]:
    """Ask all tasks through lm-eval at once, so that their requests share batches, and turn the answers into records."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    if not jobs:
        return []
    sent = [[rendering.asked(j.task, i, asker.engine, chat=chat, system=system) for i in j.items] for j in jobs if j.task]
    configs = [lm_eval_config(j.task, j.key, found, rendering.decoding(j.task, j.language) if j.task.written else None)
               for j, found in zip(jobs, sent) if j.task]
    lm = lm_class()(asker, {j.key: About(j.name, j.language, j.shots, seed) for j in jobs})
    with lm_eval_tasks.quiet():
        evaluate(lm=lm, task_dict=TaskManager(include_defaults=False).load(configs), bootstrap_iters=0)
    def response(job: Job, n: int, item: Item, asked: Asked) -> Response:
        found = _response(lm.given, job.key, n, asked, asker.engine)
        return replace(found, gold_tokens=asker.engine.count(asked.delimiter + item.golds[0])) if item.golds else found

    return [[records.record(job.task, item, asked, response(job, n, item, asked), reading=job.reading)
             for n, (item, asked) in enumerate(zip(job.items, found, strict=True))] for job, found in zip(jobs, sent) if job.task]


def _response(given: Mapping[tuple[str, int, int], Any], task: str, number: int, asked: Asked, engine: Engine) -> Response:
    """What was answered to one item: its text, or the likelihood of each of its choices (`tokens`: of all of them together)."""
    if not asked.continuations:
        return given[task, number, 0]
    pairs = [given[task, number, i] for i in range(len(asked.continuations))]
    tokens = sum(map(engine.count, asked.continuations))
    return Response(tuple(p.nats for p in pairs), tuple(p.greedy for p in pairs), tokens=tokens,
                    seconds=sum(p.seconds for p in pairs))


def foreign_records(asker: Asker, foreign: Foreign, seed: int, chat: bool, system: str, trusted: bool) -> list[dict[str, Any]]:
    """Let lm-eval ask one of its own tasks, and make records of what it logged."""
    about = About(f"lm-eval:{foreign.name}@{foreign.version}", "", foreign.shots, seed)
    lm = lm_class()(asker, {foreign.name: about})
    rows = lm_eval_tasks.records(foreign, lm_eval_tasks.samples(lm, foreign, chat=chat, system=system, trusted=trusted))
    given: dict[str, list[Any]] = {}
    for (_, document, _), answer in lm.given.items():
        given.setdefault(str(document), []).append(answer)
    for row in rows:
        chosen = sum(map(asker.engine.count, row.get("choices", ())))
        row["tokens"] = chosen or sum(getattr(a, "tokens", 0) for a in given.get(row["id"], ()))
        row["seconds"] = sum(a.seconds for a in given.get(row["id"], ()))
    return rows


# --------------------------------------------------------------------------------------------------------------- corpora


def corpus_records(asker: Asker, job: Job, seed: int) -> list[dict[str, Any]]:
    """Nats, bytes and tokens of each document."""
    about = About(BPB, job.language, 0, seed)
    found = asker.documents([(about, text) for text in job.documents])
    numbers = job.numbers or range(len(found))
    return [records.document(job.language, n, text, s) for n, text, s in zip(numbers, job.documents, found, strict=True)]
