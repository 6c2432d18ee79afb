"""A tokenizer reads text: what every document costs, how often every token comes, how whole words fare. Batched and streamed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from polygraft import languages
from polygraft.tokenfile import BYTE, Vocabulary
from polygraft.vocab.metrics.figures import COLUMNS, column

BATCH = 1 << 20  # characters that are encoded at a time
LIST = 1000  # word types of the list that STRR is told on
# scripts that set no space between words: what a word is there, a segmenter decides and not the text
UNSPACED = {"Hani", "Hans", "Hant", "Jpan", "Hira", "Kana", "Bopo", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Yiii"}


def spaced(language: str) -> bool:
    """Whether the language is written with spaces between words."""
    return languages.split(language)[1] not in UNSPACED


def sample(documents: Iterable[str], characters: int) -> Iterator[str]:
    """Documents from the first on, up to so many characters; the last is cut at white space, if it has any."""
    left = characters
    for text in documents:
        if len(text) > left:
            cut = text[:left]
            at = next((i for i in range(len(cut) - 1, -1, -1) if cut[i].isspace()), len(cut))
            if cut[:at].strip():
                yield cut[:at]
            return
        yield text
        left -= len(text)
        if not left:
            return


def word(run: str) -> str:
    """A run of characters between white space without the punctuation and symbols around it; "" where nothing is left.

    By Unicode categories, since `\\w` does not know the vowel signs of Indic scripts.
    """
    start, stop = 0, len(run)
    while start < stop and unicodedata.category(run[start])[0] in "PSZC":
        start += 1
    while stop > start and unicodedata.category(run[stop - 1])[0] in "PSZC":
        stop -= 1
    return run[start:stop]


def is_plain(text: str) -> bool:
    """Whether a word is of letters (with their marks, and with hyphens or apostrophes inside): what a list of words holds."""
    return all(unicodedata.category(c)[0] in "LM" or c in "-'’" for c in text)


@dataclass
class Words:
    """Words met so far, each cut once: its tokens after a space and without one."""

    reader: Reader
    index: dict[str, int] = field(default_factory=dict)  # run of characters -> row, -1 for punctuation alone
    texts: list[str] = field(default_factory=list)
    costs: list[tuple[int, int]] = field(default_factory=list)  # row -> tokens after a space, tokens without one
    frequency: dict[int, int] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)

    def meet(self, runs: Iterable[str]) -> None:
        """Cut the words of those runs that are new."""
        new: list[str] = []
        for run in runs:
            if run not in self.index:
                text = word(run)
                if text and text not in self._rows:
                    self._rows[text] = len(self.texts) + len(new)
                    new.append(text)
                self.index[run] = self._rows[text] if text else -1
        if not new:
            return
        own, encode = self.reader.adds_space, self.reader.encode
        within, bare = (new, ["\n" + w for w in new]) if own else ([" " + w for w in new], new)
        start = len(encode(["\n"])[0]) if own else 0
        self.costs += [(len(a), len(b) - start) for a, b in zip(encode(within), encode(bare))]
        self.texts += new

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Cut the words of these texts and count them; int64 [texts, 5]: words, their tokens, how many are continued, whole after a
        space, whole without one."""
        runs = [text.split() for text in texts]
        self.meet(run for some in runs for run in some)
        rows = np.fromiter((self.index[run] for some in runs for run in some), np.int64)
        owner = np.repeat(np.arange(len(texts)), [len(some) for some in runs])[rows >= 0]
        rows = rows[rows >= 0]
        for row, n in zip(*np.unique(rows, return_counts=True)):
            self.frequency[int(row)] = self.frequency.get(int(row), 0) + int(n)
        costs = np.asarray(self.costs, np.int64).reshape(-1, 2)[rows]
        columns = (np.ones(len(rows)), costs[:, 0], costs[:, 0] > 1, costs[:, 0] == 1, costs[:, 1] == 1)
        return np.stack([totals(owner, c, len(texts)) for c in columns], axis=1)

    def retention(self, most: int = LIST) -> tuple[float, float, int] | None:
        """Single-token retention of the most frequent word types: (after a space, without one, types); None without any."""
        ordered = sorted((-n, self.texts[row], row) for row, n in self.frequency.items() if is_plain(self.texts[row]))[:most]
        if not ordered:
            return None
        costs = np.array([self.costs[row] for _, _, row in ordered])
        return float((costs[:, 0] == 1).mean()), float((costs[:, 1] == 1).mean()), len(ordered)


@dataclass
class Counted:
    """What a tokenizer made of a text: `sums` int64 [documents, columns], how often each id came, and its words."""

    sums: np.ndarray
    counts: np.ndarray
    words: Words | None
    changed: list[str]  # the first documents that a round trip does not give back

    @property
    def totals(self) -> np.ndarray:
        """int64 [columns]"""
        return self.sums.sum(0)

    def total(self, name: str) -> int:
        return int(self.totals[column(name)])


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def totals(owner: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Sums of values by the text 0..n that each belongs to, int64 [n]."""
    return np.bincount(owner, weights=values, minlength=n).astype(np.int64)


def unknown_id(vocabulary: Vocabulary) -> int | None:
    """The id of what cannot be written; None where everything can."""
    token = vocabulary.model.get("unk_token")
    found = vocabulary.model.get("unk_id") if vocabulary.kind == "Unigram" else vocabulary.id_of(token) if token else None
    return None if found is None else int(found)


@dataclass(frozen=True)
class Reader:
    """One tokenizer at work. What is asked of its vocabulary for every text is found once."""

    vocabulary: Vocabulary

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, without the tokens that frame it."""
        return [e.ids for e in self.vocabulary.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def adds_space(self) -> bool:
        """Whether the tokenizer itself puts a space before a text, as SentencePiece does."""
        ids = self.encode(["a"])[0]
        return bool(ids) and (self.vocabulary.contents[ids[0]] or b"").startswith(b" ")

    @cached_property
    def fragments(self) -> np.ndarray:
        """bool [ids]: tokens that are bytes of a character that no token has: byte tokens, and what is not UTF-8 by itself."""
        vocabulary, found = self.vocabulary, np.zeros(self.vocabulary.size, bool)
        for i, content in enumerate(vocabulary.contents):
            if content is not None:
                found[i] = bool(BYTE.fullmatch(vocabulary.names[i])) if vocabulary.falls_back else not is_utf8(content)
        return found

    def count(self, documents: Iterable[str], *, words: bool = True, kept: int = 3) -> Counted:
        """Read documents, about BATCH characters at a time; `words` where white space parts them."""
        met, size, unknown = Words(self) if words else None, self.vocabulary.size, unknown_id(self.vocabulary)
        rows: list[np.ndarray] = []
        counts, changed = np.zeros(size, np.int64), list[str]()
        for batch in batches(documents):
            encoded, n = self.encode(batch), len(batch)
            decoded = self.vocabulary.tokenizer.decode_batch(encoded, skip_special_tokens=False)
            lengths = [len(ids) for ids in encoded]
            seen = np.fromiter(chain.from_iterable(encoded), np.int64, sum(lengths))
            owner = np.repeat(np.arange(n), lengths)
            counts += np.bincount(seen, minlength=size)
            changed += [text for text, back in zip(batch, decoded) if back != text][: kept - len(changed)]
            spoken = met.of(batch) if met else np.zeros((n, 5), np.int64)
            missing = totals(owner, seen == unknown, n) if unknown is not None else np.zeros(n, np.int64)
            rows.append(np.column_stack([
                np.ones(n, np.int64), lengths, [len(text) for text in batch], [len(text.encode()) for text in batch], spoken,
                totals(owner, self.fragments[seen], n), missing, [back == text for text, back in zip(batch, decoded)]]))
        return Counted(np.concatenate(rows) if rows else np.zeros((0, len(COLUMNS)), np.int64), counts, met, changed)

    def shown(self, text: str, mark: str = "|") -> str:
        """A text with the boundaries of its tokens; bytes of a cut character as `<D0>`."""
        pieces = []
        for i in self.encode([text])[0]:
            content = self.vocabulary.contents[i]
            if content is None:
                pieces.append(self.vocabulary.names.get(i, "?"))
            else:
                pieces.append(content.decode() if is_utf8(content) else "".join(f"<{b:02X}>" for b in content))
        return mark.join(pieces)


def batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents together, about BATCH characters at a time."""
    batch, size = list[str](), 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
