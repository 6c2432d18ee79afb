"""The most used tokens of a vocabulary, for one that is then extended: rare ones give way to those of other languages.

The LEP paper (arXiv 2412.21140, 2.4.1) keeps the tokens that are most common in its corpora; its code keeps the lowest ids. Here it
is the frequency, and what a kept token is merged from is kept with it, so that all of them can still be reached.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from polygraft.errors import RecipeError
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer import trim


def usage(vocabulary: Vocabulary, words: Counter[str]) -> np.ndarray:
    """How often each token comes in these pre-tokens, int64 [size]."""
    found = np.zeros(vocabulary.size, np.int64)
    for word, n in words.items():
        for i in vocabulary.replay(word):
            found[i] += n
    return found


def most_used(vocabulary: Vocabulary, words: Counter[str], keep: int) -> trim.Trimmed:
    """The tokenizer with `keep` of its tokens. Raises RecipeError where more cannot be spared, or it has fewer."""
    always = trim.closed(vocabulary, ())
    if not len(always) < keep <= len(vocabulary.names):
        raise RecipeError("so many tokens cannot be kept", where="keep", found=keep,
                          expected=f"more than {len(always):,}, which are never dropped, up to {len(vocabulary.names):,}")
    count = usage(vocabulary, words)
    order = [int(i) for i in np.argsort(-count, kind="stable") if int(i) in vocabulary.names]
    return trim.without(vocabulary, trim.filled(vocabulary, always, keep, order))
