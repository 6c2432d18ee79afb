"""Training rows as token ids: cut to what the model can see, packed if asked for, and told what was cut or left out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.errors import InputError
from polygraft.tune import examples
from polygraft.tune.settings import Settings


def prepare(rows: Sequence[Mapping[str, Any]], tokenizer: Any, settings: Settings,
            context: int | None = None, named: str | None = None) -> tuple[Any, list[str]]:  # fmt: skip
    """Tokenised (and packed) training rows as a Dataset, and notes on what was cut or left out.

    An example longer than `length`, or than the `context` that the model was made to see, is cut there; one whose answer lies
    wholly behind is left out. Raises InputError where that leaves nothing of what is `named` so.
    """
    from datasets import Dataset

    limit = min(settings.length, context or settings.length)
    whole = [examples.tokenize(row, tokenizer, sys.maxsize, settings.answer_only, settings.template) for row in rows]
    cut = [{"input_ids": t["input_ids"][:limit], "labels": t["labels"][:limit]} for t in whole]
    kept = [t for t in cut if any(label != examples.IGNORE for label in t["labels"])]
    if not kept:
        raise InputError(examples.NO_ANSWER[0], where=named, found=f"length {limit}", fix=examples.NO_ANSWER[1])
    data = Dataset.from_list(kept)
    if settings.packing:
        from trl import pack_dataset

        data = pack_dataset(data, limit, strategy="bfd")
    return data, shortened([len(t["input_ids"]) for t in whole], len(kept), limit, limit == context)


def shortened(lengths: Sequence[int], kept: int, limit: int, context: bool) -> list[str]:
    """Notes on examples that were longer than `limit` tokens, which may be the model's context, and on those left out."""
    why = f"{limit} tokens" + (" (all that the model was made to see)" if context else "")
    notes = []
    if lost := len(lengths) - kept:
        notes.append(f"{lost} of {len(lengths)} examples have no answer within {why} and were left out")
    if long := sum(n > limit for n in lengths):
        notes.append(f"{long} of {len(lengths)} examples are longer than {why} and were cut there; the longest has {max(lengths)}")
    return notes
