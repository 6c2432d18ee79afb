"""How an answer begins and ends: declined, empty, cut off."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from polygraft.evals.quality import script
from polygraft.yamltext import read_document

BEGINNING = 300  # characters in which a refusal stands
ENDS = ".!?…。！？．؟۔।॥།။៕።՝։"
CLOSING = "\"'”’»›」』）)]}*_`>~"  # may stand behind the end of a sentence
STOPLESS = ("Thai", "Laoo")  # their sentences end without a sign
APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "‘": "'", "＇": "'"})


@lru_cache(1)
def phrases() -> dict[str, tuple[str, ...]]:
    """Refusal formulas by language."""
    found = read_document(Path(__file__).with_name("refusals.yaml")).tree
    return {language: tuple(words) for language, words in found.items()}


@lru_cache(1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each phrase as (a part that the text must hold, which is quick to see, and the pattern)."""
    each = {p.casefold().translate(APOSTROPHES) for words in phrases().values() for p in words}
    return tuple((max(p.split("..."), key=len), re.compile(_one(p))) for p in sorted(each))


def _one(phrase: str) -> str:
    """A phrase as a pattern that begins and ends with a word, where its script sets words apart."""
    begins = r"(?<!\w)" if script.letters(phrase[0]).keys() & {"Latn", "Cyrl", "Arab", "Deva", "Beng"} else ""
    return begins + ".{0,40}".join(re.escape(part) for part in phrase.split("..."))


def refuses(text: str) -> bool:
    """Whether an answer begins with one of the formulas by which assistants decline, in any language that has a list."""
    said = " ".join(text[: 4 * BEGINNING].split())[:BEGINNING].casefold().translate(APOSTROPHES)
    return any(part in said and pattern.search(said) for part, pattern in _patterns())


def empty(text: str) -> bool:
    """Whether nothing can be seen of a text: no letter, digit, sign or symbol."""
    return not any(c.isprintable() and not c.isspace() for c in text)


def complete(text: str) -> bool:
    """Whether a text ends where a sentence may end. Thai and Lao have no sign for it: there every end is one."""
    end = text.rstrip().rstrip(CLOSING).rstrip()
    if not end or end[-1] in ENDS or text.rstrip().endswith("```"):
        return True
    return next(iter(script.letters(end[-40:])), "") in STOPLESS
