"""How long old rows of each script are: what a new row's norm is set to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics.rows import norms
from polygraft.vocab.scripts import script_of_token
from polygraft.vocab.tables import Table

FEWEST = 30  # old tokens of a script that its norm is taken from; with fewer, all tokens'


@dataclass(frozen=True)
class Norms:
    """Median norm of old rows: of all tokens, and by script where enough are written in it. `counts`: old tokens by script."""

    all: float
    by_script: dict[str, float]
    counts: dict[str, int]

    def of(self, contents: Sequence[bytes | None]) -> np.ndarray:
        """The norm that rows of these tokens should have, float64 [n]."""
        return np.array([self.by_script.get(script_of_token(c), self.all) for c in contents])


def usual(table: Table, old: Vocabulary) -> Norms:
    """Norms of the rows of a table by the scripts of their tokens (the median: ours, rows that were never trained are short)."""
    found, tokens = norms(table), [i for i, c in enumerate(old.contents) if c is not None]
    scripts = np.array([script_of_token(old.contents[i]) for i in tokens])
    counts = Counter(scripts.tolist())
    by = {s: float(np.median(found[tokens][scripts == s])) for s, n in counts.items() if n >= FEWEST}
    return Norms(float(np.median(found[tokens])), by, dict(counts))
