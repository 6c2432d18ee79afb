"""Evaluate models: `score(model, tokenizer, tasks=["belebele"], langs=["sw"], identity=...)` for one that is already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraft.result import Result

__all__ = ["score"]


def score(model: Any, tokenizer: Any, *, tasks: Sequence[str], identity: str, langs: Sequence[str] = ("en",),
          store: str | Path | None = None, offline: bool = False, **fields: Any) -> Result:
    """Score a transformers model as it is in memory (in training, a merged profile); nothing of it is saved.

    identity: what its answers are kept by and what tables call it; whoever changes the weights must change it: sources and the
    profile's digest, or run and step. store: a folder where its answers are kept and found again (default: they are not kept).
    fields: `data`, `limit`, `shots`, `corpora`, `chat`, `seed` ... as in the `eval` step. Training mode, gradients and random
    state of the model are left as they were. Raises UserError.
    """
    from polygraft.evals import memory

    return memory.score(model, tokenizer, identity, None if store is None else Path(store), offline,
                        {"tasks": tasks, "langs": langs, **fields})
