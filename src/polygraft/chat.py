"""Chats as text and tokens from a model's small files, the template rendered as transformers renders it, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class Plain:
    """A model's tokenizer from its small files: as much of transformers' as turning chats into tokens asks for."""

    def __init__(self, core: Any, names: Mapping[str, str], template: str | None):
        self.core, self.names, self.chat_template = core, names, template
        eos = names.get("eos_token")
        self.eos_token_id = None if eos is None else core.token_to_id(eos)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.core.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids."""
        return str(self.core.decode(list(ids), skip_special_tokens=False))

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


def plain(extras: Mapping[str, Path]) -> Plain | None:
    """The tokenizer, or None where it has no tokenizer.json that can be read so."""
    from tokenizers import Tokenizer

    path = extras.get("tokenizer.json")
    if path is None:
        return None
    try:
        core = Tokenizer.from_file(str(path))
    except Exception:  # the library's own kind: a format that it does not know
        return None
    core.no_truncation()
    core.no_padding()
    known = _json(extras.get("special_tokens_map.json")) | _json(extras.get("tokenizer_config.json"))
    words = {k: v.get("content") if isinstance(v, dict) else v for k, v in known.items() if k.endswith("_token")}
    return Plain(core, {k: v for k, v in words.items() if isinstance(v, str)}, template(extras))


def template(extras: Mapping[str, Path]) -> str | None:
    """The chat template among a model's small files: of several, the default one."""
    if (path := extras.get("chat_template.jinja")) is not None:
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _json(extras.get(name)).get("chat_template")
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
