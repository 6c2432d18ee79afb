"""Tasks scored on a model while it is trained: items chosen once, nothing saved, training left undisturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft.config import Document, parse
from polygraft.errors import RecipeError, UserError, suggestion
from polygraft.evals import budget, run, steps
from polygraft.evals.identity import of_training
from polygraft.evals.memory import without_models
from polygraft.evals.models import Evaluated
from polygraft.evals.responses import Store
from polygraft.evals.run import Job
from polygraft.evals.steps import EvalConfig, make_jobs
from polygraft.evals.verdicts import compare, criteria
from polygraft.evals.verdicts.compare import Comparison
from polygraft.files import read_json, write_json
from polygraft.step import Context
from polygraft.watching import Log, Reading, Watch, Watchers, trainer_callback

START = "step 0"
BYTES = 50_000  # of each corpus, at most
Records = list[list[dict[str, Any]]]


def asked(watch: Watch) -> EvalConfig:
    """The evaluation that one check is. Raises RecipeError for a task or language that does not exist."""
    given = watch.model_dump(include={"tasks", "langs", "corpora", "data", "shots", "chat", "criteria"}, exclude_none=True)
    tree = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    return parse(EvalConfig, Document({"models": [START], "max_bytes": BYTES, **tree}, "watch", {(): "watch"}))


def faults(watch: Watch, context: Context) -> list[UserError]:
    """Everything that is wrong with a watch, without asking a model."""
    try:
        wrong = steps.faults(asked(watch), context)[1]
        if watch.time_budget:
            budget.parse_duration(watch.time_budget)
    except UserError as e:
        wrong = [e]
    if watch.best is not None and watch.best.count("/") < 2:
        wrong.append(RecipeError("not the name of a score", where="watch: best", found=watch.best, expected="TASK/LANGUAGE/METRIC"))
    return wrong


class TaskWatcher:
    """Scores the tasks of a `Watch` on the model it is given; the first reading is what later ones are compared with.

    folder: where the first reading's records are kept, so that a resumed training compares with the same. Raises UserError for
    tasks, languages, data or criteria that do not exist.
    """

    def __init__(self, watch: Watch, context: Context, folder: Path | None = None):
        self.watch, self.job = watch, ""
        self.config = asked(watch)
        self.jobs = some(make_jobs(self.config, context), watch.items)
        self.criteria = criteria.read(context.data(watch.criteria)) if watch.criteria else None
        self.kept = Path(folder) / "watch-start.json" if folder is not None else None
        self.start: Records | None = None

    def read(self, model: Any, tokenizer: Any, step: int) -> Reading:
        """Score the model as it is. `better` is signed so that more is better."""
        from polygraft.evals.engines.hf import Scorer

        scorer = Scorer(model, tokenizer)
        found = run.run_jobs(scorer, self.jobs, folder=None, model=f"step {step}", store=Store(None, of_training(self.job, step)),
                             computed={}, chat=self.watch.chat)
        both = [Evaluated(START, self._first(found, step)), Evaluated(f"step {step}", found)]
        said = steps.findings(self.config, self.jobs, both, START)
        scores = {f"{s.task}/{s.language}/{s.metric}": s.estimate for s in said.comparison.scores
                  if s.model == f"step {step}" and s.average in ("", compare.MEAN)}
        failed: tuple[str, ...] = ()
        if self.criteria is not None and step:
            judged = criteria.check(self.criteria, said.demanded()).judgements
            failed = tuple(j.words() for j in judged if j.status == criteria.FAILED and j.priority == criteria.MUST)
        return Reading(step, 0.0, scores, self._better(said.comparison, scores), failed)

    def _first(self, found: Records, step: int) -> Records:
        """The records of step 0; where a resumed training has none in memory, those that it kept."""
        if self.start is None:
            if step and self.kept is not None and self.kept.is_file():
                self.start = read_json(self.kept)
            else:
                self.start = found
                if self.kept is not None:
                    self.kept.parent.mkdir(parents=True, exist_ok=True)
                    write_json(self.kept, found)
        return self.start

    def _better(self, compared: Comparison, scores: dict[str, Any]) -> float | None:
        if self.watch.best is None:
            return None
        if self.watch.best not in scores:
            raise RecipeError("no such score to choose the best step by", where="watch: best", found=self.watch.best,
                              expected="TASK/LANGUAGE/METRIC", fix=suggestion(self.watch.best, scores))
        task, _, metric = self.watch.best.split("/", 2)
        higher = next(f.metric.higher_is_better for f in compared.figures if (f.task, f.metric.name) == (task, metric))
        value = scores[self.watch.best].value
        return value if higher else -value


def some(jobs: Sequence[Job], items: int) -> tuple[Job, ...]:
    """About `items` items in all, spread evenly over the jobs and picked by the hash of their ids; small jobs are asked whole."""
    sizes = [len(j.items) or len(j.documents) for j in jobs]
    left, share = items, [0] * len(jobs)
    for k, i in enumerate(sorted(range(len(jobs)), key=lambda i: sizes[i])):
        share[i] = min(sizes[i], max(1, left // (len(jobs) - k)))
        left -= share[i]
    return tuple(_part(job, n) for job, n in zip(jobs, share))


def _part(job: Job, n: int) -> Job:
    if job.documents:
        return replace(job, documents=job.documents[:n])
    order = budget.order([i.id for i in job.items], [i.stratum for i in job.items], [i.group for i in job.items])
    taken: list[int] = []
    for unit in order:
        if len(taken) >= n:
            break
        taken += unit
    return replace(job, items=tuple(job.items[i] for i in sorted(taken)))


def watch(*, tokenizer: Any = None, folder: Path | None = None, offline: bool = False, **options: Any) -> Any:
    """A callback for any transformers Trainer: `Trainer(..., callbacks=[watch(tasks=["blimp"], langs=["en"], every=200)])`.

    options: the fields of `polygraft.watching.Watch` (paths as they are); tokenizer: where the trainer has no `processing_class`.
    The callback's `log` holds every reading. At a new best the trainer saves a checkpoint. Raises UserError.
    """
    wanted = Watch(**options)
    seconds = budget.parse_duration(wanted.time_budget) if wanted.time_budget else None
    log = Log(wanted.every, seconds)
    made = trainer_callback(TaskWatcher(wanted, without_models(offline), folder), log, tokenizer)
    made.log = log
    return made


WATCHERS = Watchers(faults, TaskWatcher, budget.parse_duration)
