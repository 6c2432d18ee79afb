"""Words of one language: its data file and how a template becomes a sentence.

A template is text with braces. `{a}` is a number, `{A}` a name, `{o}` the things counted, `{m}` money; `{o.de}` asks for a named
form; `{a o}` is a counted noun ("5 apples"); `{A|he|she}` chooses by the gender of A (`AB`: feminine only when both are).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from polygraft.errors import RecipeError
from polygraft.languages import nearest

DATA = files(__package__) / "data"
TOKEN = re.compile(r"\{([^{}]*)\}")


def languages() -> tuple[str, ...]:
    """Tags (BCP-47) of the languages that the problems are written in, sorted."""
    return tuple(sorted(f.name.removesuffix(".json") for f in DATA.iterdir() if re.fullmatch(r"[a-z]{2}\.json", f.name)))


@cache
def words(language: str) -> dict[str, Any]:
    """The data file of a language. Raises RecipeError for a language that has none."""
    if language not in languages():
        raise RecipeError("no word problems in this language", found=language, fix=nearest(language, languages()))
    return json.loads((DATA / f"{language}.json").read_text("utf-8"))


@dataclass(frozen=True)
class Noun:
    """Forms of a noun or a name. `n` holds the plural forms in the order of `plural`: one for most languages, three for Russian."""

    forms: Mapping[str, str]

    def form(self, name: str) -> str:
        return self.forms[name]

    @property
    def feminine(self) -> bool:
        return self.forms.get("g") == "f"

    @property
    def many(self) -> str:
        return self.forms["n"].split("|")[-1]

    def counted(self, number: int) -> str:
        plurals = self.forms["n"].split("|")
        return plurals[plural(number)] if len(plurals) == 3 else plurals[-1]


def plural(number: int) -> int:
    """Which of the three Slavic plural forms a whole number takes: 0 for 1, 21, 31; 1 for 2-4, 22-24; 2 for the rest (CLDR)."""
    if number % 10 == 1 and number % 100 != 11:
        return 0
    return 1 if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else 2


def name(language: str, split: str, index: int) -> Noun:
    """The name at a place of a split's list: even places hold women's names, odd ones men's. Cases are separated by spaces."""
    cases = words(language)["names"][split][index].split("|")
    return Noun({"n": cases[0], "g": "mf"[index % 2 == 0], **dict(zip(words(language).get("cases", ()), cases[1:], strict=True))})


def fill(template: str, language: str, nouns: Mapping[str, Noun], numbers: Mapping[str, int]) -> str:
    """The template with every brace replaced. An unknown brace raises KeyError: data and code belong together."""

    def one(match: re.Match[str]) -> str:
        inside = match[1]
        if "|" in inside:
            who, masculine, feminine = inside.split("|")
            chosen = [nouns[w] for w in who]
            return feminine if all(noun.feminine for noun in chosen) else masculine
        if " " in inside:
            number, noun = inside.split(" ")
            key, _, form = noun.partition(".")
            counted = nouns[key].form(form) if form else nouns[key].counted(numbers[number])
            return words(language)["count"].format(n=numbers[number], o=counted, c=nouns[key].forms.get("c", ""))
        if inside in numbers:
            return str(numbers[inside])
        key, _, form = inside.partition(".")
        return nouns[key].form(form) if form else nouns[key].many

    return TOKEN.sub(one, template)


def capital(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]
