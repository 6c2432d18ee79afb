"""Evaluate one model at a time: load it, ask every task and corpus in every language, keep a record of each item."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.evals import tasks
from polygraft.evals.asking import Asker
from polygraft.evals.engines.base import Engine
from polygraft.evals.lm import lm_class
from polygraft.evals.records import prompt_hash, write_samples
from polygraft.evals.responses import About, Store
from polygraft.evals.tasks import Task
from polygraft.evals.tasks.reading import Item

BPB = "bpb"


@dataclass(frozen=True)
class Job:
    """One task in one language, with its items; or one corpus (`task` None), with its documents."""

    language: str
    task: Task | None = None
    items: tuple[Item, ...] = ()
    documents: tuple[str, ...] = ()
    reading: bool = False  # generated only to be read: its scores enter no table

    @property
    def name(self) -> str:
        return BPB if self.task is None else self.task.name

    @property
    def key(self) -> str:
        """What lm-eval and the sample files call it: `problems.es`."""
        return f"{self.name.partition('@')[0]}.{self.language}" + (".reading" if self.reading else "")

    @property
    def size(self) -> int:
        """Requests that the job makes: what progress counts."""
        return sum(max(1, len(i.choices)) for i in self.items) + len(self.documents)


Progress = Callable[[int], None]


def run_jobs(engine: Engine, jobs: Sequence[Job], *, folder: Path, model: str, store: Store, computed: dict[str, Any],
             seed: int = 0, shots: int = 0, chat: bool = False, progress: Progress | None = None) -> list[list[dict[str, Any]]]:
    """The records of every job (one list a job, one record an item), also written to `folder/samples/`.

    Responses go to the store batch by batch and are found there again after an interruption, or by a later evaluation.
    """
    asker = Asker(engine, store, computed=computed, progress=progress)
    about = {j.key: About(j.name, j.language, shots, seed) for j in jobs}
    asked = iter(task_records(asker, [j for j in jobs if j.task is not None], about, chat))
    out = [corpus_records(asker, j, about[j.key]) if j.task is None else next(asked) for j in jobs]
    for job, records in zip(jobs, out):
        write_samples(folder, sample_name(job, model), records)
    return out


def sample_name(job: Job, model: str) -> str:
    """`problems.es.base`, with what a file name cannot hold replaced."""
    return f"{job.key}." + "".join(c if c.isalnum() or c in "._-" else "_" for c in model)


# ---------------------------------------------------------------------------------------------------------------- tasks


def task_records(asker: Asker, jobs: Sequence[Job], about: dict[str, About], chat: bool) -> list[list[dict[str, Any]]]:
    """Ask all tasks through lm-eval at once, so that their requests share batches, and turn what it logged into records."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    if not jobs:
        return []
    configs = [tasks.lm_eval_config(j.task, j.language, j.items) | {"task": j.key} for j in jobs if j.task is not None]
    lm = lm_class()(asker, about)
    with quiet():
        loaded = TaskManager(include_defaults=False).load(configs)
        found = evaluate(lm=lm, task_dict=loaded, log_samples=True, bootstrap_iters=0, apply_chat_template=chat)
    assert found is not None
    out = []
    for job in jobs:
        samples = sorted(found["samples"][job.key], key=lambda s: s["doc_id"])
        out.append([_record(item, s, job) for item, s in zip(job.items, samples, strict=True)])
    return out


def _record(item: Item, sample: dict[str, Any], job: Job) -> dict[str, Any]:
    """One item's line: enough to see what was asked and answered, and to compute every score again."""
    prompt = sample["arguments"][0][0] if isinstance(sample["arguments"], list) else sample["arguments"]["gen_args_0"]["arg_0"]
    row = {"id": item.id, "language": item.language, "prompt_sha256_16": prompt_hash(prompt), "gold": item.gold,
           "correct": bool(sample["accuracy"])}
    if job.task is not None and job.task.output_type != tasks.CHOICE:
        return row | {"output": sample["filtered_resps"][0]}
    return row | {"choices": list(item.choices), "choice_nats": [-float(r[0]) for r in sample["filtered_resps"]],
                  "nats": sample["nats"], "margin": sample["margin"]}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's notices and its own progress bar off the terminal."""
    import lm_eval.api.task as module

    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, module.tqdm
    logger.setLevel(logging.ERROR)
    module.tqdm = lambda found, **_: found
    try:
        yield
    finally:
        logger.setLevel(level)
        module.tqdm = bar


# --------------------------------------------------------------------------------------------------------------- corpora


def corpus_records(asker: Asker, job: Job, about: About) -> list[dict[str, Any]]:
    """Nats, bytes and tokens of each document."""
    found = asker.documents([(about, text) for text in job.documents])
    return [{"id": f"{job.language}-{i:04d}", "language": job.language, "prompt_sha256_16": prompt_hash(text),
             "nats": s.nats, "bytes": s.bytes, "tokens": s.tokens} for i, (text, s) in enumerate(zip(job.documents, found))]
