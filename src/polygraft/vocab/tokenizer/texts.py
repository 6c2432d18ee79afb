"""The text that a tokenizer is made from: read once, a part of it held out to measure on, languages weighed against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from polygraft.config import Strict
from polygraft.data import Corpus, open_corpus
from polygraft.step import Context, DataRef, Language, ModelRef
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer.counting import Counted, counts, pieces

EVERY = 20  # one document of so many is held out
HELD = 400_000  # characters of a language that are measured on, at most


class Texts(Strict):
    """A model's tokenizer, and text."""

    model: ModelRef = Field(description="the model whose tokenizer is the start", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(
        min_length=1, description="text by language; one document a line (.txt), object (.jsonl) or row (.parquet)",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    share: dict[Language, float] = Field(
        default_factory=dict, description="how much each language counts (default: as much as there is of it)",
        json_schema_extra={"metavar": "LANG=X"},
    )
    measure: dict[Language, DataRef] = Field(
        default_factory=dict, description="text that is only measured on; of languages not named here, documents held out",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    longest: int = Field(24, ge=2, description="characters of a new token, at most")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.share and (set(self.share) != set(self.corpus) or min(self.share.values()) <= 0):
            raise ValueError(f"`share` needs a number over 0 for each language of `corpus` ({', '.join(self.corpus)})")
        return self


@dataclass(frozen=True)
class Read:
    """What was read: pre-tokens by language, the texts by language that were not counted, and the files."""

    counted: dict[str, Counted]
    held: dict[str, list[str]]
    paths: dict[str, Path]

    @property
    def bytes(self) -> int:
        return sum(c.bytes for c in self.counted.values())


def corpora(given: Mapping[str, str], field: str, context: Context) -> dict[str, Corpus]:
    return {language: open_corpus(language, context.data(path), field) for language, path in given.items()}


class Split:
    """Documents that are learned from, as a stream, while `held` keeps one of every `EVERY` as far as there is room."""

    def __init__(self, corpus: Corpus, progress: Callable[..., None], hold: bool):
        self.corpus, self.progress, self.hold = corpus, progress, hold
        self.held: list[str] = []
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        room = HELD if self.hold else 0
        for i, text in enumerate(pieces(self.corpus.documents())):
            if i % 1024 == 0:
                self.progress(0, 1, f"{self.corpus.language}: {self.bytes:,} bytes")
            if i % EVERY == EVERY - 1 and room > 0:
                room -= len(text)
                self.held.append(text)
            else:
                self.bytes += len(text.encode())
                yield text


def splits(config: Texts, context: Context) -> dict[str, Split]:
    """The corpora, with something held out of those that no text to measure on was given for."""
    return {language: Split(corpus, context.progress, language not in config.measure)
            for language, corpus in corpora(config.corpus, config.field, context).items()}  # fmt: skip


def held(config: Texts, context: Context, read: Mapping[str, Split]) -> dict[str, list[str]]:
    """What is measured on: held out of the corpora that were read, and the beginning of what was given for it."""
    given = {language: list(sample(c)) for language, c in corpora(config.measure, config.field, context).items()}
    return {language: split.held for language, split in read.items() if split.held} | given


def read(config: Texts, vocabulary: Vocabulary, context: Context) -> Read:
    """Count the pre-tokens of every corpus. Raises InputError for what is no text, naming file and line."""
    streams = splits(config, context)
    counted = {language: counts(split, vocabulary) for language, split in streams.items()}
    return Read(counted, held(config, context, streams), {k: s.corpus.path for k, s in streams.items()})


def sample(corpus: Corpus) -> Iterator[str]:
    """The beginning of a corpus that is measured on."""
    room = HELD
    for text in pieces(corpus.documents()):
        if room <= 0:
            return
        room -= len(text)
        yield text


def factors(sizes: Mapping[str, int], share: Mapping[str, float]) -> dict[str, float]:
    """How many times each language is taken, the least of them once, so that it has its share of all."""
    if not share:
        return dict.fromkeys(sizes, 1.0)
    found = {language: share[language] / max(1, size) for language, size in sizes.items()}
    return {language: factor / min(found.values()) for language, factor in found.items()}


def weighed(counted: Mapping[str, Counted], share: Mapping[str, float]) -> Counter[str]:
    """Pre-tokens of all languages together, each multiplied by its language's factor."""
    by = factors({language: c.seen for language, c in counted.items()}, share)
    found: Counter[str] = Counter()
    for language, c in counted.items():
        for word, n in c.words.items():
            found[word] += round(n * by[language])
    return found


class Stream:
    """Documents of all languages as a trainer takes them, repeated by their factors; what was read is known when it has ended."""

    def __init__(self, config: Texts, context: Context):
        self.config, self.context = config, context
        self.splits = splits(config, context)
        sizes = {k: sum(map(len, s.corpus.documents())) if config.share else 1 for k, s in self.splits.items()}
        self.factors = factors(sizes, config.share)

    def __iter__(self) -> Iterator[str]:
        for language, split in self.splits.items():
            due = 0.0
            for text in split:
                due += self.factors[language]
                for _ in range(int(due)):
                    yield text
                due -= int(due)

    def read(self) -> Read:
        counted = {language: Counted(Counter(), 0, 0, split.bytes) for language, split in self.splits.items()}
        return Read(counted, held(self.config, self.context, self.splits), {k: s.corpus.path for k, s in self.splits.items()})
