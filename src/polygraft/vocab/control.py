"""Ids in config.json and generation_config.json, moved to a new vocabulary by what they mean: id -> token -> id.

A number is an id where its key says so, and nowhere else: a hidden size that equals an old id stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary

ID = re.compile(r"(^|_)token_(id|ids|index)$")
LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "sequence_bias")
SIZE = "vocab_size"


def is_id(key: str) -> bool:
    """Whether the value of this key of a config is a token's id, or several."""
    return bool(ID.search(key)) or key in LISTS


def named(config: Any, asked: bool = False) -> set[int]:
    """Every id that a config names, however deep."""
    if isinstance(config, Mapping):
        return set().union(*(named(value, is_id(key)) for key, value in config.items()))
    if isinstance(config, list):
        return set().union(*(named(value, asked and part) for value, part in _within(config)))
    return {config} if asked and type(config) is int and config >= 0 else set()


def remap(config: Mapping[str, Any], old: Vocabulary, new: Vocabulary, where: str, rows: int | None = None) -> dict[str, Any]:
    """`config` with every id moved to the same token of `new`, and vocab_size set to `rows` where it was given.

    Ids that `old` has no token for (padding, -1) stay where they are a row without a token in the new table too, else they are
    refused: they would come to mean another token. Raises InputError, naming key and token, where `new` lacks the token.
    """

    if not isinstance(config, Mapping):
        raise InputError("not a config", where=where, found=type(config).__name__, expected="an object",
                         fix="get the model again from its source")

    def moved(key: str, value: Any, asked: bool) -> Any:
        if isinstance(value, Mapping):
            return {k: rows if k == SIZE and rows is not None else moved(f"{key}.{k}" if key else k, v, is_id(k))
                    for k, v in value.items()}
        if isinstance(value, list):
            return [moved(key, v, asked and part) for v, part in _within(value)]
        if asked and type(value) is int and value >= 0:
            return _moved(key, value)
        return value

    def _moved(key: str, value: int) -> int:
        token = old.names.get(value)
        if token is None:
            if value not in new.names and (rows is None or value < rows):
                return value
            taken = f", which would become {new.names[value]!r}" if value in new.names else ""
            raise InputError("an id that no token has", where=f"{where}: {key}", found=f"{value}{taken}",
                             expected="the id of a token", fix="correct the config first")
        found = _same(old, new, value, token)
        if found is None:
            raise InputError("the new tokenizer lacks a token that the model's config names", where=f"{where}: {key}",
                             found=f"{token!r} (id {value})", expected="the same token in the new tokenizer",
                             fix="add it to the tokenizer as a special token")
        return found

    return moved("", dict(config), False)


def _within(values: list[Any]) -> list[tuple[Any, bool]]:
    """Every value and whether ids are in it: a number beside a list of ids is what it weighs (sequence_bias)."""
    several = any(isinstance(v, list) for v in values)
    return [(v, isinstance(v, list) or not several) for v in values]


def _same(old: Vocabulary, new: Vocabulary, i: int, token: str) -> int | None:
    """The id of the same token: by name for control tokens, else by bytes."""
    if (found := new.id_of(token)) is not None:
        return found
    content = old.contents[i]
    return new.by_bytes.get(content) if content is not None else None
