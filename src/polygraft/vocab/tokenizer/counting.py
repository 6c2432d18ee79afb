"""How often every pre-token is seen in text: by a tokenizer's own normaliser and pre-tokeniser, streamed, in bounded memory.

Text is first cut at the spaces between words and after line ends, and only distinct chunks are given to the pre-tokeniser, which is
many times faster. That such a cut changes nothing is looked at, on the beginning of the text; where it does (a pre-tokeniser that
joins words), whole lines are the chunks. (Ours.)
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from polygraft.tokenfile import SPACE, Vocabulary

CHUNKS = re.compile(r"(?<=\S)(?= \S)|(?<=\S\n)(?=\S)")
LINES = re.compile(r"(?<=\n)(?=\S)")
RUNS = re.compile(f"{SPACE}+(?={SPACE})|{SPACE}?[^{SPACE}]*")  # as GPT-2's: the last space goes with the word
PIECE = 16_384  # characters of a document that are seen at once
DISTINCT = 2_000_000  # pre-tokens, or chunks, in memory: about 170 bytes each
SAMPLE = 1 << 16  # characters on which both ways of cutting are compared
Cut = Callable[[str], list[str]]


@dataclass(frozen=True)
class Counted:
    """`words`: pre-token, in the alphabet of the model's vocabulary -> how often. `pruned`: sightings of rare pre-tokens that were
    dropped to bound memory, out of `seen`. `bytes`: of the text in UTF-8."""

    words: Counter[str]
    seen: int
    pruned: int
    bytes: int


def counts(documents: Iterable[str], vocabulary: Vocabulary, limit: int = DISTINCT) -> Counted:
    """Pre-tokens of a stream of documents. At most `limit` distinct ones are held: beyond it the rarest are dropped.

    Where a tokenizer puts a space before a text, every document begins with one.
    """
    cut = cutter(json.dumps(plain(vocabulary.tree)))
    stream = _spaced(documents) if prefixes(vocabulary.tree) else iter(documents)
    stream, pattern = _pattern(stream, cut)
    chunks: Counter[str] = Counter()
    words: Counter[str] = Counter()
    size = seen = pruned = 0
    for text in stream:
        size += len(text.encode())
        chunks.update(pattern.split(text))
        if len(chunks) > limit // 2:
            seen += _count(chunks, cut, words)
            pruned += prune(words, limit)
    seen += _count(chunks, cut, words)
    return Counted(words, seen, pruned + prune(words, limit), size)


def _count(chunks: Counter[str], cut: Cut, words: Counter[str]) -> int:
    """Move chunks, cut, into the words; how many words that were."""
    seen = 0
    for chunk, n in chunks.items():
        found = cut(chunk)
        seen += n * len(found)
        for word in found:
            words[word] += n
    chunks.clear()
    return seen


def prune(words: Counter[str], limit: int) -> int:
    """Drop those seen once, twice ... until at most `limit` are left; how many sightings that were (lossy counting)."""
    dropped, least = 0, 1
    while len(words) > limit:
        for word in [w for w, n in words.items() if n <= least]:
            dropped += words.pop(word)
        least *= 2
    return dropped


def _spaced(documents: Iterable[str]) -> Iterator[str]:
    return (text if text.startswith(" ") else " " + text for text in documents)


def _pattern(stream: Iterator[str], cut: Cut) -> tuple[Iterator[str], re.Pattern[str]]:
    """How the text can be cut beforehand, by its beginning; and the whole stream again."""
    first, size = [], 0
    for text in islice(stream, 2_000):
        first.append(text)
        size += len(text)
        if size > SAMPLE:
            break
    sample = [text[:SAMPLE] for text in first]
    whole = [word for text in sample for word in cut(text)]
    same = whole == [word for text in sample for chunk in CHUNKS.split(text) for word in cut(chunk)]
    return chain(first, stream), CHUNKS if same else LINES


def pieces(documents: Iterable[str], length: int = PIECE) -> Iterator[str]:
    """Documents, long ones in pieces of at least `length` characters that end with a line."""
    for text in documents:
        start = 0
        while len(text) - start > 2 * length and (end := text.find("\n", start + length)) >= 0:
            yield text[start : end + 1]
            start = end + 1
        yield text[start:]


# ------------------------------------------------------------------------------------------------------- the tokenizer's parts


def _parts(section: Any, name: str) -> list[dict[str, Any]]:
    """A section's components in order, `Sequence` opened."""
    if section is None:
        return []
    return [p for inner in section[name] for p in _parts(inner, name)] if section.get("type") == "Sequence" else [section]


def prefixes(tree: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text."""
    parts = _parts(tree.get("normalizer"), "normalizers") + _parts(tree.get("pre_tokenizer"), "pretokenizers")
    return any(p["type"] == "Prepend" or p.get("add_prefix_space") or p.get("prepend_scheme") in ("first", "always")
               for p in parts if p.get("type") in ("Prepend", "Metaspace", "ByteLevel"))


def plain(tree: dict[str, Any]) -> dict[str, Any]:
    """Normaliser and pre-tokeniser that add nothing before a text and take nothing from its ends: what a chunk of a text needs."""
    before = [p for p in _parts(tree.get("normalizer"), "normalizers") if p["type"] not in ("Prepend", "Strip")]
    changes: dict[str, dict[str, Any]] = {"Metaspace": {"prepend_scheme": "never", "split": True},
                                          "ByteLevel": {"add_prefix_space": False}}
    after = [p | changes.get(p["type"], {}) for p in _parts(tree.get("pre_tokenizer"), "pretokenizers")]
    return {"normalizer": {"type": "Sequence", "normalizers": before} if before else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": after} if after else None,
            "spaces": any(SPACE in json.dumps(p, ensure_ascii=False) for p in (*before, *after))}


@lru_cache(maxsize=4)
def cutter(parts: str) -> Cut:
    """Text -> its pre-tokens, from what `plain` says as JSON. Without a pre-tokeniser that cuts at spaces, words begin with one, as
    SentencePiece has them."""
    from tokenizers import Tokenizer

    given = json.loads(parts)
    empty: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None,
                             "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}  # fmt: skip
    tree = {**empty, "normalizer": given["normalizer"], "pre_tokenizer": given["pre_tokenizer"]}
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    normalise = tokenizer.normalizer.normalize_str if given["normalizer"] else str
    split = tokenizer.pre_tokenizer.pre_tokenize_str if given["pre_tokenizer"] else lambda text: [(text, None)]
    if not given["spaces"]:
        return lambda text: [word for word, _ in split(normalise(text)) if word]
    return lambda text: [w for word, _ in split(normalise(text)) for w in RUNS.findall(word) if w]
