"""How far a tokenizer's own rule for cutting text (its pre-tokeniser) lets tokens grow: no merge goes over its cuts. (Ours.)

GPT-2's pattern and most that follow it take letters and their marks apart: words of Hindi, Bengali, Tamil or Thai are cut at their
vowel signs.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from polygraft import languages
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics.counting import word
from polygraft.vocab.tokenizer.counting import cutter, plain

TOLD = 0.1  # share of words that are parted from which on it is said: English and Russian have next to none


@dataclass(frozen=True)
class Parted:
    """`words`: share of the running words of letters (and marks) alone that are cut before any merge; `marked`: of these, with a
    mark (a vowel sign). `most`: characters of text for each part, which is what tokens can hold on average at most."""

    words: float
    marked: float
    most: float


def parted(texts: Iterable[str], vocabulary: Vocabulary) -> Parted | None:
    """What the rule of `vocabulary` does to these texts; None of texts without words."""
    cut = cutter(json.dumps(plain(vocabulary.tree)))
    whole, seen = len(cut(" a")), Counter[str]()
    characters = parts = 0
    for text in texts:
        characters += len(text)
        parts += len(cut(text))
        seen.update(w for run in text.split() if (w := word(run)) and w.translate(MARKLESS).isalpha())
    if not seen:
        return None
    broken = Counter({w: n for w, n in seen.items() if len(cut(" " + w)) > whole})
    marked = sum(n for w, n in broken.items() if len(w.translate(MARKLESS)) < len(w))
    return Parted(broken.total() / seen.total(), marked / max(1, broken.total()), characters / parts)


class _Markless(dict[int, str | None]):
    """Deletes marks where a text is translated by it."""

    def __missing__(self, code: int) -> str | None:
        self[code] = None if unicodedata.category(chr(code))[0] == "M" else chr(code)
        return self[code]


MARKLESS = _Markless()


def found(texts: Mapping[str, Iterable[str]], vocabulary: Vocabulary) -> dict[str, Parted]:
    """By language, those with words alone."""
    return {language: p for language, held in texts.items() if (p := parted(held, vocabulary)) is not None}


def said(by: Mapping[str, Parted]) -> tuple[str, ...]:
    """A sentence for every language whose words are parted."""
    return tuple(f"{languages.name(language)}: this tokenizer's own rule parts {p.words:.0%} of the words before any merge"
                 f"{' (at vowel signs and other marks)' if p.marked > 0.5 else ''}, so tokens hold {p.most:.2f} characters on "
                 "average at most, whatever text and size. Only a tokenizer that cuts text otherwise would do better."
                 for language, p in by.items() if p.words >= TOLD)


def as_data(by: Mapping[str, Parted]) -> dict[str, Any]:
    return {language: asdict(p) for language, p in by.items()}
