"""Several tokenizers over the same text, the first being what the others are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from polygraft.result import Estimate
from polygraft.stats import Bootstrap
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics import figures, reach
from polygraft.vocab.metrics.counting import Counted, Reader, spaced
from polygraft.vocab.metrics.digits import Digits, scheme
from polygraft.vocab.metrics.rows import Undertrained, undertrained
from polygraft.vocab.tables import Side, Table

Texts = Callable[[], Iterable[str]]  # opens the documents of a language again


@dataclass
class Studied:
    """One tokenizer: what it made of the text of every language, and what its vocabulary is."""

    name: str
    vocabulary: Vocabulary
    counted: dict[str, Counted] = field(default_factory=dict)
    added: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # ids whose bytes the first one lacks
    rows: Undertrained | None = None

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.vocabulary)

    @cached_property
    def unreachable(self) -> dict[int, str]:
        return reach.unreachable(self.vocabulary)

    @cached_property
    def parted_control(self) -> list[str]:
        return reach.parted_control(self.vocabulary)

    @cached_property
    def digits(self) -> Digits:
        return scheme(self.vocabulary)

    @property
    def tokens(self) -> int:
        """How many tokens there are, holes not counted."""
        return len(self.vocabulary.names)

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each id came in all languages together, int64 [ids]."""
        return np.stack([c.counts for c in self.counted.values()]).sum(0)

    @property
    def emitted(self) -> int:
        """Added tokens that came at least once."""
        return int((self.counts[self.added] > 0).sum())

    @cached_property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Language -> figure -> estimate."""
        return {language: figures.estimates(c.sums) for language, c in self.counted.items()}

    def renyi(self, language: str, alpha: float = figures.ALPHA) -> float:
        return figures.renyi_efficiency(self.counted[language].counts, self.tokens, alpha)

    def used(self, language: str) -> float:
        """Share of all tokens that the text needed."""
        return float((self.counted[language].counts > 0).sum() / self.tokens)


@dataclass(frozen=True)
class Parity:
    """Parallel text under one tokenizer: every language's tokens over the reference's, and how unequal the costs are."""

    tokenizer: str
    reference: str
    premiums: dict[str, Estimate]
    gini: Estimate
    tokens: dict[str, int]


def study(named: Sequence[tuple[str, Vocabulary, Mapping[Side, Table]]], texts: Mapping[str, Texts],
          progress: Callable[..., None] = lambda *_: None) -> list[Studied]:  # fmt: skip
    """Let every tokenizer read the text of every language; rows of a model's tables are looked at where it has any."""
    found, work = list[Studied](), len(named) * len(texts)
    for name, vocabulary, tables in named:
        made = Studied(name, vocabulary)
        for language, opened in texts.items():
            progress(len(found) * len(texts) + len(made.counted), work, f"{name}: {language}")
            made.counted[language] = made.reader.count(opened(), words=spaced(language))
        if found:
            known = found[0].vocabulary.by_bytes
            made.added = np.array([i for i, b in enumerate(vocabulary.contents) if b and b not in known], np.int64)
        if tables:
            made.rows = undertrained(vocabulary, dict(tables))
        found.append(made)
    return found


def parity(tokenizer: str, counted: Mapping[str, Counted], reference: str) -> Parity:
    """Every language's tokens on parallel text, whose sentence i says the same in each. Raises ValueError where they differ in
    number."""
    tokens = {language: c.sums[:, figures.column("tokens")] for language, c in counted.items()}
    if len({len(t) for t in tokens.values()}) > 1:
        raise ValueError(", ".join(f"{language}: {len(t):,}" for language, t in tokens.items()))
    languages = list(tokens)
    premiums, gini = figures.parities([tokens[x] for x in languages], languages.index(reference))
    return Parity(tokenizer, reference, dict(zip(languages, premiums)), gini, {x: int(t.sum()) for x, t in tokens.items()})


def differences(first: Studied, other: Studied) -> dict[str, dict[str, Bootstrap]]:
    """Language -> figure -> `other` - `first` on the same documents."""
    return {language: figures.differences(first.counted[language].sums, other.counted[language].sums)
            for language in first.counted}  # fmt: skip


def gains(first: Studied, other: Studied) -> dict[str, Bootstrap]:
    """Language -> how much more text a token holds than the first one's, in percent; languages of one document left out."""
    found = {language: figures.gain(first.counted[language].sums, other.counted[language].sums) for language in first.counted}
    return {language: g for language, g in found.items() if g is not None}
