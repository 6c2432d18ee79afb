"""Summaries: ROUGE of a written one, R-precision of chosen sentences (DaruSum).

ROUGE (Lin 2004) counts the n-grams that a summary shares with the reference. The usual package keeps only a-z and 0-9 and so sees
nothing in Cyrillic, Devanagari or Chinese; here words are runs of letters, marks and digits of any script, and scripts that put no
spaces between words are taken character by character. No stemming, no lemmas.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def words(text: str) -> list[str]:
    """Case-folded words of any script; a character each where the script writes no spaces between words."""
    out: list[str] = []
    open_word = False
    for c in unicodedata.normalize("NFKC", text).casefold():
        kind = unicodedata.category(c)[0]
        if kind not in "LMN":
            open_word = False
        elif unicodedata.name(c, "").startswith(UNSPACED):
            if kind == "M" and out and open_word is None:
                out[-1] += c
            else:
                out.append(c)
            open_word = False
        elif open_word:
            out[-1] += c
        else:
            out.append(c)
            open_word = True
    return out
