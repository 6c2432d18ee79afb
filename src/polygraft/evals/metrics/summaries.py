"""Summaries: ROUGE of a written one, R-precision of chosen sentences (DaruSum).

ROUGE (Lin 2004) counts the n-grams that a summary shares with the reference. The usual package keeps only a-z and 0-9 and so sees
nothing in Cyrillic, Devanagari or Chinese; here words are runs of letters, marks and digits of any script, and scripts that put no
spaces between words are taken character by character. No stemming, no lemmas.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import LONGEST, Metric

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
ALONE, JOINED, MARK, GAP = range(4)


@lru_cache(1 << 14)
def _kind(character: str) -> int:
    category = unicodedata.category(character)[0]
    if category == "M":
        return MARK
    if category not in "LN":
        return GAP
    return ALONE if unicodedata.name(character, "").startswith(UNSPACED) else JOINED


def words(text: str) -> list[str]:
    """Case-folded words of any script; a character each (with its marks) where the script writes no spaces between words."""
    out: list[list[str]] = []  # characters: a word of a megabyte that grew as text would be copied for each of them
    before = GAP
    for c in unicodedata.normalize("NFKC", text).casefold():
        kind = _kind(c)
        if kind == MARK and before != GAP:
            out[-1].append(c)
            continue
        if kind == JOINED and before == JOINED:
            out[-1].append(c)
        elif kind in (ALONE, JOINED):
            out.append([c])
        before = GAP if kind == MARK else kind
    return ["".join(word) for word in out]


def rouge(reference: str, text: str, n: int) -> tuple[float, float]:
    """(f-measure, recall) of shared n-grams of words, each counted as often as both have it; nothing to share is (0, 0)."""
    a, b = (Counter(zip(*(found[i:] for i in range(n)))) for found in (words(reference), words(text[:LONGEST])))
    shared = sum((a & b).values())
    if not shared:
        return 0.0, 0.0
    recall, precision = shared / sum(a.values()), shared / sum(b.values())
    return 2 * precision * recall / (precision + recall), recall


def _rouge(item: Item, response: Response, n: int) -> tuple[float, float]:
    """Of the reference that fits best."""
    return max((rouge(gold, response.text, n) for gold in item.golds), default=(0.0, 0.0))


def rouge_1(item: Item, response: Response) -> Sequence[float]:
    return (_rouge(item, response, 1)[0], 1.0)


def rouge_2(item: Item, response: Response) -> Sequence[float]:
    return (_rouge(item, response, 2)[0], 1.0)


def rouge_mean(item: Item, response: Response) -> Sequence[float]:
    """(mean of the two f-measures, 1)."""
    return ((_rouge(item, response, 1)[0] + _rouge(item, response, 2)[0]) / 2, 1.0)


def rouge_recall(item: Item, response: Response) -> Sequence[float]:
    """(mean of the two recalls, 1)."""
    return ((_rouge(item, response, 1)[1] + _rouge(item, response, 2)[1]) / 2, 1.0)


def r_precision(item: Item, response: Response) -> Sequence[float]:
    """(share of the R relevant choices among the R likeliest, 1), `relevant` being their places; an item with none counts nothing.

    At equal likelihood the relevant one stands behind: a tie is not a win.
    """
    relevant = {int(k) for k in item.extra["relevant"]}
    if not relevant:
        return (0.0, 0.0)
    order = sorted(range(len(response.nats)), key=lambda k: (-response.nats[k], k in relevant, k))
    return (len(relevant.intersection(order[: len(relevant)])) / len(relevant), 1.0)


METRICS = (
    Metric("rouge-1", "%", "ROUGE-1 f-measure, words of any script, no stemming", rouge_1),
    Metric("rouge-2", "%", "ROUGE-2 f-measure, pairs of words of any script, no stemming", rouge_2),
    Metric("rouge-1/2", "%", "mean of ROUGE-1 and ROUGE-2 f-measure, as DaruSum's code has it", rouge_mean),
    Metric("rouge-1/2 recall", "%", "mean of ROUGE-1 and ROUGE-2 recall, as Darumeru's paper has it: long answers gain",
           rouge_recall),
    Metric("r-precision", "%", "share of the R sentences marked as important among the R that the model finds likeliest",
           r_precision),
)
