"""One model in memory asked the same items under several conditions (edits, adapters on and off), and the conditions compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polygraft.config import Document, parse
from polygraft.errors import InputError, RecipeError, UserError
from polygraft.evals import estimate, metrics, run
from polygraft.evals.bpb import Scored
from polygraft.evals.engines.base import Decoding, Written
from polygraft.evals.identity import model_digest
from polygraft.evals.jobs import faults as job_faults
from polygraft.evals.jobs import make_jobs
from polygraft.evals.memory import under_edits
from polygraft.evals.metrics.base import mean
from polygraft.evals.models import Evaluated
from polygraft.evals.responses import Store, store_root
from polygraft.evals.settings import EvalConfig
from polygraft.evals.steps import build_result
from polygraft.evals.verdicts.measures import Measure, one_per_group, stack
from polygraft.result import Result
from polygraft.sources import Source
from polygraft.step import Context

BATCH, PASS = 1024, 0.02  # tokens of a batch that is read; seconds that a pass takes of however small a model
ROW = 256  # tokens of a batch of texts on a CPU: a token is compared with all of its row, most of it other texts

Columns = dict[str, tuple[np.ndarray, np.ndarray, str, bool]]


def load(source: Source, dtype: str = "auto", device: str = "auto") -> Any:
    """The model in memory, in the type that an evaluation would compute in."""
    from polygraft import model

    place = model.device_for(device)
    return model.load(source, dtype=model.dtype_for(place, dtype)[0], device=place)


def engine(live: Any, batch_tokens: int = BATCH) -> Any:
    """The engine on a loaded model, one as long as the model lives: what it proved of the model holds under edits, too.

    Raises InputError for a model without a tokenizer.
    """
    from polygraft.evals.engines.hf import Scorer

    if live.tokenizer is None:
        raise InputError("the model has no tokenizer", where=live.anatomy.where, fix="put tokenizer.json beside it")
    made: dict[int, Any] = vars(live).setdefault("engines", {})
    if batch_tokens not in made:
        new = Scorer(live.model, live.tokenizer, batch_tokens=batch_tokens)
        new.branches = next(iter(made.values()), new).branches
        made[batch_tokens] = new
    live.model.eval()
    return made[batch_tokens]


def answers(live: Any, prompts: Sequence[str], max_tokens: int, chat: bool) -> list[Written]:
    """Greedy answers, in the order of the prompts; with `chat` through the model's template."""
    scorer = engine(live)
    texts = [scorer.chat([{"role": "user", "content": p}]) for p in prompts] if chat else list(prompts)
    return written(scorer, texts, Decoding(max_tokens))


def written(scorer: Any, texts: Sequence[str], decoding: Decoding) -> list[Written]:
    """What the engine writes after each text, in their order."""
    found = dict[int, Written]()
    scorer.generate(texts, decoding, found.update)
    return [found[i] for i in range(len(texts))]


def write(live: Any, prompts: Sequence[str], max_tokens: int, chat: bool) -> list[str]:
    """The texts of `answers`."""
    return [answer.text for answer in answers(live, prompts, max_tokens, chat)]


def nats(live: Any, documents: Sequence[str]) -> list[Scored]:
    """Nats, bytes and tokens of whole texts."""
    return engine(live, ROW if live.model.device.type == "cpu" else BATCH).documents(documents)


def language(text: str) -> str:
    """The language of a text, "und" where it cannot be said."""
    from polygraft.evals.quality.identify import identify

    return identify(text).tag


def settings(fields: Mapping[str, Any]) -> EvalConfig:
    """The evaluation that these fields of the `eval` step ask for. Raises RecipeError."""
    plain = {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in fields.items()}
    tree = {k: v for k, v in plain.items() if v is not None}
    return parse(EvalConfig, Document({"models": ["model"], **tree}, "evaluation", {(): "evaluation"}))


def planned(fields: Mapping[str, Any], context: Context) -> tuple[float, int, list[UserError]]:
    """Tokens read and at most written by one model, and what is wrong with the settings, told before a model is loaded."""
    try:
        jobs, wrong = job_faults(settings(fields), context)
    except UserError as e:
        return 0.0, 0, [e]
    work = estimate.work(jobs)
    return work.read, work.written, list(wrong)


def seconds(parameters: int, read: float, written: int, passes: int) -> float:
    """A guess for two CPU cores of reading so many tokens and of writing others in so many passes."""
    return estimate.Work(read, written).seconds(parameters) + PASS * (read / BATCH + passes)


class Conditions:
    """The items of an evaluation, chosen once; `ask` asks them of the model as it is. Its answers are kept by the digest of
    `source` and that of the edits at work."""

    def __init__(self, fields: Mapping[str, Any], context: Context, source: Source):
        self.config, self.identity = settings(fields), model_digest(source)
        self.jobs = make_jobs(self.config, context)
        self.records: dict[str, list[list[dict[str, Any]]]] = {}
        self.dtype = ""

    def ask(self, live: Any, label: str) -> Columns:
        """Ask every item and keep its records under `label`. -> for each metric that is a mean: (values [n], weights [n], unit,
        whether higher is better)."""
        self.dtype = str(live.model.dtype).removeprefix("torch.")
        root = store_root(self.config.store)
        with Store(root, under_edits(self.identity, live.model)) as kept:
            self.records[label] = run.run_jobs(
                engine(live, self.config.batch_tokens), self.jobs, folder=None, model=label, store=kept, seed=self.config.seed,
                computed={"backend": "hf", "dtype": self.dtype}, chat=self.config.chat, system=self.config.system)
        return {name: column for job, rows in zip(self.jobs, self.records[label]) for name, column in _columns(job, rows).items()}

    def result(self, labels: Sequence[str]) -> Result:
        """Scores and paired differences from the first of `labels`, as the `eval` step writes them."""
        if missing := [name for name in labels if name not in self.records]:
            raise RecipeError("not a condition that was asked", found=missing[0], expected=", ".join(self.records))
        evaluated = [Evaluated(name, self.records[name]) for name in labels]
        return build_result(self.config, self.jobs, evaluated, labels[0], f"computed in memory, in {self.dtype}")


def _columns(job: run.Job, rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Metrics whose value is one sum over another (not MCC, BLEU ...). An item that a metric is not defined for is (0, 0)."""
    out: Columns = {}
    for name in dict.fromkeys(name for r in rows for name in r.get("scores", {})) if not job.reading else ():
        if (metric := metrics.get(name)).value is not mean:
            continue
        columns = stack([r.get("scores", {}).get(name) for r in rows], f"{job.title} {job.language}: {name}")
        measure = Measure(job.title, job.language, metric, {"": columns}, tuple(str(r["id"]) for r in rows))
        if metric.group:
            measure = one_per_group(measure, [r.get("group") for r in rows])
        top, bottom = measure.columns[""].T
        out[f"{job.title} {job.language} {name}"] = metric.scale * top, bottom, metric.unit, metric.higher_is_better
    return out
