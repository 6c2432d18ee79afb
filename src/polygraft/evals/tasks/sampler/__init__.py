"""A small parallel text, written for this project: the same short paragraphs in every language, to measure on offline."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from polygraft.errors import RecipeError
from polygraft.languages import nearest

DATA = files(__package__) / "data"


def languages() -> tuple[str, ...]:
    """Tags (BCP-47) of the languages of the sampler, sorted."""
    return tuple(sorted(f.name.removesuffix(".jsonl") for f in DATA.iterdir() if f.name.endswith(".jsonl")))


@cache
def _read(language: str) -> tuple[tuple[str, str], ...]:
    if language not in languages():
        raise RecipeError("the sampler has no text in this language", found=language, fix=nearest(language, languages()))
    rows = [json.loads(line) for line in (DATA / f"{language}.jsonl").read_text("utf-8").splitlines()]
    return tuple((row["id"], row["text"]) for row in rows)


def paragraphs(language: str) -> list[str]:
    """The paragraphs of a language; the same place means the same in every language. Raises RecipeError for an unknown one."""
    return [text for _, text in _read(language)]


def topics() -> list[str]:
    """What each paragraph is about, in their order."""
    return [id for id, _ in _read("en")]
