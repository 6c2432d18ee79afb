"""The script that a token is written in, and how long old rows of each script are: what a new row's norm is set to."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics.rows import norms
from polygraft.vocab.tables import Table

FEWEST = 30  # old tokens of a script that its norm is taken from; with fewer, all tokens'
NO_LETTERS, NO_TEXT = "no letters", "no text"


@cache
def script(character: str) -> str:
    """The script of a letter, as the first word of its Unicode name says: LATIN, CYRILLIC, CJK, HANGUL; "" for no letter."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""


def script_of(content: bytes | None) -> str:
    """The script of most of a token's letters, of equal ones the first; bytes of half a character alone are no text."""
    if content is None:
        return NO_TEXT
    text = content.decode("utf-8", "ignore")
    letters = Counter(s for c in text if (s := script(c)))
    if letters:
        return letters.most_common(1)[0][0]
    return NO_LETTERS if text or not content else NO_TEXT


@dataclass(frozen=True)
class Norms:
    """Median norm of old rows: of all tokens, and by script where enough are written in it. `counts`: old tokens by script."""

    all: float
    by_script: dict[str, float]
    counts: dict[str, int]

    def of(self, contents: Sequence[bytes | None]) -> np.ndarray:
        """The norm that rows of these tokens should have, float64 [n]."""
        return np.array([self.by_script.get(script_of(c), self.all) for c in contents])


def usual(table: Table, old: Vocabulary) -> Norms:
    """Norms of the rows of a table by the scripts of their tokens (the median: ours, rows that were never trained are short)."""
    found, tokens = norms(table), [i for i, c in enumerate(old.contents) if c is not None]
    scripts = np.array([script_of(old.contents[i]) for i in tokens])
    counts = Counter(scripts.tolist())
    by = {s: float(np.median(found[tokens][scripts == s])) for s, n in counts.items() if n >= FEWEST}
    return Norms(float(np.median(found[tokens])), by, dict(counts))
