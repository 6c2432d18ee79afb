"""Every model of an evaluation in turn, one in memory at a time: opened, asked, let go."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.evals import run
from polygraft.evals.budget import Budget, parse_duration
from polygraft.evals.opening import Opened, open_engine
from polygraft.evals.records import write_samples
from polygraft.evals.responses import Store, check_root, store_root
from polygraft.evals.run import Job
from polygraft.evals.timed import Ask, Timing, refuse_foreign
from polygraft.sources import SERVER, Source
from polygraft.step import Context

if TYPE_CHECKING:
    from polygraft.evals.settings import EvalConfig


STEP_FOLDER = re.compile(r"(?P<id>.+)-[0-9a-f]{12}")  # as `store` names it
REQUEST = 20_000_000  # parameters whose arithmetic takes about as long as what surrounds it


@dataclass(frozen=True)
class Evaluated:
    """What one model gave: the records of each job, in the jobs' order."""

    label: str
    records: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """The jobs that every model was asked, what each gave, how it was computed in words, and what a reader must know of that."""

    jobs: list[Job]
    evaluated: list[Evaluated]
    how: str
    notes: tuple[str, ...]


def evaluate(config: EvalConfig, context: Context, jobs: Sequence[Job], folder: Path) -> Outcome:
    """Ask every model the same. Raises UserError when a model cannot be loaded or scored."""
    sources, names = [context.model(ref) for ref in config.models], labels(config.models)
    check_root(store_root(config.store))
    timing = None
    if config.time_budget is not None:
        refuse_foreign(jobs)
        timing = Timing(Budget(parse_duration(config.time_budget)), weights(sources), config.seed)
    asked = list(jobs)
    progress = Progress(context, names, [] if timing else asked)  # a budget chooses first, and nobody knows how many
    given: list[list[list[dict[str, Any]]]] = []
    notes: list[str] = []
    how: list[str] = []
    if timing is not None:
        _import_for(sources)
        timing.opening = timing.budget.clock()
    for i, source in enumerate(sources):
        opened = open_engine(source, backend=config.backend, dtype=config.dtype, device=config.device, chat=config.chat,
                             batch_tokens=config.batch_tokens, seed=config.seed, offline=context.offline)
        with open_store(opened, config.store, folder, config.models[i]) as store:
            ask = _asking(config, opened, store, progress)
            if timing is not None and i == 0:
                asked = timing.choose(asked, ask, opened.engine)
            progress.start(i, asked)
            found: list[Any] = list(ask(asked) if timing is None else timing.run(i, asked, ask))
            notes += [*getattr(opened.engine, "notes", ()), *store.notes]
        kept = range(len(asked)) if timing is None else timing.without(asked, found)
        asked = [asked[k] for k in kept]
        given = [[records[k] for k in kept] for records in (*given, found)]
        how.append(opened.how)
        del opened, ask
        gc.collect()
    evaluated = [Evaluated(name, found) for name, found in zip(names, given)]
    for e in evaluated:
        for job, rows in zip(asked, e.records):
            write_samples(folder, run.sample_name(job, e.label), rows)
    words = how[0] if len(set(how)) == 1 else "; ".join(f"{h} for {name}" for h, name in zip(how, names))
    return Outcome(asked, evaluated, words, (*dict.fromkeys(notes), *(timing.said(asked) if timing else ())))


def _import_for(sources: Sequence[Source]) -> None:
    """Import what takes seconds, once, so that the time of opening the first model tells that of the others."""
    import_module("lm_eval.evaluator")
    import_module("lm_eval.tasks")
    if any(s.kind != SERVER for s in sources):
        import_module("transformers.models.auto.modeling_auto")


def _asking(config: EvalConfig, opened: Opened, store: Store, progress: run.Progress) -> Ask:
    """How one opened model is asked jobs."""
    return lambda jobs: run.run_jobs(opened.engine, jobs, folder=None, model="", store=store, computed=opened.computed,
                                     seed=config.seed, chat=config.chat, system=config.system, trusted=config.trust_task_code,
                                     progress=progress)


class Progress:
    """Counts the answered requests of every model in turn."""

    def __init__(self, context: Context, names: Sequence[str], jobs: Sequence[Job]):
        self.context, self.names = context, names
        self.start(0, jobs)

    def start(self, model: int, jobs: Sequence[Job]) -> None:
        """The next model, and what it will be asked."""
        self.model, self.each = model, sum(j.size for j in jobs)
        self.done = model * self.each

    def __call__(self, n: int) -> None:
        if not self.each:
            return
        self.done = min(self.done + n, (self.model + 1) * self.each)
        name = f"{self.names[self.model]} ({self.model + 1} of {len(self.names)})"
        self.context.progress(self.done, len(self.names) * self.each, name)


def open_store(opened: Opened, named: str | None, folder: Path, ref: str) -> Store:
    """The model's responses: in the store, or in the step's own folder when there is none or nothing vouches for the weights."""
    root = store_root(named) if opened.digest else None
    return Store(root or folder / "responses", opened.digest or ref)


def weights(sources: Sequence[Source]) -> list[float]:
    """What models cost to ask, relative to one another: their parameters, and something for every request. A server, which does
    not say, counts as the largest of the others."""
    sizes = [0 if s.kind == SERVER else model_size(s)[0] for s in sources]
    return [float((n or max(sizes)) + REQUEST) for n in sizes]


def model_size(source: Source) -> tuple[int, int]:
    """(parameters, bytes on disk) of a model, from its headers."""
    tensors = source.weights.tensors.values()
    return sum(t.nbytes // t.itemsize for t in tensors), sum(t.nbytes for t in tensors)


def _named(path: Path) -> str:
    """The last part of a path. Of a `model` that a step or a command wrote into its folder that folder's, of a run's
    `steps/part-<key>/model` the step's id."""
    if path.name != "model" or not path.parent.name:
        return path.name
    step = STEP_FOLDER.fullmatch(path.parent.name) if path.parent.parent.name == "steps" else None
    return step["id"] if step else path.parent.name


def labels(refs: Sequence[str]) -> list[str]:
    """Short names for tables: the last part of a path (of a run's model its step), or the name at a server, if it is unique."""
    plain = [r.partition("#")[2] or r.partition("?")[0] if r.startswith(f"{SERVER}:") else _named(Path(r)) for r in refs]
    short = [p or r for p, r in zip(plain, refs)]
    return [s if short.count(s) == 1 else str(r) for s, r in zip(short, refs)]
