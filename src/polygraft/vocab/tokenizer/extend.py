"""An extended tokenizer: every old token keeps its id, every old merge its rank; new ones come after them.

Old merges go first when text is cut, so what new ones are applied to is the old cut: a text's new tokens are its old ones, joined.
New ids begin where the tokenizer's ids end. Where the model's table has more rows than that (padding), they are taken first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polygraft.errors import InputError, StepFailed
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tokenizer.filters import Filter
from polygraft.vocab.tokenizer.folder import anchored
from polygraft.vocab.tokenizer.merges import WALL, Learned, Words, learn

COVERAGE = 0.9995  # of all characters of the text: those that the vocabulary lacks become tokens (SentencePiece's default)
SYMBOLS = 24_000_000  # tokens of distinct words in memory: about 50 bytes each
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Extended:
    """`tree` of the new tokenizer.json; how many `characters` became tokens; the merges `learned`; `pruned`: sightings of rare
    words that were left out to bound memory."""

    tree: dict[str, Any]
    characters: int
    learned: Learned
    pruned: int

    @property
    def tokens(self) -> int:
        """New tokens."""
        return self.characters + len(self.learned.added)


def refuse_kind(vocabulary: Vocabulary) -> None:
    """Raise InputError for what has no merges to continue."""
    if vocabulary.kind != "BPE":
        raise InputError("only a BPE tokenizer has merges that can be continued", where=vocabulary.path, found=vocabulary.kind,
                         expected="BPE", fix="train a new tokenizer: polygraft vocab train")


def of_tree(tree: Mapping[str, Any], like: Vocabulary) -> Vocabulary:
    """The vocabulary of a tokenizer.json (BPE) that is not written yet. Its `tokenizer` is still that of the file of `like`."""
    return Vocabulary(like.path, dict(tree), like.alphabet, {str(t): int(i) for t, i in tree["model"]["vocab"].items()},
                      {int(t["id"]): t for t in tree.get("added_tokens") or []})


def extend(vocabulary: Vocabulary, words: Counter[str], size: int, *, allowed: Filter, min_count: int = 2,
           progress: Progress = lambda *_: None) -> Extended:  # fmt: skip
    """`size` new tokens (fewer where text has no more) for the pre-tokens `words`, as `counting.counts` has them.

    SentencePiece vocabularies first get the characters that they lack, since a merge joins tokens and never bytes to fall back on.
    """
    refuse_kind(vocabulary)
    old = of_tree(anchored(vocabulary.tree), vocabulary)
    letters = missing(old, words, size, allowed, min_count)
    model = old.model | {"vocab": dict(old.model["vocab"]) | {c: old.size + i for i, c in enumerate(letters)}}
    old = of_tree(old.tree | {"model": model}, old)
    contents = {i: content for token, i in old.ids.items() if (content := mergeable(old, token, i)) is not None}
    held, pruned = cut(old, words, contents)
    merges = [(old.ids[a], old.ids[b], old.ids[a + b]) for a, b in old.merges
              if all(old.ids[t] in contents for t in (a, b, a + b))]  # fmt: skip
    learned = learn(held, contents, merges, size - len(letters), first=old.size, min_count=min_count, allowed=allowed,
                    progress=lambda done, total: progress(done, total, "merges"))  # fmt: skip
    return Extended(_joined(old, learned), len(letters), learned, pruned)


def mergeable(vocabulary: Vocabulary, token: str, i: int) -> bytes | None:
    """The bytes of a token; None of one that no merge may join: control and added ones, the unknown one, bytes to fall back on."""
    if i in vocabulary.added or token == vocabulary.model.get("unk_token"):
        return None
    content = vocabulary.bytes_of(token)
    return content if vocabulary.write_of(content) == token else None


def missing(vocabulary: Vocabulary, words: Counter[str], size: int, allowed: Filter, min_count: int) -> list[str]:
    """Characters that are no token yet and have to be, the most frequent first: none of a byte-level vocabulary."""
    if vocabulary.alphabet == "bytes":
        return []
    seen: Counter[str] = Counter()
    for word, n in words.items():
        for c in word:
            seen[c] += n
    total, so_far, found = seen.total(), 0, list[str]()
    for c, n in sorted(seen.items(), key=lambda item: (-item[1], item[0])):
        if so_far >= COVERAGE * total or n < min_count or len(found) == size:
            break
        so_far += n
        if c not in vocabulary.ids and allowed(vocabulary.bytes_of(c)):
            found.append(c)
    return found


def cut(vocabulary: Vocabulary, words: Counter[str], contents: Mapping[int, bytes], limit: int = SYMBOLS) -> tuple[Words, int]:
    """Words as the old tokenizer cuts them, the most frequent first while there is room; and sightings of those left out."""
    room, pruned = limit, 0
    order = sorted(words.items(), key=lambda item: (-item[1], item[0]))

    def cuts():
        nonlocal room, pruned
        for word, n in order:
            ids = [i if i in contents else WALL for i in vocabulary.replay(word)]
            if len(ids) > room:
                pruned += n
            elif len(ids) > 1:
                room -= len(ids)
                yield ids, n

    return Words.of(cuts()), pruned


def _joined(old: Vocabulary, learned: Learned) -> dict[str, Any]:
    """tokenizer.json with the new tokens and merges, merges written in the form that it has them in."""
    names, vocab = dict(old.names), dict(old.model["vocab"])
    pairs = list[tuple[str, str]]()
    for m in learned.merges:
        left, right = names[m.left], names[m.right]
        if m.token in learned.added:
            names[m.token] = left + right
            vocab[left + right] = m.token
        pairs.append((left, right))
    strings = isinstance(next(iter(old.model.get("merges") or [[]])), str) and not any(" " in p for pair in pairs for p in pair)
    merges = [*(old.model.get("merges") or []), *(" ".join(p) for p in pairs)] if strings else [*map(list, old.merges + pairs)]
    return old.tree | {"model": old.model | {"vocab": vocab, "merges": merges}}


def check_coarser(old: Vocabulary, new: Vocabulary, texts: list[str]) -> tuple[int, int]:
    """Tokens of the texts under both. Raises StepFailed unless every boundary between new tokens is one between old ones."""
    before = old.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    after = new.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for text, a, b in zip(texts, before, after, strict=True):
        if not boundaries(new, b.ids) <= boundaries(old, a.ids):
            raise StepFailed("the extended tokenizer cuts where the old one does not", where=new.path, found=text[:80],
                             fix="please report it with both tokenizer.json")
    return sum(len(a.ids) for a in before), sum(len(b.ids) for b in after)


def boundaries(vocabulary: Vocabulary, ids: list[int]) -> set[int]:
    """Where tokens end, in bytes of what they stand for; what stands for nothing (unknown) ends all that can be said."""
    found, at = set[int](), 0
    for i in ids:
        content = vocabulary.contents[i]
        if content is None:
            break
        at += len(content)
        found.add(at)
    return found
