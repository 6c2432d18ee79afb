"""What examples come to before a model is loaded: how many rows and steps, of which lengths, and whether they can be learnt.

tokenizer.json is read by the `tokenizers` library and the chat template rendered as transformers renders it, without torch. What
the trainer's own tokenizer would do differently (a legacy class that adds an opening token) shifts a length by a token or two.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from polygraft.chat import Plain, plain, template
from polygraft.errors import InputError
from polygraft.tune import examples
from polygraft.tune.data.text import texts
from polygraft.tune.tokenised import cut

if TYPE_CHECKING:
    from polygraft.tune.training import Work

SAMPLE, FEW = 5000, 500  # examples that are turned into tokens: where the number of steps hangs on them, and where it does not
MOST = 4 << 20  # bytes of text that are turned into tokens, about
BYTES = 3  # of text in a token, about, where no tokenizer is here to ask


# ------------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Counted:
    """Training rows. `lengths`: tokens of each, or of a sample; `about`: "", "about " (from a sample) or "at most " (no tokenizer);
    `dropped`: examples without an answer within `limit` tokens, as many as were found."""

    rows: int
    lengths: tuple[int, ...]
    about: str
    dropped: int
    limit: int

    def lines(self) -> tuple[str, ...]:
        """What a plan says of them."""
        left_out = f"{self.dropped:,} of the examples have no answer within {self.limit:,} tokens: they are left out"
        return (left_out,) if self.dropped else ()


def count(work: Work) -> Counted:
    """The rows that the trainer will have. Raises InputError as it does: no chat template, nothing to learn within the length."""
    s = work.settings
    limit = min(s.length, work.anatomy.context or s.length)
    tokenizer = plain(work.checkpoint.extras)
    check_template(work)
    groups = [work.rows] if work.sides is None else work.sides.split(work.rows)
    each = [_group(rows, tokenizer, work, limit) for rows in groups]
    rows, lengths = sum(c.rows for c in each), tuple(n for c in each for n in c.lengths)
    return Counted(rows, lengths, next((c.about for c in each if c.about), ""), sum(c.dropped for c in each), limit)


def check_template(work: Work) -> None:
    """Raise InputError for chats without the template that would make text of them."""
    asked = work.settings.template == examples.CHAT and any("messages" in row for row in work.rows)
    if asked and "tokenizer_config.json" in work.checkpoint.extras and template(work.checkpoint.extras) is None:
        raise InputError(examples.NO_TEMPLATE[0], where=work.source.spec, fix=examples.NO_TEMPLATE[1])


def _group(rows: Sequence[Mapping[str, Any]], tokenizer: Plain | None, work: Work, limit: int) -> Counted:
    s = work.settings
    every = 1 if tokenizer is None else max(ceil(len(rows) / (SAMPLE if s.steps is None else FEW)),
                                            min(len(rows), ceil(sum(map(text_bytes, rows)) / MOST)))  # fmt: skip
    made = None if tokenizer is None else _tokens(rows[::every], tokenizer, work)
    if made is None:
        lengths = [min(limit, 1 + text_bytes(row) // BYTES) for row in rows]
        packed = bins(lengths, limit) if s.packing else lengths
        about = "about " if s.packing else "at most "
        return Counted(len(packed), tuple(packed), about if s.steps is None else "", 0, limit)
    parts = [cut(t, row, tokenizer, s, limit) for t, row in zip(made, rows[::every], strict=True)]
    some = [[len(p["labels"]) for p in found if any(label != examples.IGNORE for label in p["labels"])] for found in parts]
    kept = [n for lengths in some for n in lengths]
    if not kept and every == 1:
        raise examples.no_answer(work.named, limit, s.length)
    packed = bins(kept, limit) if s.packing else kept
    total = round(len(packed) * len(rows) / len(made))
    about = "about " if every > 1 and s.steps is None else ""
    return Counted(max(1, total), tuple(packed or [limit]), about, some.count([]), limit)


def _tokens(rows: Sequence[Mapping[str, Any]], tokenizer: Plain, work: Work) -> list[examples.Tokens] | None:
    """The examples as tokens; None where the template cannot be rendered so."""
    from jinja2.exceptions import TemplateError

    s = work.settings
    try:
        return [examples.tokenize(row, tokenizer, sys.maxsize, s.answer_only, s.template) for row in rows]
    except (TemplateError, TypeError, AttributeError, KeyError):
        return None  # a template that wants more of transformers than there is here


def text_bytes(row: Mapping[str, Any]) -> int:
    """UTF-8 bytes of an example's texts."""
    return sum(len(t.encode("utf-8", "surrogatepass")) for t in texts(row))


def bins(lengths: Sequence[int], limit: int) -> list[int]:
    """Tokens of each packed row: best fit, the longest example first (as trl packs; which of equals goes where is its own)."""
    spaces: list[int] = []  # left in each row, ascending
    for n in sorted(lengths, reverse=True):
        place = bisect_left(spaces, n)
        left = spaces.pop(place) - n if place < len(spaces) else limit - n
        insort(spaces, left)
    return [limit - space for space in spaces]
