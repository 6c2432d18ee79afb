"""Texts: corpora as windows of tokens, the same number of tokens in every language, without padding.

Documents stand one after another, as they are packed in pretraining: a window may hold several, and attention sees over their
borders. Every window begins with BOS where the tokenizer has one; BOS is read and never counted. A window has one language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.data import Corpus
from polygraft.errors import InputError

AT_ONCE = 256  # documents handed to the tokenizer together


@dataclass(frozen=True)
class Stream:
    """The tokens of one language. `ids` int32 [tokens] without special tokens, document d is `ids[starts[d] : starts[d + 1]]`.

    `starts` int64 [documents + 1]; `characters` int64 [documents]. `bos` is put before every window; None where there is none.
    """

    language: str
    ids: np.ndarray
    starts: np.ndarray
    characters: np.ndarray
    bos: int | None = None
    path: str = ""
    digest: str = ""

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def documents(self) -> int:
        return len(self.starts) - 1

    def first(self, tokens: int) -> Stream:
        """The first so many tokens; the last document may be cut."""
        n = max(1, int(np.searchsorted(self.starts, tokens)))
        starts, characters = np.minimum(self.starts[: n + 1], tokens), self.characters[:n].copy()
        whole = max(1, int(self.starts[n] - self.starts[n - 1]))
        characters[-1] = round(int(characters[-1]) * int(starts[n] - starts[n - 1]) / whole)
        return replace(self, ids=self.ids[:tokens], starts=starts, characters=characters)

    def first_documents(self, n: int) -> Stream:
        return replace(self, ids=self.ids[: self.starts[n]], starts=self.starts[: n + 1], characters=self.characters[:n])

    def groups(self, count: int) -> np.ndarray:
        """int64 [documents]: the group of each document. Neighbours share a group, since they are often of one source."""
        return np.arange(self.documents) * min(count, self.documents) // max(1, self.documents)


@dataclass(frozen=True)
class Batch:
    """`ids` int64 [rows, width], and of each token that counts its document: `documents` int64 [rows, width - skip].

    The first `skip` columns (BOS) are read and not counted.
    """

    index: int
    ids: np.ndarray
    documents: np.ndarray
    skip: int

    @property
    def tokens(self) -> int:
        return int(self.documents.size)


def check_window(anatomy: Anatomy, window: int) -> None:
    """Raise InputError for a window that the model cannot see."""
    if (most := anatomy.context) is not None and window > most:
        raise InputError("the window is longer than what the model sees", where="window", found=window, expected=f"at most {most}")


def cuts(stream: Stream, window: int, rows: int) -> list[tuple[int, int, int]]:
    """(first token, windows, tokens of each) of every batch: whole windows, `rows` at a time, then one with what is left over."""
    width = window - (stream.bos is not None)
    whole, rest = divmod(stream.tokens, width)
    found = [(i * width, min(rows, whole - i), width) for i in range(0, whole, rows)]
    return [*found, (whole * width, 1, rest)] if rest else found


def batch_at(stream: Stream, index: int, cut: tuple[int, int, int]) -> Batch:
    """Batch `index`, which is this one of `cuts`."""
    first, n, width = cut
    ids = stream.ids[first : first + n * width].astype(np.int64).reshape(n, width)
    if stream.bos is not None:
        ids = np.concatenate([np.full((n, 1), stream.bos, np.int64), ids], axis=1)
    documents = np.searchsorted(stream.starts, np.arange(first, first + n * width), side="right") - 1
    return Batch(index, ids, documents.reshape(n, width), int(stream.bos is not None))


def batches(stream: Stream, window: int, rows: int) -> Iterator[Batch]:
    """Every batch in order, made when it is asked for."""
    return (batch_at(stream, index, cut) for index, cut in enumerate(cuts(stream, window, rows)))


def tokenized(corpus: Corpus, tokenizer: Any, *, most: int | None = None, aligned: bool = False) -> Stream:
    """A corpus as tokens, read until there are at least `most`.

    Raises InputError where the text gives no token at all; with `aligned` also at an empty document that has others behind it.
    """
    parts: list[np.ndarray] = []
    sizes, characters, read = [0], list[int](), 0
    documents = corpus.documents(aligned=aligned)
    while chunk := list(islice(documents, AT_ONCE)):
        for ids, text in zip(_encode(tokenizer, chunk), chunk, strict=True):
            parts.append(np.asarray(ids, np.int32))
            sizes.append(len(ids))
            characters.append(len(text))
        read += sum(sizes[-len(chunk):])
        if most is not None and read >= most:
            break
    starts = np.cumsum(np.asarray(sizes, np.int64))
    if not starts[-1]:
        raise InputError("the text gives no tokens", where=corpus.path)
    every, lengths = np.concatenate(parts), np.asarray(characters, np.int64)
    return Stream(corpus.language, every, starts, lengths, bos_of(tokenizer), str(corpus.path), corpus.digest)


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text; the name of a special token in it (`</s>`) is text like any other."""
    asked = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    found: list[list[int]] = tokenizer(list(texts), **asked)["input_ids"]
    return found


def bos_of(tokenizer: Any) -> int | None:
    """The token that windows begin with, None where the tokenizer names none. It is put there whether or not encoding would."""
    bos = tokenizer.bos_token_id
    return None if bos is None else int(bos)


def budgeted(streams: Mapping[str, Stream], *, tokens: int | None, parallel: bool) -> tuple[dict[str, Stream], list[str]]:
    """The part of each language that is read, and what must be said of it.

    Not parallel: the same number of tokens everywhere, as many as are asked for or as all have. Parallel: the same documents
    everywhere, each language's own tokens, so many documents that no language exceeds `tokens`.
    Raises InputError for parallel texts of unequal length, or where the first document alone exceeds `tokens`.
    """
    return _parallel(streams, tokens) if parallel else _equal(streams, tokens)


def _equal(streams: Mapping[str, Stream], tokens: int | None) -> tuple[dict[str, Stream], list[str]]:
    most = min(s.tokens for s in streams.values())
    taken = most if tokens is None else min(tokens, most)
    notes = []
    if tokens is not None and most < tokens:
        short = ", ".join(f"{g} {s.tokens:,}" for g, s in streams.items() if s.tokens < tokens)
        notes.append(f"{tokens:,} tokens a language were asked for; {taken:,} are read of each, since there are fewer: {short}.")
    return {g: s.first(taken) for g, s in streams.items()}, notes


def check_even(counts: Mapping[str, tuple[int, str]]) -> None:
    """Raise InputError where parallel texts, language -> (documents, path), do not correspond."""
    if len({n for n, _ in counts.values()}) > 1:
        raise InputError("parallel texts with unequal numbers of documents", where=", ".join(path for _, path in counts.values()),
                         found=", ".join(f"{g} {n:,}" for g, (n, _) in counts.items()),
                         fix="give files whose lines correspond, none of them empty")


def _parallel(streams: Mapping[str, Stream], tokens: int | None) -> tuple[dict[str, Stream], list[str]]:
    check_even({g: (s.documents, s.path or g) for g, s in streams.items()})  # whatever the budget
    if tokens is None:
        return dict(streams), []
    n = min(int(np.searchsorted(s.starts, tokens, side="right")) - 1 for s in streams.values())
    if n < 1:
        raise InputError("no document of the parallel texts fits the budget", where="tokens", found=f"{tokens:,}",
                         fix="ask for more tokens")
    return {g: s.first_documents(n) for g, s in streams.items()}, []
