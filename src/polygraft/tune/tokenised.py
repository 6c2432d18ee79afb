"""Training rows as token ids: cut to what the model can see, packed if asked for, and told what was cut or left out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.errors import InputError
from polygraft.tune import examples
from polygraft.tune.examples import Tokens
from polygraft.tune.settings import Settings

HELD = 4  # blocks that are read of a held-out text


def prepare(rows: Sequence[Mapping[str, Any]], tokenizer: Any, settings: Settings,
            context: int | None = None, named: str | None = None) -> tuple[Any, list[str]]:  # fmt: skip
    """Tokenised (and packed) training rows as a Dataset, and notes on what was cut or left out.

    An example longer than `length`, or than the `context` that the model was made to see, is cut there (with `blocks`, plain text
    goes on in further rows); one whose answer lies wholly behind is left out. Raises InputError where that leaves nothing of what
    is `named` so.
    """
    from datasets import Dataset

    limit = min(settings.length, context or settings.length)
    whole = [examples.tokenize(row, tokenizer, sys.maxsize, settings.answer_only, settings.template) for row in rows]
    parts = [cut(t, row, tokenizer, settings, limit) for t, row in zip(whole, rows, strict=True)]
    kept = [part for some in parts for part in some if any(label != examples.IGNORE for label in part["labels"])]
    if not kept:
        raise examples.no_answer(named, limit, settings.length)
    data = Dataset.from_list(kept)
    if settings.packing:
        from trl import pack_dataset

        data = pack_dataset(data, limit, strategy="bfd")
    lengths = [len(t["input_ids"]) if len(some) == 1 else limit for t, some in zip(whole, parts, strict=True)
               if any(label != examples.IGNORE for part in some for label in part["labels"])]
    return data, shortened(lengths, len(parts), limit, limit == context)


def cut(tokens: Tokens, row: Mapping[str, Any], tokenizer: Any, settings: Settings, limit: int) -> list[Tokens]:
    """One example as rows of at most `limit` tokens: its beginning, or with `blocks` all of a plain text."""
    found = spans(tokens["input_ids"], limit, tokenizer) if settings.blocks and "text" in row else [(0, limit)]
    return [{"input_ids": tokens["input_ids"][a:b], "labels": tokens["labels"][a:b]} for a, b in found]


def spans(ids: Sequence[int], limit: int, tokenizer: Any) -> list[tuple[int, int]]:
    """Where the blocks of one text begin and end: every one after the first begins behind a token with a line break.

    Two tokens or more each, `limit` at most, end to end, so that no text is lost (Ruadapt's blocks, arXiv 2412.21140, are full and
    skip what stands before the next such place). Only a line that is longer than a block goes on in the middle.
    """
    breaks = {i for i in set(ids) if "\n" in tokenizer.decode([i])} if len(ids) > limit else set()
    found, start = [], 0
    while len(ids) - start > limit:
        last = next((k for k in range(start + limit, start + 1, -1) if ids[k - 1] in breaks), start + limit)
        found.append((start, last))
        start = last
    return [*found, (start, len(ids))] if len(ids) - start > 1 or not found else found  # one token alone predicts nothing


def held(row: Mapping[str, Any], tokenizer: Any, settings: Settings, limit: int) -> tuple[list[Tokens], int]:
    """The first blocks of a plain text, to be read, and the UTF-8 bytes that their scored tokens stand for (of a block all but its
    first). Four are enough: an interval narrows with texts, hardly with their length. A text's end is not scored: it has no bytes.
    Raises InputError for a tokenizer that cannot say which characters a token covers.
    """
    if not tokenizer.is_fast:
        raise InputError("the tokenizer cannot say which characters a token covers", where=tokenizer.name_or_path,
                         expected="a fast tokenizer (tokenizer.json)", fix="save the tokenizer again with transformers")
    text = row["text"]
    coded = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)
    ids, starts = coded["input_ids"], [a for a, _ in coded["offset_mapping"]] + [len(text)]
    found = spans(ids, limit, tokenizer)[:HELD]
    ends = [min(b, len(ids)) for _, b in found]
    scored = [text[starts[min(a + 1, b)] : starts[b]] for (a, _), b in zip(found, ends, strict=True)]
    parts: list[Tokens] = [{"input_ids": ids[a:b], "labels": ids[a:b]} for a, b in found]
    return parts, sum(len(t.encode()) for t in scored)


def shortened(lengths: Sequence[int], whole: int, limit: int, context: bool) -> list[str]:
    """Notes on examples that were longer than `limit` tokens, which may be the model's context, and on those left out.

    `lengths`: of the examples that are kept, of so many as a `whole`."""
    why = f"{limit} tokens" + (" (all that the model was made to see)" if context else "")
    notes = []
    if lost := whole - len(lengths):
        notes.append(f"{lost} of {whole} examples have no answer within {why} and were left out")
    if long := sum(n > limit for n in lengths):
        others = f"{len(lengths)} {'other ' if lost else ''}examples"
        notes.append(f"{long} of {others} are longer than {why} and were cut there; the longest has {max(lengths)}")
    return notes
