"""What examples come to before a model is loaded: how many rows and steps, of which lengths, and whether they can be learnt.

tokenizer.json is read by the `tokenizers` library and the chat template rendered as transformers renders it, without torch. What
the trainer's own tokenizer would do differently (a legacy class that adds an opening token) shifts a length by a token or two.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError
from polygraft.tune import examples
from polygraft.tune.data.text import texts

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.tune.training import Work

SAMPLE, FEW = 5000, 500  # examples that are turned into tokens: where the number of steps hangs on them, and where it does not
BYTES = 3  # of text in a token, about, where no tokenizer is here to ask


class Plain:
    """A model's tokenizer from its small files: as much of transformers' as `examples.tokenize` asks for."""

    def __init__(self, core: Any, names: Mapping[str, str], template: str | None):
        self.core, self.names, self.chat_template = core, names, template
        eos = names.get("eos_token")
        self.eos_token_id = None if eos is None else core.token_to_id(eos)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.core.encode(text, add_special_tokens=add_special_tokens).ids}

    @cached_property
    def _rendered(self) -> Any:
        from jinja2.exceptions import TemplateError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}` marks answers for those who ask; the text is what stands in it."""

            tags = {"generation"}  # noqa: RUF012

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        def refuse(message: str) -> None:
            raise TemplateError(message)

        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        env.filters["tojson"] = lambda x, **how: json.dumps(x, ensure_ascii=False, indent=how.get("indent"))
        env.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
        return env.from_string(self.chat_template or "")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], tokenize: bool = False,
                            add_generation_prompt: bool = False) -> str:  # fmt: skip
        """The chat as text (`tokenize` is there for the name alone)."""
        return str(self._rendered.render(messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt,
                                         **self.names))  # fmt: skip


def plain(checkpoint: Checkpoint) -> Plain | None:
    """The tokenizer, or None where it has no tokenizer.json that can be read so."""
    from tokenizers import Tokenizer

    path = checkpoint.extras.get("tokenizer.json")
    if path is None:
        return None
    try:
        core = Tokenizer.from_file(str(path))
    except Exception:  # the library's own kind: a format that it does not know
        return None
    core.no_truncation()
    core.no_padding()
    known = _json(checkpoint.extras.get("special_tokens_map.json")) | _json(checkpoint.extras.get("tokenizer_config.json"))
    words = {k: v.get("content") if isinstance(v, dict) else v for k, v in known.items() if k.endswith("_token")}
    return Plain(core, {k: v for k, v in words.items() if isinstance(v, str)}, template(checkpoint))


def template(checkpoint: Checkpoint) -> str | None:
    """The chat template among a model's small files: of several, the default one."""
    if (path := checkpoint.extras.get("chat_template.jinja")) is not None:
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _json(checkpoint.extras.get(name)).get("chat_template")
        if isinstance(found, list):
            found = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}.get("default")
        if isinstance(found, str) and found:
            return found
    return None


def _json(path: Path | None) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except ValueError:
        return {}  # loading the model will say so
    return found if isinstance(found, dict) else {}


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
    tokenizer = plain(work.checkpoint)
    check_template(work)
    groups = [work.rows] if work.sides is None else work.sides.split(work.rows)
    each = [_group(rows, tokenizer, work, limit) for rows in groups]
    rows, lengths = sum(c.rows for c in each), tuple(n for c in each for n in c.lengths)
    return Counted(rows, lengths, next((c.about for c in each if c.about), ""), sum(c.dropped for c in each), limit)


def check_template(work: Work) -> None:
    """Raise InputError for chats without the template that would make text of them."""
    asked = work.settings.template == examples.CHAT and any("messages" in row for row in work.rows)
    if asked and "tokenizer_config.json" in work.checkpoint.extras and template(work.checkpoint) is None:
        raise InputError(examples.NO_TEMPLATE[0], where=work.source.spec, fix=examples.NO_TEMPLATE[1])


def _group(rows: Sequence[Mapping[str, Any]], tokenizer: Plain | None, work: Work, limit: int) -> Counted:
    s = work.settings
    every = 1 if tokenizer is None else ceil(len(rows) / (SAMPLE if s.steps is None else FEW))
    made = None if tokenizer is None else _tokens(rows[::every], tokenizer, work)
    if made is None:
        lengths = [min(limit, 1 + text_bytes(row) // BYTES) for row in rows]
        packed = bins(lengths, limit) if s.packing else lengths
        about = "about " if s.packing else "at most "
        return Counted(len(packed), tuple(packed), about if s.steps is None else "", 0, limit)
    kept = [min(len(t["labels"]), limit) for t in made if any(label != examples.IGNORE for label in t["labels"][:limit])]
    if not kept and every == 1:
        raise InputError(examples.NO_ANSWER[0], where=work.named, found=f"length {limit}", fix=examples.NO_ANSWER[1])
    packed = bins(kept, limit) if s.packing else kept
    total = min(len(rows), round(len(packed) * len(rows) / len(made)))
    about = "about " if every > 1 and s.steps is None else ""
    return Counted(max(1, total), tuple(packed or [limit]), about, len(made) - len(kept), limit)


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
