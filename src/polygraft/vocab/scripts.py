"""The script that a character or a token is written in, by Unicode names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache

NO_LETTERS, NO_TEXT = "no letters", "no text"


@cache
def script_of(character: str, *, marks: bool = False) -> str:
    """The script of a letter (with `marks`: also of a mark on letters, such as a vowel sign), as the first word of its Unicode name
    says: LATIN, CYRILLIC, CJK, HANGUL; "" for anything else."""
    if unicodedata.category(character)[0] not in ("LM" if marks else "L"):
        return ""
    return unicodedata.name(character, "").partition(" ")[0]


def script_of_token(content: bytes | None) -> str:
    """The script of most of a token's letters, of equal ones the first; bytes of half a character alone are no text.

    Marks do not count: many are of no script of their own (COMBINING).
    """
    if content is None:
        return NO_TEXT
    text = content.decode("utf-8", "ignore")
    letters = Counter(s for c in text if (s := script_of(c)))
    if letters:
        return letters.most_common(1)[0][0]
    return NO_LETTERS if text or not content else NO_TEXT
