"""One model that is already in memory, scored by the same jobs, records and tables as the `eval` step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polygraft import edits
from polygraft.config import Document, parse
from polygraft.errors import RecipeError
from polygraft.evals import run
from polygraft.evals.jobs import idle, make_jobs
from polygraft.evals.models import Evaluated
from polygraft.evals.responses import Store
from polygraft.evals.settings import EvalConfig
from polygraft.result import Result
from polygraft.step import Context

NOT_HERE = ("models", "reference", "backend", "dtype", "device", "time_budget", "criteria")


def score(model: Any, tokenizer: Any, named: tuple[str, str], store: Path | None, offline: bool, fields: dict[str, Any]) -> Result:
    """What `polygraft.evals.score` says; `named` is (identity, name or ""). Raises UserError."""
    from polygraft.evals.engines.hf import Scorer
    from polygraft.evals.steps import build_result

    identity, title = named[0], named[1] or named[0]
    if taken := [name for name in NOT_HERE if name in fields]:
        raise RecipeError("not a setting of one model in memory", found=", ".join(taken), fix="leave it out, or use the eval step")
    plain = {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in fields.items()}
    tree = {k: v for k, v in plain.items() if v is not None}
    config = parse(EvalConfig, Document({"models": [title], **tree}, "score", {(): "score"}))
    context = without_models(offline)
    for wrong in idle(config):
        raise wrong
    jobs = make_jobs(config, context)
    training = model.training
    try:
        engine = Scorer(model, tokenizer, batch_tokens=config.batch_tokens)
        computed = {"backend": "hf", "dtype": str(model.dtype).removeprefix("torch.")}
        with Store(store, under_edits(identity, model)) as kept:
            found = run.run_jobs(engine, jobs, folder=None, model=title, store=kept, computed=computed, seed=config.seed,
                                 chat=config.chat, system=config.system, trusted=config.trust_task_code)
    finally:
        model.train(training)
    return build_result(config, jobs, [Evaluated(title, found)], title, f"computed in memory, in {computed['dtype']}")


def under_edits(identity: str, model: Any) -> str:
    """What answers are kept by: another name for each set of edits that the model runs under."""
    work = edits.at_work(model)
    return identity if work.off else f"{identity}:edits:{work.digest}"


def without_models(offline: bool = False) -> Context:
    """Where paths are as they are, and the model is in memory already."""
    def refuse(ref: str) -> Any:
        raise RecipeError("no models are named when one in memory is scored", found=ref)
    return Context(refuse, Path, offline=offline)
