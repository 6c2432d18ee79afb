"""Tokens taken out of a tokenizer, such that text which does not need them is cut exactly as before.

BPE: on a piece of text merges are applied in order of rank, and a merge that was applied stays part of some token of the result.
So where every token of the old result stays, with the merges that build it from its characters, the same merges are applied in the
same order. Unigram: the best path through fewer tokens is the old one, if its tokens are all there. (Ours; nothing is estimated.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from polygraft.errors import InputError
from polygraft.tokenfile import BYTE, BYTE_OF, Vocabulary

LONG = 200  # characters of a token with several ways to be built, above which all of them stay instead of the one that is used


@dataclass(frozen=True)
class Trimmed:
    """What stays: `tree` for tokenizer.json, and `old` int64 [tokens], ascending: the old id of every new one."""

    tree: dict[str, Any]
    old: np.ndarray

    @property
    def new(self) -> dict[int, int]:
        """Old id -> new id."""
        return {int(o): n for n, o in enumerate(self.old)}


def refuse_kind(vocabulary: Vocabulary) -> None:
    """Raise InputError for a tokenizer that loses what its vocabulary lacks: nothing can be taken out of it."""
    if vocabulary.kind not in ("BPE", "Unigram"):
        raise InputError("text cannot be written without the tokens of this kind of vocabulary", where=vocabulary.path,
                         found=vocabulary.kind, expected="BPE or Unigram")


def needed(vocabulary: Vocabulary) -> set[int]:
    """Ids that stay whatever text uses: control and other added tokens, single bytes, digits, the unknown token.

    Without bytes to fall back on all single characters stay too, so that what could be written still can.
    """
    stay = set(vocabulary.added)
    alone = vocabulary.alphabet != "bytes" and not vocabulary.falls_back
    for token, i in vocabulary.ids.items():
        single = len(token) == 1 and (alone or (vocabulary.alphabet == "bytes" and token in BYTE_OF))
        if single or (vocabulary.falls_back and BYTE.fullmatch(token)) or _digits(vocabulary, token):
            stay.add(i)
    model = vocabulary.model
    if (unknown := vocabulary.ids.get(str(model.get("unk_token")))) is not None:
        stay.add(unknown)
    if vocabulary.kind == "Unigram":
        scores = [float(score) for _, score in model["vocab"]]
        stay.add(int(np.argmin(scores)))  # what is unknown costs 10 more than the worst token
        stay |= {model["unk_id"]} if isinstance(model.get("unk_id"), int) else set()
    return stay


def _digits(vocabulary: Vocabulary, token: str) -> bool:
    try:
        return vocabulary.bytes_of(token).decode().isdecimal()
    except UnicodeDecodeError:
        return False


def closed(vocabulary: Vocabulary, wanted: Iterable[int]) -> np.ndarray:
    """These ids, those that always stay, and the pieces that they are merged from: int64, ascending."""
    refuse_kind(vocabulary)
    found = needed(vocabulary)
    pending = [i for i in {*map(int, wanted), *found} if i in vocabulary.names]
    found, built = set(), Built(vocabulary)
    while pending:
        if (i := pending.pop()) not in found:
            found.add(i)
            pending += [p for p in built.pieces(vocabulary.names[i]) if p not in found]
    return np.array(sorted(found), np.int64)


class Built:
    """Which two tokens a token is merged from, in the one way in which the tokenizer comes to it."""

    def __init__(self, vocabulary: Vocabulary):
        self.ids = vocabulary.ids
        self.rank = {pair: i for i, pair in enumerate(vocabulary.merges)}
        self.ways: dict[str, list[tuple[str, str]]] = {}
        for pair in self.rank:
            self.ways.setdefault("".join(pair), []).append(pair)

    def pieces(self, token: str) -> list[int]:
        """Ids of its two parts; of a token that no merge makes none; of all its ways those that may be the one."""
        ways = self.ways.get(token, [])
        if len(ways) > 1 and len(token) <= LONG and (last := self._last(token)) is not None:
            ways = [last]
        return [self.ids[part] for pair in ways for part in pair if part in self.ids]

    def _last(self, token: str) -> tuple[str, str] | None:
        """The last merge when the token alone is cut (text around it changes nothing within it); None if it is not reached."""
        parts, last = list(token), None
        while len(parts) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in pairwise(parts)]
            at = int(np.argmin(ranks))
            if ranks[at] == len(self.rank):
                return None
            last = (parts[at], parts[at + 1])
            parts[at : at + 2] = ["".join(last)]
        return last


def without(vocabulary: Vocabulary, kept: np.ndarray) -> Trimmed:
    """The tokenizer with the tokens `kept` (ids, closed) and no others; ids without holes, in the old order."""
    old = np.unique(np.asarray(kept, np.int64))
    new = {int(o): n for n, o in enumerate(old)}
    model = dict(vocabulary.model)
    if vocabulary.kind == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
    else:
        stay = {token: new[i] for token, i in vocabulary.ids.items() if i in new}
        model["vocab"] = dict(sorted(stay.items(), key=lambda item: item[1]))
        model["merges"] = [entry for entry, (a, b) in zip(model.get("merges") or [], vocabulary.merges, strict=True)
                           if a in stay and b in stay and a + b in stay]  # fmt: skip
    tree = vocabulary.tree | {"model": model}
    added = vocabulary.tree.get("added_tokens") or []
    tree["added_tokens"] = sorted((t | {"id": new[int(t["id"])]} for t in added), key=lambda t: t["id"])
    return Trimmed(moved(tree, vocabulary, new), old)


def moved(tree: Mapping[str, Any], vocabulary: Vocabulary, new: Mapping[int, int]) -> dict[str, Any]:
    """`tree` with the ids in its post-processor and padding changed by `new`: old id -> new id."""
    made = dict(tree)
    if isinstance(padding := made.get("padding"), Mapping) and padding.get("pad_id") in new:
        made["padding"] = {**padding, "pad_id": new[padding["pad_id"]]}
    if made.get("post_processor") is not None:
        made["post_processor"] = _processor(made["post_processor"], new)
    return made


def _processor(value: Any, new: Mapping[int, int]) -> Any:
    """Ids stand in templates under `ids` and in the older processors as [token, id] under `sep` and `cls`."""
    if isinstance(value, list):
        return [_processor(v, new) for v in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _processor(v, new) for key, v in value.items()}
    if isinstance(made.get("ids"), list):
        made["ids"] = [new.get(i, i) for i in made["ids"]]
    for key in ("sep", "cls"):
        if isinstance(made.get(key), list) and len(made[key]) == 2 and type(made[key][1]) is int:
            made[key] = [made[key][0], new.get(made[key][1], made[key][1])]
    return made


# --------------------------------------------------------------------------------------------------------- what is used


def used(counts: Mapping[str, np.ndarray], *, min_count: int = 1, top: int | None = None,
         coverage: float | None = None) -> np.ndarray:  # fmt: skip
    """Ids that text uses, int64: from `counts`, language -> int64 [size], how often each token was seen.

    `coverage`: of each language the most frequent tokens that make up this share of its tokens. `top`: those of the largest share,
    averaged over languages. Otherwise those seen at least `min_count` times in all. Ties: the lower id.
    """
    if coverage is not None:
        return np.unique(np.concatenate([covering(c, coverage) for c in counts.values()]))
    total = np.sum(list(counts.values()), axis=0)
    if top is not None:
        share = np.mean([c / max(1, c.sum()) for c in counts.values()], axis=0)
        order = np.argsort(-share, kind="stable")[:top]
        return np.sort(order[total[order] > 0])
    return np.flatnonzero(total >= min_count)


def covering(count: np.ndarray, share: float) -> np.ndarray:
    """The fewest ids that make up at least `share` of all that was seen."""
    order = np.argsort(-count, kind="stable")
    seen = np.cumsum(count[order])
    n = int(np.searchsorted(seen, share * count.sum() - 1e-9)) + 1 if count.sum() else 0
    return np.sort(order[:n][count[order[:n]] > 0])


def filled(vocabulary: Vocabulary, kept: np.ndarray, multiple: int, order: Sequence[int]) -> np.ndarray:
    """`kept`, with as many further tokens in `order` as make its length a multiple, as far as there are any.

    Rows that no token has are never made. A token whose pieces would be too many is passed over.
    """
    found, built = set(kept.tolist()), Built(vocabulary)
    room = -len(found) % multiple
    for i in order:
        if not room:
            break
        more: set[int] = set()
        pending = [int(i)]
        while pending and len(more) <= room:
            if (p := pending.pop()) not in found and p not in more:
                more.add(p)
                pending += built.pieces(vocabulary.names[p])
        if len(more) <= room:
            found |= more
            room -= len(more)
    return np.array(sorted(found), np.int64)
