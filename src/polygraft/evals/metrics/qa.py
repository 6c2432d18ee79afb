"""Answers to questions: exact match and F1 of words, the best over all right answers, in any script.

As SQuAD scores (Rajpurkar et al. 2016): case, punctuation and articles do not count. As MLQA's and MKQA's scripts extend it:
articles of the language itself, punctuation of any script, a character as a word where a script puts no spaces between words.
Beyond both: characters that look the same count as the same (NFKC, joiners dropped), and digits of any script are digits.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric, mean
from polygraft.evals.metrics.summaries import words

ARTICLES = {  # MLQA (Lewis et al. 2020): en es de vi ar; MKQA (Longpre et al. 2021): the others
    "en": "a an the", "es": "un una unos unas el la los las", "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des", "nl": "de het een des der den", "sv": "en ett", "da": "en et",
    "no": "en et ei", "nb": "en et ei", "fr": "le la les du de des un une", "pt": "o a os as um uma uns umas", "hu": "a az egy",
    "it": "il lo la i gli le del dello della dei degli delle un uno una"}  # fmt: skip
ELIDED = {"fr": r"\b[ld]['’]", "it": r"\b(?:l|un|dell|degl)['’]"}
ARABIC_ARTICLE = "ال"  # written as one with its word; MLQA's pattern would also cut it out of the middle of words


@lru_cache(1 << 12)
def _letter(character: str) -> str:
    """A character as it counts: nothing for punctuation and invisible ones, 0-9 for a digit of any script."""
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return "" if kind[0] == "P" or kind == "Cf" or character in string.punctuation else character


@lru_cache(1 << 14)
def tokens(text: str, language: str = "") -> tuple[str, ...]:
    """The words that count, in the language (a BCP-47 tag). Where none would be left ("The The", "+"), nothing is dropped."""
    primary = language.split("-")[0].lower()
    plain = unicodedata.normalize("NFKC", text)
    if primary in ("tr", "az"):
        plain = plain.replace("İ", "i").replace("I", "ı")
    if primary in ELIDED:
        plain = re.sub(ELIDED[primary], "", plain, flags=re.IGNORECASE)
    found = words("".join(map(_letter, plain)))
    dropped = set(ARTICLES.get(primary, "").split())
    kept = [w for w in found if w not in dropped]
    if primary == "ar":
        kept = [w.removeprefix(ARABIC_ARTICLE) or w for w in found]
    return tuple(kept or found or plain.split())


def best(score: Callable[[tuple[str, ...], tuple[str, ...]], float], item: Item, text: str) -> float:
    """The highest score against any of the item's golds."""
    answer = tokens(text, item.language)
    return max((score(tokens(gold, item.language), answer) for gold in item.golds), default=0.0)


def same(gold: tuple[str, ...], answer: tuple[str, ...]) -> float:
    """1 for the same words in the same order."""
    return float(gold == answer)


def overlap(gold: tuple[str, ...], answer: tuple[str, ...]) -> float:
    """F1 of the words that both have, each counted as often as both have it."""
    shared = sum((Counter(gold) & Counter(answer)).values())
    return 2.0 * shared / (len(gold) + len(answer)) if shared else 0.0


def exact_match(item: Item, response: Response) -> Sequence[float]:
    return best(same, item, response.text), 1.0


def f1(item: Item, response: Response) -> Sequence[float]:
    return best(overlap, item, response.text), 1.0


def f1_and_match(item: Item, response: Response) -> Sequence[float]:
    return best(overlap, item, response.text) + best(same, item, response.text), 1.0


def half(sums: np.ndarray) -> np.ndarray:
    """(sum of F1 + EM, items) [..., 2] -> their mean [...]."""
    return mean(sums) / 2


def parsed(item: Item, response: Response) -> str | None:
    """The words of the answer that count, for the record."""
    return " ".join(tokens(response.text, item.language)) or None


METRICS = (
    Metric("exact_match", "%", "answers with the same words as a right one (case, punctuation and articles aside)",
           exact_match, binary=True, parse=parsed),
    Metric("f1", "%", "words that the answer shares with the right one that fits best (F1); a character is a word where a script "
           "puts no spaces between words", f1, parse=parsed),
    Metric("mean of f1 and exact_match", "%", "mean of the F1 of words and exact match", f1_and_match, half, parse=parsed),
)
