"""What an extension would gain: the continued merges run on a part of a sample of text, and measured on the rest of it.

Merges are learned once, for the largest extension: a smaller one is its beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from polygraft import files
from polygraft.result import Estimate
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics import digits, figures
from polygraft.vocab.tokenizer import extend, filters, texts, train
from polygraft.vocab.tokenizer.counting import Counted, counts, pieces
from polygraft.vocab.tokenizer.merges import Merge

LONGEST = 24  # characters of a new token, as `vocab extend` has them
RAREST = 0.1  # of the new tokens: how often the others come is told by the rarest that is left


@dataclass(frozen=True)
class Split:
    """A language's sample: `counted` pre-tokens that merges are learned from, and documents that they are measured on."""

    documents: Callable[[], Iterable[str]]
    counted: Counted
    held: tuple[str, ...]
    characters: int  # of what was counted

    @classmethod
    def of(cls, documents: Callable[[], Iterable[str]], vocabulary: Vocabulary) -> Split:
        held, size = list[str](), 0

        def learned() -> Iterator[str]:
            nonlocal size
            for text, out in dealt(documents()):
                if out:
                    held.append(text)
                else:
                    size += len(text)
                    yield text

        found = counts(learned(), vocabulary)
        return cls(documents, found, tuple(held), size)

    def learned(self) -> Iterator[str]:
        """The text that is not held out."""
        return (text for text, out in dealt(self.documents()) if not out)


def dealt(documents: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Every document and whether it is held out: one of `texts.EVERY`. Of fewer, the second half of the last."""
    last, held = "", False
    for i, text in enumerate(pieces(documents)):
        if i % texts.EVERY == texts.EVERY - 1:
            held = True
            yield text, True
            continue
        if last:
            yield last, False
        last = text
    if held:
        yield last, False
    elif len(last) > 1:
        yield last[: len(last) // 2], False
        yield last[len(last) // 2 :], True


@dataclass(frozen=True)
class Sized:
    """One size of the vocabulary on the text held out: `sums` of figures.COLUMNS by language.

    `apart`: characters of text from one to the next of a new token, for the rarest but a tenth of those that come at all (0: none).
    """

    added: int
    sums: Mapping[str, np.ndarray]
    apart: float = 0.0

    @property
    def all(self) -> np.ndarray:
        return np.concatenate(list(self.sums.values()))

    def estimate(self, language: str | None = None) -> Estimate:
        """Characters per token of a language (None: of all), with its interval over documents."""
        sums = self.all if language is None else self.sums[language]
        return figures.estimates(sums, (figures.PER_TOKEN,))[figures.PER_TOKEN.name]


def sizes(vocabulary: Vocabulary, splits: Mapping[str, Split], wanted: Sequence[int],
          progress: Callable[..., None] = lambda *_: None) -> list[Sized]:  # fmt: skip
    """The vocabulary as it is, then extended by each of the wanted sizes, ascending; the last one smaller than wanted where the
    sample holds no more. Of a vocabulary that has no merges, the first alone."""
    found = [Sized(0, {x: measured(vocabulary.tokenizer, s.held) for x, s in splits.items()})]
    if vocabulary.kind != "BPE" or not wanted:
        return found
    words = texts.weighed({x: s.counted for x, s in splits.items()}, {})
    allowed = filters.allowed(vocabulary, digits=digits.scheme(vocabulary).longest, joined=filters.joins_digits(vocabulary),
                              longest=LONGEST)
    made = extend.extend(vocabulary, words, max(wanted), allowed=allowed, progress=progress)
    read = sum(s.characters for s in splits.values())
    for size in sorted({min(k, made.tokens) for k in wanted} - {0}):
        tokenizer, merges = beginning(made, vocabulary, size)
        sums = {x: measured(tokenizer, s.held) for x, s in splits.items()}
        found.append(Sized(size, sums, read / rarest(merges) if merges else 0.0))
    return found


def replaced(vocabulary: Vocabulary, splits: Mapping[str, Split], size: int) -> Sized | None:
    """A new vocabulary of `size` tokens in place of the old one, of the same kind, trained on the sample alone; None where bytes
    and control tokens leave no room for others."""
    if size <= len(train.reserved(vocabulary)) + 256 * (vocabulary.alphabet == "bytes"):
        return None
    kind: train.Kind = "unigram" if vocabulary.kind == "Unigram" else "bpe"
    stream = chain.from_iterable(s.learned() for s in splits.values())
    tree = train.replacement(vocabulary, stream, kind, size, digits=digits.scheme(vocabulary).longest)
    tokenizer = opened(tree)
    return Sized(tokenizer.get_vocab_size(), {x: measured(tokenizer, s.held) for x, s in splits.items()})


def opened(tree: Mapping[str, Any]) -> Any:
    """A tokenizer of the library from the tree of its file."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(files.canonical(dict(tree) | {"truncation": None, "padding": None}).decode())


def measured(tokenizer: Any, held: Sequence[str]) -> np.ndarray:
    """Documents, tokens and characters of every document held out, int64 [documents, figures.COLUMNS]; nothing else is counted."""
    out = np.zeros((len(held), len(figures.COLUMNS)), np.int64)
    encoded = tokenizer.encode_batch_fast(list(held), add_special_tokens=False)
    for row, text, e in zip(out, held, encoded):
        row[[figures.column(n) for n in ("documents", "tokens", "characters")]] = 1, len(e.ids), len(text)
    return out


def beginning(made: extend.Extended, vocabulary: Vocabulary, size: int) -> tuple[Any, tuple[Merge, ...]]:
    """The tokenizer (of the library) with the first `size` of the new tokens, and the merges that lead to them."""
    limit = vocabulary.size + size  # new ids follow the old ones in the order in which they were learned
    last = next((i + 1 for i, m in enumerate(made.learned.merges) if m.token == limit - 1), 0)
    model = made.tree["model"]
    old = len(model["merges"]) - len(made.learned.merges)
    model = model | {"vocab": {t: i for t, i in model["vocab"].items() if i < limit}, "merges": model["merges"][: old + last]}
    return opened(made.tree | {"model": model}), made.learned.merges[:last]


def rarest(merges: Sequence[Merge], share: float = RAREST) -> float:
    """How often a new token comes in the text that these merges were learned from: the quantile `share` of those that come at all.

    What merges made of a token less what later ones made of it.
    """
    left: Counter[int] = Counter()
    for m in merges:
        left[m.token] += m.count
        left.subtract({m.left: m.count} if m.left == m.right else {m.left: m.count, m.right: m.count})
    fresh = {m.token for m in merges}
    counts = [n for token, n in left.items() if token in fresh and n > 0]
    return float(np.quantile(counts, share)) if counts else 1.0
