"""Evaluate models: `score(model, tokenizer, tasks=["belebele"], langs=["sw"], identity=...)` for one that is already in memory.

Asked: `tasks/` (task files, rows, prompts), `items` (an item, a response), `settings` (the step's config), `jobs` (every task in
every language), `budget` and `timed` (which items fit a time), `bpb` (texts, for bits per byte).
Answered: `opening` (a source becomes an engine), `engines/`, `identity` (which model it was), `lm` (lm-eval's interface),
`asking` (what the store lacks), `responses` (the store).
Scored: `metrics/`, `answers/` (numbers in text), `quality/` (language, loops, refusals), `governance/` (bias, slips, glossaries).
Told: `records` (a line an item), `findings` (tables from records), `verdicts/` (intervals, tests, criteria), `notes` (caveats).
Run: `steps` (the `eval` step), `models` (one after the other), `run` (one of them), `memory` (in memory), `callback` (in training).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraft.result import Result

__all__ = ["score"]


def score(model: Any, tokenizer: Any, *, tasks: Sequence[str], identity: str, name: str = "", langs: Sequence[str] = ("en",),
          store: str | Path | None = None, offline: bool = False, **fields: Any) -> Result:
    """Score a transformers model as it is in memory (in training, a merged profile); nothing of it is saved.

    identity: what its answers are kept by; whoever changes the weights must change it. `polygraft.evals.identity` makes it:
    `of_profile(sources, profile)`, `of_training(job, step)`. name: what tables call the model (default: its identity).
    store: a folder where its answers are kept and found again (default: they are not kept). fields: `data`, `limit`, `shots`,
    `corpora`, `chat`, `seed` ... as in the `eval` step. Training mode, gradients and random state of the model are left as they
    were. Raises UserError.
    """
    from polygraft.evals import memory

    return memory.score(model, tokenizer, (identity, name), None if store is None else Path(store), offline,
                        {"tasks": tasks, "langs": langs, **fields})
