"""Copying: does a model write back what it was given, in as many tokens as its own tokenizer needs for it?

DaruCopy (Tikhomirov and Chernyshov 2024, arXiv:2412.21140) asks for a sentence (length in tokens) and a paragraph (characters).
A vocabulary that does not fit shows here first: the model falls back to old, smaller pieces, or leaves the text.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric

BUDGET = 128  # new tokens that DaruCopy allows for a sentence: no copy can be longer, so no source counts for more
ENOUGH = 0.99  # share of the reference's characters from which on a paragraph counts as copied
SPARE = 1000  # characters beyond twice the reference that are still compared: what follows cannot be the copy


def ratio(a: float, b: float) -> float:
    """The smaller over the larger of two lengths, 0 where either is 0."""
    return min(a, b) / max(a, b) if a > 0 and b > 0 else 0.0


def matched(reference: str, text: str) -> float:
    """Share of the reference's characters that the text has in the same order (difflib's matching blocks).

    Divided by the reference's length: a copy that stops half way scores 0.5. An empty reference is 0.
    """
    if not reference or text == reference:
        return float(bool(reference))
    blocks = SequenceMatcher(None, reference, text[: 2 * len(reference) + SPARE], autojunk=False).get_matching_blocks()
    return sum(b.size for b in blocks) / len(reference)


def _both(item: Item, response: Response) -> tuple[str, str]:
    return unicodedata.normalize("NFC", item.golds[0].strip()), unicodedata.normalize("NFC", response.text.strip())


def copy_length(item: Item, response: Response) -> Sequence[float]:
    """(ratio of the tokens written to those of the source, 1)."""
    source = min(response.gold_tokens, BUDGET)
    return (ratio(response.tokens, source) if response.text.strip() else 0.0, 1.0)


def copy_characters(item: Item, response: Response) -> Sequence[float]:
    """(ratio of the characters written to those of the source, 1); an answer cut by the token limit was not asked for the rest."""
    reference, text = _both(item, response)
    asked = len(reference) if response.finished else min(len(reference), len(text))
    return (ratio(len(text), asked), 1.0)


def reliable(item: Item, response: Response) -> Sequence[float]:
    """(1 if at least 99 % of the reference's characters are matched, 1)."""
    reference, text = _both(item, response)
    shared = (Counter(reference) & Counter(text)).total()  # in any order: no more than this can match in order
    return (float(shared >= ENOUGH * len(reference) and matched(reference, text) >= ENOUGH), 1.0)


def identical(item: Item, response: Response) -> Sequence[float]:
    """(1 if the answer is the source, nothing more and nothing less, 1)."""
    reference, text = _both(item, response)
    return (float(text == reference), 1.0)


def symbols_per_token(item: Item, response: Response) -> Sequence[float]:
    """(characters written, tokens written)."""
    return (float(len(response.text.strip())), float(response.tokens))


METRICS = (
    Metric("copy length", "%", "tokens of the copy against tokens of the source (at most 128), the smaller over the larger: 100 is "
           "a copy in the tokenizer's own pieces", copy_length),
    Metric("copy characters", "%", "characters of the copy against those of the source, the smaller over the larger: needs no "
           "tokenizer", copy_characters),
    Metric("copy reliability", "%", "answers that match at least 99 % of the source's characters, in order; divided by the "
           "source's length, so that a copy that stops early does not count", reliable, binary=True),
    Metric("identical copy", "%", "answers that are the source and nothing else", identical, binary=True),
    Metric("symbols per token", "characters", "characters written for each new token: the more, the faster a text is written",
           symbols_per_token),
)
